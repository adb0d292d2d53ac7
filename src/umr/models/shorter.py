"""Shorter vectors: prefixes, scaled to unit length again (Matryoshka representation learning, Kusupati et al., NeurIPS 2022)."""

from __future__ import annotations

import numpy as np

from umr.protocols import Vectors


def shorten(vectors_ND: Vectors, dimension: int) -> Vectors:
    """The first components of vectors.

    A model has to be trained for it (`loss.matryoshka` in a recipe); others lose more than the share that is cut.

    Args:
        vectors_ND: rows of unit length.
        dimension: how many components to keep; with all of them the vectors are returned as they are.

    Returns:
        float32, shape (N, dimension), rows of unit length; a row whose prefix is zero stays zero.
    """
    if dimension == vectors_ND.shape[1]:
        return vectors_ND
    kept_ND = vectors_ND[:, :dimension]
    norms_N1 = np.linalg.norm(kept_ND, axis=1, keepdims=True)
    return np.asarray(kept_ND / np.maximum(norms_N1, np.finfo(np.float32).tiny), np.float32)
