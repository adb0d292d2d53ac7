"""Makes a World: plans everything in one process, draws in several, and puts the folder in place when it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr.data.world.book import World
from umr.data.world.everyday import plan_scenes, plan_twins
from umr.data.world.film import plan_clips
from umr.data.world.nature import plan_field
from umr.data.world.people import plan_facts
from umr.data.world.press import plan_news
from umr.data.world.pretraining import plan_captions, plan_text_pairs
from umr.data.world.settings import SCALES, SETTINGS, SPLITS, Scale, Size
from umr.data.world.shop import plan_catalog
from umr.data.world.studio import plan_edits, plan_moves
from umr.data.world.text_retrieval import add_text_retrieval
from umr.data.world.unlabelled import count_unlabelled, plan_unlabelled
from umr.data.world.writer import write_media, write_texts
from umr.errors import DataError

VERSION = 4
"""Raised whenever the same seed would give other bytes."""

_PLANS = (plan_scenes, plan_catalog, plan_facts, plan_news, plan_twins, plan_field, plan_edits, plan_moves, plan_clips)


@dataclass(frozen=True)
class WorldSummary:
    """What was made.

    Attributes:
        root: the folder.
        size, seed, version: what it was made from.
        counts: by setting name, its numbers of `train`, `val` and `test` queries, and of `train_pool` and `local_pool`
            candidates; `unlabelled` are those of the former that no query names but some should.
        queries, candidates, captions, text_pairs: rows in all; `media` files in all.
        sha256: over all files but those of the text-retrieval set, which has its own; equal exactly when the Worlds are.
        seconds: time it took; 0 when it was there already (`reused`).
        reused: whether it was there already.
    """

    root: Path
    size: str
    seed: int
    version: int
    counts: dict[str, dict[str, int]]
    queries: int
    candidates: int
    captions: int
    text_pairs: int
    media: int
    sha256: str
    seconds: float = 0.0
    reused: bool = False

    @property
    def items(self) -> int:
        """Queries, candidates, captions and text pairs together."""
        return self.queries + self.candidates + self.captions + self.text_pairs

    @property
    def items_per_second(self) -> float:
        """`items` by `seconds`; 0 when nothing had to be made."""
        return self.items / self.seconds if self.seconds else 0.0


def generate(out: Path, size: Size = "tiny", seed: int = 0, workers: int = 1) -> WorldSummary:
    """Make a World, or find the same one finished.

    The bytes depend on `size`, `seed` and `VERSION` alone (and on the versions of Pillow and PyAV, which encode). An
    interrupted run leaves only a hidden folder beside `out`, which the next run replaces.

    Args:
        out: the folder to make; its parents are made too.
        size: `tiny` (pools of about 540), `small` (2,000) or `medium` (10,000).
        seed: not negative.
        workers: processes that draw.

    Returns:
        Its counts, digest, and the time taken.

    Raises:
        DataError: `out` holds something else, or an argument is out of range.
    """
    if size not in SCALES:
        raise DataError(f"World has no size {size!r}: choose one of {', '.join(SCALES)}")
    if seed < 0:
        raise DataError(f"a World's seed must not be negative, but is {seed}")
    if workers < 1:
        raise DataError(f"making a World needs at least one worker, not {workers}")
    return _generate(out, size, SCALES[size], seed, workers)


def _generate(out: Path, size: str, scale: Scale, seed: int, workers: int) -> WorldSummary:
    out = out.absolute()
    if (found := _existing(out, size, seed)) is not None:
        add_text_retrieval(out, scale, size, seed)
        return found
    start = time.monotonic()
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    world = plan(scale, seed)
    text_pairs, captions = plan_text_pairs(world), plan_captions(world)
    digests = write_texts(partial, world, text_pairs, captions) | write_media(partial, world.jobs, workers)
    record: dict[str, Any] = {
        "version": VERSION,
        "size": size,
        "seed": seed,
        **_counts(world),
        "captions": len(captions),
        "text_pairs": len(text_pairs),
        "media": len(world.jobs),
        "sha256": hashlib.sha256("".join(f"{path} {digests[path]}\n" for path in sorted(digests)).encode()).hexdigest(),
    }
    add_text_retrieval(partial, scale, size, seed)
    (partial / "world.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, out)
    return WorldSummary(root=out, **record, seconds=time.monotonic() - start)


def plan(scale: Scale, seed: int) -> World:
    """Decide all queries and candidates; nothing is drawn or written. One process, in one order: the registries need it."""
    world = World(seed, scale)
    for plan_dataset in _PLANS:
        plan_dataset(world)
    plan_unlabelled(world)
    return world


def _counts(world: World) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for setting in SETTINGS:
        book = world.books[setting.dataset]
        counts[setting.name] = {split: len(book.queries[setting.name, split]) for split in SPLITS}
        counts[setting.name]["train_pool"] = len(book.candidates[setting.name, "train"])
        counts[setting.name]["unlabelled"] = count_unlabelled(book, setting.name)
        counts[setting.name]["local_pool"] = len(book.candidates[setting.name, "pool"])
    rows = counts.values()
    return {
        "counts": counts,
        "queries": sum(row[split] for row in rows for split in SPLITS),
        "candidates": sum(row["train_pool"] + row["local_pool"] for row in rows),
    }


def _existing(out: Path, size: str, seed: int) -> WorldSummary | None:
    """The finished World in `out` if it is the one asked for; `None` if there is nothing."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError(f"{out}: not a folder, so no World can be made there; choose another place")
    if not any(out.iterdir()):
        return None
    try:
        summary = WorldSummary(root=out, **json.loads((out / "world.json").read_text(encoding="utf-8")), reused=True)
    except (OSError, ValueError, TypeError):
        raise DataError(f"{out}: not empty and not a finished World; choose another place or empty it") from None
    asked = (VERSION, size, seed)
    there = (summary.version, summary.size, summary.seed)
    if asked != there:
        raise DataError(
            f"{out}: holds World version {there[0]}, size {there[1]}, seed {there[2]}, not version {asked[0]}, size {asked[1]}, "
            f"seed {asked[2]}; choose another place or remove it"
        )
    return summary
