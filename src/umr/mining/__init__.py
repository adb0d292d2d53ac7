"""Mining: what a model finds for training queries, filtered into hard negatives; teacher scores; each with its reasons on disk."""
