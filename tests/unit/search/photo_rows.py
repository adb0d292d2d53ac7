"""Rows of a small collection with every kind of row: pictures, pictures with captions, and texts, embedded by a bag of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from umr.items import Item
from umr.search.rows import Row
from unit.mbeir_fixture import COLOURS, NOUNS, BagEncoder


def item_of(root: Path, number: int) -> tuple[Item, str]:
    """Item and media of row `number`: images, texts and images with texts in turn."""
    colour, noun = list(COLOURS)[number % 3], NOUNS[number % 12]
    kind = ("image", "text", "image,text")[number // 3 % 3]
    text = f"a {colour} {noun}" if "text" in kind else None
    if "image" not in kind:
        return Item.of(text=text), ""
    path = root / f"{number:02}.png"
    PIL.Image.new("RGB", (8 + number, 8), COLOURS[colour]).save(path)
    return Item.of(image=path, text=text), path.name


def photo_rows(root: Path, count: int = 36) -> list[Row]:
    """Four rows share a source; the year is 2010 + number, and every fifth row has no year."""
    root.mkdir(parents=True, exist_ok=True)
    encoder, rows = BagEncoder(), []
    for number in range(count):
        item, media = item_of(root, number)
        vector_D = encoder.encode([item])[0].astype(np.float16)
        metadata = {"colour": list(COLOURS)[number % 3]} | ({"year": 2010 + number} if number % 5 else {})
        rows.append(
            Row(f"row {number:02}", f"album{number // 4}", item.modality, item.digest, vector_D, item.text, media, metadata=metadata)
        )
    return rows
