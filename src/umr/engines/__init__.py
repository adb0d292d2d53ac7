"""Other programs that compute a model's vectors, and whether theirs are the same."""
