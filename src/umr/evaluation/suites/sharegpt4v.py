"""ShareGPT4V: a thousand pictures with long captions, as Long-CLIP chose them.

<root>/datas_for_validation.json    [{"image_name", "caption"}]
<root>/val_data/<image_name>
"""

from __future__ import annotations

from umr.evaluation.suites.captions import both_directions
from umr.evaluation.suites.folder import Folder, get, inside, records
from umr.evaluation.suites.task import Suite


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path, images = folder.file("datas_for_validation.json"), folder.folder("val_data")
    pictures, texts = [], []
    for where, record in records(path):
        pictures.append(inside(images, get(record, "image_name", str, where), where))
        texts.append(get(record, "caption", str, where))
    tasks = both_directions(pictures, texts, range(len(texts)))
    return Suite(folder.suite, folder.root, folder.source, (path,), tasks, "hit@1")
