"""MSR-VTT (Xu et al., CVPR 2016), the thousand clips of JSFusion's split, each with one sentence.

<root>/annotations/MSRVTT_JSFUSION_test.csv    key,vid_key,video_id,sentence
<root>/videos/<video_id>.mp4
"""

from __future__ import annotations

import csv
from pathlib import Path

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, inside
from umr.evaluation.suites.task import Suite
from umr.evaluation.suites.videos import text_to_video
from umr.frames import FrameSampling

SAMPLING = FrameSampling(fps=2.0, min_frames=4, max_frames=768)
"""Two frames a second, as U-MARVEL shows them."""


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path, videos = folder.file("annotations/MSRVTT_JSFUSION_test.csv", "MSRVTT_JSFUSION_test.csv"), folder.folder("videos")
    rows = _rows(path)
    names = list(dict.fromkeys(name for name, _ in rows))
    places = {name: place for place, name in enumerate(names)}
    clips = [inside(videos, f"{name}.mp4", str(path)) for name in names]
    task = text_to_video(clips, SAMPLING, [text for _, text in rows], [places[name] for name, _ in rows])
    return Suite(folder.suite, folder.root, folder.source, (path,), (task,), "hit@1")


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            if not {"video_id", "sentence"} <= set(table.fieldnames or ()):
                raise DataError(f"{path}: needs the columns video_id and sentence in its first line")
            rows = [(row["video_id"], row["sentence"]) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV in UTF-8 ({error})") from error
    for place, (name, text) in enumerate(rows, 2):
        if not name or not text:
            raise DataError(f"{path}:{place}: needs a video_id and a sentence")
    if not rows:
        raise DataError(f"{path}: has no rows; fetch it again")
    return rows
