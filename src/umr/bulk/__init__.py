"""Embedding whole corpora: pieces of fixed rows, made by one worker or many, on one machine or a Ray cluster."""
