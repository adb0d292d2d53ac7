"""A quick real encoder that sees everything it is given: words, pixels, and frames in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from umr.errors import MediaError
from umr.items import Image, Item, Side, Text, Video
from umr.protocols import Vectors

DIMENSION = 48


class SeeingEncoder:
    """Random directions, one for each word and each coarse colour; media are opened as a model would.

    Args:
        modalities: what it takes; refuses the rest as a model does.
    """

    dimension = DIMENSION
    fingerprint = "seeing"

    def __init__(self, modalities: Sequence[str] = ("text", "image", "video")) -> None:
        self.modalities = set(modalities)
        self.calls: list[int] = []
        self.seen: list[str] = []

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: Any = None) -> Vectors:
        for item in items:
            if missing := {part.modality for part in item.parts} - self.modalities:
                raise MediaError(f"item {item.id} holds {', '.join(sorted(missing))}, which this model does not take")
        self.calls.append(len(items))
        self.seen += [item.id or "" for item in items]
        return np.stack([self._encode(item) for item in items])

    def _encode(self, item: Item) -> Vectors:
        vector = _direction("item")
        for part in item.parts:
            if isinstance(part, Text):
                for word in part.text.lower().split():
                    vector = vector + _direction(word)
            elif isinstance(part, Image):
                vector = vector + _colours(part.open())
            elif isinstance(part, Video):
                for number, frame in enumerate(part.frames().images):
                    vector = vector + _colours(frame) * (1 + number / 10)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def _direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=4).digest(), "big")
    return np.random.default_rng(seed).standard_normal(DIMENSION)


def _colours(image: Any) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB").resize((4, 4)), np.float64).ravel() / 255
    return np.resize(pixels - pixels.mean(), DIMENSION) * 5
