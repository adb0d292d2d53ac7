"""Embedders and collections as other frameworks' own classes; each needs the extra of its name."""
