"""A small M-BEIR tree to mine in, and what is right in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

THINGS = ("circle", "square", "star", "moon", "tree", "house")
COLOURS = ("red", "green", "blue")
QUERIES = 12


def write_tree(root: Path) -> Path:
    """Three text -> text data sets: 5 (`oven`, a mixed file without task ids), 6 (`infoseek_task1`) and 2 (`facts_task1`).

    In each data set of 36 candidates, query n asks for thing n mod 6 in colour n mod 3. Its first candidate in `pos_cand_list` is right,
    its second is right by the judgements alone, a third is the first's text under another id, and a fourth is named in a later line of
    the same qid. Query 11 calls everything right.
    """
    pool: list[dict[str, Any]] = []
    for dataset, name in ((2, "facts_task1"), (5, "oven"), (6, "infoseek_task1")):
        pool += [_text(dataset, number, _sentence(number, dataset)) for number in range(36)]
        pool += [_text(dataset, 100 + number, _sentence(number, dataset)) for number in range(QUERIES)]
        queries = [_query(dataset, number) for number in range(QUERIES)]
        queries[11]["pos_cand_list"] = [one["did"] for one in pool if one["did"].startswith(f"{dataset}:")]
        lines = [*queries, {**queries[0], "pos_cand_list": [f"{dataset}:30"]}]
        for line in lines:
            if name == "oven":
                line.pop("task_id")
        _write(root / "query" / "train" / f"mbeir_{name}_train.jsonl", map(json.dumps, lines))
        if name != "oven":
            judged = [f"{dataset}:{number} 0 {dataset}:{number + 12} 1 1" for number in range(QUERIES)]
            _write(root / "qrels" / "train" / f"mbeir_{name}_train_qrels.txt", judged)
    _write(root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl", map(json.dumps, pool))
    lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"]
    lines += [f"text\ttext\tset\t{dataset}\tFind a text\tWhich text fits" for dataset in (2, 5, 6)]
    _write(root / "instructions" / "query_instructions.tsv", lines)
    return root


def _sentence(number: int, dataset: int) -> str:
    return f"a {COLOURS[number % 3]} {THINGS[number % 6]} number n{number % 12} in picture p{dataset}x{number}"


def _text(dataset: int, number: int, text: str) -> dict[str, Any]:
    return {"did": f"{dataset}:{number}", "txt": text, "img_path": None, "modality": "text"}


def _query(dataset: int, number: int) -> dict[str, Any]:
    return {
        "qid": f"{dataset}:{number}",
        "query_txt": f"{COLOURS[number % 3]} {THINGS[number % 6]} n{number}",
        "query_img_path": None,
        "query_modality": "text",
        "pos_cand_list": [f"{dataset}:{number}"],
        "neg_cand_list": [],
        "task_id": 1,
    }


def right(root: Path) -> dict[str, set[str]]:
    """Everything that is right for each query, worked out the plain way: by lines, by judgements, and by equal text."""
    texts = {}
    for line in (root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl").read_text().splitlines():
        record = json.loads(line)
        texts[record["did"]] = record["txt"]
    found: dict[str, set[str]] = {}
    for path in (root / "query" / "train").iterdir():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            found.setdefault(record["qid"], set()).update(record["pos_cand_list"])
    for path in (root / "qrels" / "train").iterdir():
        for line in path.read_text().splitlines():
            qid, _, did, _, _ = line.split()
            found[qid].add(did)
    return {qid: {did for did, text in texts.items() if text in {texts[one] for one in dids}} for qid, dids in found.items()}


def _write(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
