"""Urban1K: a thousand street scenes with long captions (Long-CLIP, ECCV 2024).

<root>/image/<n>.jpg       n = 1, 2, ...
<root>/caption/<n>.txt     the first line is the caption
"""

from __future__ import annotations

from umr.errors import DataError
from umr.evaluation.suites.captions import both_directions
from umr.evaluation.suites.folder import Folder
from umr.evaluation.suites.task import Suite


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    images, captions = folder.folder("image"), folder.folder("caption")
    paths = sorted(captions.glob("*.txt"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise DataError(f"{captions}: has no captions (*.txt); {folder.source}")
    texts = []
    for path in paths:
        line = path.read_text("utf-8", errors="replace").partition("\n")[0].strip()
        if not line:
            raise DataError(f"{path}: its first line must be the caption, and is empty")
        texts.append(line)
    tasks = both_directions([images / f"{path.stem}.jpg" for path in paths], texts, range(len(texts)))
    return Suite(folder.suite, folder.root, folder.source, tuple(paths), tasks, "hit@1")
