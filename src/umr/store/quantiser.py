"""Vectors in fewer bits: a byte or a sign for each component, and the numbers that turn them back.

A code c stands for center + step * c. The center is the mean of a sample of vectors: those of one modality share much of theirs, and what
all candidates share changes no ranking. int8: a step for each component; 127 of them reach the largest distance from the center in the
sample, or four standard deviations where that is less (about the best range of an 8-bit quantiser for normally distributed numbers: Max,
"Quantizing for minimum distortion", 1960); what lies beyond is clipped. binary: c is -1 or 1, one step for all components, the mean
distance; what it stands for is scaled to unit length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from umr.errors import StoreError
from umr.files import write_text
from umr.models.shorter import shorten
from umr.protocols import Vectors
from umr.store.rows import Rows

Coded: TypeAlias = Literal["int8", "binary"]
Precision: TypeAlias = Literal["fp16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Codes: TypeAlias = npt.NDArray[Any]
"""int8, shape (N, D); or uint8, shape (N, D / 8): eight signs a byte, the first the highest bit, zeros filling the last byte."""

FORMAT = 1
SAMPLE = 10_000
"""Vectors that a center and steps are taken of."""
_REACH = 4  # standard deviations
_LEAST = 1e-6  # of a step, where a component never changes


@dataclass(frozen=True)
class Quantiser:
    """Turns vectors of one model into codes, and codes into vectors.

    Attributes:
        precision: of the codes.
        fingerprint: of the model.
        center_D: what codes are about.
        step_D: what a unit of a code is worth.

    Example:
        >>> quantiser = Quantiser.fit(embedder.encode(sample), "int8", embedder.fingerprint)     # doctest: +SKIP
        >>> codes = quantiser.codes(embedder.encode(items))                                      # doctest: +SKIP
    """

    precision: Coded
    fingerprint: str
    center_D: Vectors
    step_D: Vectors

    @classmethod
    def fit(cls, sample_ND: Vectors, precision: Coded, fingerprint: str, dimension: int | None = None) -> Quantiser:
        """Take center and steps from a sample of candidates.

        Args:
            sample_ND: unit vectors, at least one; thousands are better.
            precision: of the codes.
            fingerprint: of the model that made them.
            dimension: components to keep, see `umr.models.shorter`; None for all.
        """
        kept_ND = shorten(sample_ND, dimension or sample_ND.shape[1])
        center_D = kept_ND.mean(axis=0)
        away_ND = np.abs(kept_ND - center_D)
        if precision == "int8":
            step_D = np.minimum(away_ND.max(axis=0), _REACH * np.sqrt((away_ND**2).mean(axis=0))) / 127
        else:
            step_D = np.full_like(center_D, away_ND.mean())
        return cls(precision, fingerprint, center_D, np.maximum(step_D, np.float32(_LEAST)))

    @classmethod
    def of(cls, rows: Rows, precision: Coded, fingerprint: str, dimension: int | None = None) -> Quantiser:
        """`fit` on rows of a store, spread evenly, `SAMPLE` at most."""
        return cls.fit(rows.take(sample_rows(len(rows))), precision, fingerprint, dimension)

    @property
    def dimension(self) -> int:
        """Components that are kept."""
        return len(self.center_D)

    @property
    def width(self) -> int:
        """Bytes of a code."""
        return bytes_of(self.dimension, self.precision)

    def codes(self, vectors_ND: Vectors) -> Codes:
        """Codes of unit vectors; longer ones are cut first."""
        away_ND = shorten(vectors_ND, self.dimension) - self.center_D
        if self.precision == "int8":
            return np.clip(np.rint(away_ND / self.step_D), -127, 127).astype(np.int8)
        return np.packbits(away_ND > 0, axis=1)

    def vectors(self, codes: Codes) -> Vectors:
        """What codes stand for: float32, shape (N, dimension), of unit length, or very nearly with int8."""
        vectors_ND = self.units(codes) * self.step_D + self.center_D
        if self.precision == "binary":
            vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND

    def units(self, codes: Codes) -> Vectors:
        """Codes as numbers; of signs -1 and 1, whose inner products are D - 2 times the Hamming distances."""
        if self.precision == "int8":
            return codes.astype(np.float32)
        return np.unpackbits(codes, axis=1, count=self.dimension).astype(np.float32) * 2 - 1

    def save(self, path: Path) -> None:
        """Write JSON, every digit of it."""
        numbers = {"center": self.center_D.tolist(), "step": self.step_D.tolist()}
        write_text(path, json.dumps({"format": FORMAT, "precision": self.precision, "model": self.fingerprint, **numbers}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Quantiser:
        """Read what `save` wrote. Raises `StoreError` where it is missing or damaged."""
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["format"] != FORMAT or found["precision"] not in get_args(Coded) or len(found["center"]) != len(found["step"]):
                raise ValueError("another format")
            center_D, step_D = (np.array(found[name], np.float32) for name in ("center", "step"))
            return cls(found["precision"], str(found["model"]), center_D, step_D)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: no quantiser of vectors ({error}); make the codes again") from error


def bytes_of(dimension: int, precision: Precision) -> int:
    """Bytes that a vector takes."""
    return {"fp16": 2 * dimension, "int8": dimension, "binary": -(-dimension // 8)}[precision]


def sample_rows(count: int) -> npt.NDArray[np.int64]:
    """Which of `count` rows a quantiser is fitted to."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))
