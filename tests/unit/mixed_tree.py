"""A small M-BEIR tree whose training pool mixes modalities, and what is right in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from umr.data.mbeir_records import TASKS

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
THINGS = ("circle", "square", "star", "moon")
SETTINGS = {"words_task1": 1, "shapes_task0": 0, "pages_task2": 2, "news_task3": 3}
"""Setting -> task, whose number is the dataset id: text -> text, text -> image, text -> image with text, image -> text."""
QUERIES, CANDIDATES = 8, 16


def write_tree(root: Path) -> Path:
    """Four settings of 8 queries, each with 16 candidates of its target modality and a few copies.

    Query n wants candidate n. Candidates 8 to 15 say the same words in another order, so that scores tie. Candidates 100 to 103 are
    copies of 0 to 3 under another id. Query 4 has a second positive, query 5 another one by judgements, query 6 has
    candidate 1, of another colour and with a copy, far down its list, query 7 none in the pool.
    """
    pool: list[dict[str, Any]] = []
    instructions = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"]
    for setting, task in SETTINGS.items():
        asking, target = TASKS[task]
        instructions.append(f"{asking}\t{target}\t{setting}\t{task}\tFind it\tWhich one fits")
        own = [_candidate(root, target, task, number) for number in range(CANDIDATES)]
        copies = [{**own[number], "did": f"{task}:{100 + number}"} for number in range(4)]
        pool += [*own, *copies]
        queries = [_query(root, asking, task, number) for number in range(QUERIES)]
        queries[4]["pos_cand_list"].append(f"{task}:9")
        queries[6]["pos_cand_list"] = [f"{task}:1"]
        queries[7]["pos_cand_list"] = [f"{task}:999"]
        _write(root / "query" / "train" / f"mbeir_{setting}_train.jsonl", map(json.dumps, queries))
        _write(root / "qrels" / "train" / f"mbeir_{setting}_train_qrels.txt", [f"{task}:5 0 {task}:10 1 {task}"])
    order = np.random.default_rng(3).permutation(len(pool))
    _write(root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl", (json.dumps(pool[place]) for place in order))
    _write(root / "instructions" / "query_instructions.tsv", instructions)
    return root


def right(root: Path) -> dict[str, set[str]]:
    """Everything that is right for each query: by lines, by judgements, and by equal content under another id."""
    contents = {}
    for line in (root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl").read_text().splitlines():
        record = json.loads(line)
        contents[record["did"]] = record["txt"], record["img_path"]
    found: dict[str, set[str]] = {}
    for path in (root / "query" / "train").iterdir():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            found[record["qid"]] = set(record["pos_cand_list"])
    for path in (root / "qrels" / "train").iterdir():
        for line in path.read_text().splitlines():
            qid, _, did, _, _ = line.split()
            found[qid].add(did)
    return {qid: {did for did, one in contents.items() if one in {contents.get(did) for did in dids}} for qid, dids in found.items()}


def _words(number: int) -> str:
    colour, thing = list(COLOURS)[number % 8 % 3], THINGS[number % 4]
    return f"{colour} {thing} n{number % 8}" if number < 8 else f"n{number % 8} {thing} {colour}"


def _candidate(root: Path, modality: str, task: int, number: int) -> dict[str, Any]:
    text = _words(number) if "text" in modality else None
    image = _picture(root, f"c{task}-{number}", number) if "image" in modality else None
    return {"did": f"{task}:{number}", "txt": text, "img_path": image, "modality": modality}


def _query(root: Path, modality: str, task: int, number: int) -> dict[str, Any]:
    return {
        "qid": f"{task}:{number}",
        "query_txt": _words(number) if "text" in modality else None,
        "query_img_path": _picture(root, f"q{task}-{number}", number) if "image" in modality else None,
        "query_modality": modality,
        "pos_cand_list": [f"{task}:{number}"],
        "neg_cand_list": [],
        "task_id": task,
    }


def _picture(root: Path, name: str, number: int) -> str:
    path = root / "images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.new("RGB", (6, 6), COLOURS[list(COLOURS)[number % 8 % 3]])
    image.putpixel((number % 6, number // 6), (len(name), sum(name.encode()) % 256, 7))  # no two of the same content
    image.save(path)
    return path.relative_to(root).as_posix()


def _write(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
