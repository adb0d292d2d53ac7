"""A small real encoder and a small M-BEIR tree, for tests that need both and no neural network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from umr.data.mbeir_records import TASKS
from umr.items import Image, Item, Side, Text
from umr.protocols import Vectors

DIMENSION = 64


class BagEncoder:
    """Hashed words, plus the 4x4 thumbnail of images, on the unit sphere. Counts its calls and can fail at one of them."""

    dimension = DIMENSION

    def __init__(self, name: str = "bag", fail_at_call: int | None = None) -> None:
        self.fingerprint = f"bag-of-words:{name}"
        self.fail_at_call = fail_at_call
        self.calls: list[int] = []

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        if self.fail_at_call is not None and len(self.calls) == self.fail_at_call:
            raise RuntimeError("stopped in the middle")
        self.calls.append(len(items))
        instructions = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else instruction
        return np.stack([self._encode(item, extra) for item, extra in zip(items, instructions, strict=True)])

    def _encode(self, item: Item, instruction: str | None) -> np.ndarray:
        vector = np.full(DIMENSION, 1e-3, np.float32)
        for word in (instruction or "").lower().split():
            vector[_slot(word)] += 0.1
        for part in item.parts:
            if isinstance(part, Text):
                for word in part.text.lower().replace(".", "").split():
                    vector[_slot(word)] += 1
            elif isinstance(part, Image):
                colour = np.asarray(part.open().resize((1, 1)), np.float32).ravel()
                vector[_slot(("red", "green", "blue")[int(colour.argmax())])] += 1
                vector[-3:] += colour / 255
        return vector / np.linalg.norm(vector)


def _slot(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % (DIMENSION - 3)


COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
NOUNS = ["circle", "square", "star", "moon", "tree", "house", "boat", "fish", "bird", "cat", "lamp", "door"]
SETTINGS = {"shapes_task0": 0, "wiki_task1": 1, "fashioniq_task7": 7}
"""Setting -> task; the number of the task is also the dataset id in qids and dids."""


def write_tree(root: Path) -> Path:
    """Three settings of 12 queries over pools of 36: text -> image, text -> text, and image with text -> image.

    The global pool holds all three in another order and four candidates of its own. Some queries have several positives,
    one has a positive outside its local pool, and one has none.
    """
    (root / "instructions").mkdir(parents=True)
    lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"]
    pools: dict[str, list[dict[str, Any]]] = {}
    for setting, task in SETTINGS.items():
        query_modality, modality = TASKS[task]
        lines.append(f"{query_modality}\t{modality}\t{setting}\t{task}\tFind a {modality}\tWhich {modality} matches")
        pools[setting] = [_candidate(root, task, number) for number in range(36)]
        queries = [_query(root, setting, task, number) for number in range(12)]
        judged = [f"{query['qid']} 0 {did} 1 {task}" for query in queries for did in query["pos_cand_list"]]
        _write(root / "query" / "test" / f"mbeir_{setting}_test.jsonl", map(json.dumps, queries))
        _write(root / "qrels" / "test" / f"mbeir_{setting}_test_qrels.txt", judged)
        _write(root / "cand_pool" / "local" / f"mbeir_{setting}_cand_pool.jsonl", map(json.dumps, pools[setting]))
    _write(root / "instructions" / "query_instructions.tsv", lines)
    own = [
        {"did": f"9:{number}", "txt": f"A {noun} of its own.", "img_path": None, "modality": "text"}
        for number, noun in enumerate(NOUNS[:4])
    ]
    everything = [*own, *(candidate for pool in reversed(list(pools.values())) for candidate in pool)]
    _write(root / "cand_pool" / "global" / "mbeir_union_test_cand_pool.jsonl", map(json.dumps, everything))
    return root


def _candidate(root: Path, task: int, number: int) -> dict[str, Any]:
    colour, noun = list(COLOURS)[number // 12], NOUNS[number % 12]
    candidate = {"did": f"{task}:{number}", "txt": None, "img_path": None, "modality": TASKS[task][1]}
    if candidate["modality"] == "text":
        return {**candidate, "txt": f"a {colour} {noun} in a picture"}
    return {**candidate, "img_path": _image(root, f"{task}-{number}", colour, number % 12)}


def _query(root: Path, setting: str, task: int, number: int) -> dict[str, Any]:
    colour = list(COLOURS)[number % 3]
    positives = [f"{task}:{12 * (number % 3) + number}"] + ([f"{task}:{number}"] if number % 4 == 0 else [])
    if task == 1:
        positives = {3: ["0:3"], 5: []}.get(number, positives)
    query = {"qid": f"{task}:{number}", "query_txt": f"{colour} {NOUNS[number]}", "query_img_path": None, "task_id": task}
    query |= {"query_modality": TASKS[task][0], "pos_cand_list": list(dict.fromkeys(positives)), "neg_cand_list": []}
    if "image" in TASKS[task][0]:
        query["query_img_path"] = _image(root, f"q{task}-{number}", colour, number)
    return query


def _image(root: Path, name: str, colour: str, size: int) -> str:
    path = root / "mbeir_images" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    PIL.Image.new("RGB", (8 + size, 8), COLOURS[colour]).save(path)
    return f"mbeir_images/{name}.png"


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
