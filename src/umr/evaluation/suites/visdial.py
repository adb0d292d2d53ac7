"""Visual Dialog (Das et al., CVPR 2017) as retrieval: ten questions with their answers, and the picture they are about.

    <root>/visdial_1.0_val.json
    <root>/VisualDialog_val2018/VisualDialog_val2018_<image_id, 12 digits>.jpg

The first is {"data": {"questions": [], "answers": [], "dialogs": [{"image_id", "dialog": [{"question", "answer"}]}]}}. A dialog's
`question` and `answer` are places in the two lists. The picture's caption is not shown, as in LamRA.
"""

from __future__ import annotations

from typing import Any

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, get, number_or_text, objects, read_json, texts_of
from umr.evaluation.suites.protocols import Hits
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Item


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path, images = folder.file("visdial_1.0_val.json"), folder.folder("VisualDialog_val2018")
    data = get(read_json(path, dict), "data", dict, str(path))
    questions = texts_of(get(data, "questions", list, str(path)), f"{path}: questions")
    answers = texts_of(get(data, "answers", list, str(path)), f"{path}: answers")
    texts, names = [], []
    for where, record in objects(get(data, "dialogs", list, str(path)), f"{path}: dialogs"):
        names.append(number_or_text(record, "image_id", where))
        turns = [turn for _, turn in objects(get(record, "dialog", list, where), where)]
        texts.append(
            " ".join(f"Q: {_text(turn, 'question', questions, where)}? A: {_text(turn, 'answer', answers, where)}." for turn in turns)
        )
    paths = [images / f"VisualDialog_val2018_{name.zfill(12)}.jpg" for name in names]
    queries = Items("dialogs", tuple(f"dialog {name}" for name in names), lambda n: Item.of(text=texts[n], id=queries.ids[n]))
    pool = Items("images", tuple(f"image {name}" for name in names), lambda n: Item.of(image=paths[n], id=pool.ids[n]))
    right = {qid: [did] for qid, did in zip(queries.ids, pool.ids, strict=True)}
    return Suite(folder.suite, folder.root, folder.source, (path,), (Task("dialog -> image", queries, pool, Hits(right)),), "hit@1")


def _text(turn: dict[str, Any], name: str, texts: list[str], where: str) -> str:
    place = get(turn, name, int, where)
    if not 0 <= place < len(texts):
        raise DataError(f"{where}: {name} {place} is none of the {len(texts):,} {name}s of the file")
    return texts[place]
