"""Captions of video clips: the task of MSR-VTT and MSVD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umr.evaluation.suites.protocols import Hits
from umr.evaluation.suites.task import Items, Task
from umr.frames import FrameSampling
from umr.items import Item, Video


def text_to_video(clips: Sequence[Path], sampling: FrameSampling, texts: Sequence[str], owners: Sequence[int]) -> Task:
    """Text -> video.

    Args:
        clips: video files.
        sampling: which of their frames are seen.
        texts: captions.
        owners: the clip of each caption, a place in `clips`.
    """
    queries = Items(
        "captions", tuple(f"caption {place}" for place in range(len(texts))), lambda n: Item.of(text=texts[n], id=queries.ids[n])
    )
    pool = Items(
        f"videos-{sampling.min_frames}-{sampling.max_frames}",
        tuple(path.stem for path in clips),
        lambda n: Item.of(video=Video(clips[n], sampling=sampling), id=pool.ids[n]),
    )
    right = {qid: [pool.ids[owner]] for qid, owner in zip(queries.ids, owners, strict=True)}
    return Task("text -> video", queries, pool, Hits(right))
