"""A small M-BEIR tree with a search of every task: any modality on either side, videos included."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import PIL.Image

from tiny import film, picture
from umr.data.mbeir_records import TASKS, TEXT_RETRIEVAL

SETTINGS = {f"set{task}_task{task}": task for task in TASKS if task != TEXT_RETRIEVAL}
"""Setting -> task, whose number is the dataset id, too."""
WORDS = ("red", "circle", "blue", "ring", "moving", "over", "scene", "like", "this", "center", "top", "left")
QUERIES, CANDIDATES = 6, 12


def write_any_tree(root: Path) -> Path:
    """Every setting has 6 queries over 12 candidates; query n wants candidate n, whose words and picture are almost its own.

    Query 3 has a second positive, query 4 one more that only the pool of another setting has. The global pool holds all.
    """
    lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"]
    everything: list[dict[str, Any]] = []
    for setting, task in SETTINGS.items():
        asking, target = TASKS[task]
        lines.append(f"{asking}\t{target}\t{setting}\t{task}\tFind the {target}\tWhich {target} fits")
        pool = [_candidate(root, target, task, number) for number in range(CANDIDATES)]
        everything += pool
        queries = [_query(root, asking, task, number) for number in range(QUERIES)]
        judged = [f"{query['qid']} 0 {did} 1 {task}" for query in queries for did in query["pos_cand_list"]]
        write_lines(root / "query" / "test" / f"mbeir_{setting}_test.jsonl", map(json.dumps, queries))
        write_lines(root / "qrels" / "test" / f"mbeir_{setting}_test_qrels.txt", judged)
        write_lines(root / "cand_pool" / "local" / f"mbeir_{setting}_cand_pool.jsonl", map(json.dumps, pool))
    write_lines(root / "instructions" / "query_instructions.tsv", lines)
    write_lines(root / "cand_pool" / "global" / "mbeir_union_test_cand_pool.jsonl", map(json.dumps, reversed(everything)))
    return root


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _candidate(root: Path, modality: str, task: int, number: int) -> dict[str, Any]:
    record = {"did": f"{task}:{number}", "modality": modality, "txt": None, "img_path": None}
    if "text" in modality:
        record["txt"] = f"{_words(task, number)} {WORDS[number]}"
    if modality == "video":
        record["video_path"] = _video(root, f"v{task}-{number}", 1000 * task + number)
    elif "image" in modality:
        record["img_path"] = _image(root, f"c{task}-{number}", 64, 1000 * task + number)
    return record


def _query(root: Path, modality: str, task: int, number: int) -> dict[str, Any]:
    positives = [f"{task}:{number}", *([f"{task}:11"] if number == 3 else []), *(["1:11"] if number == 4 else [])]
    record = {"qid": f"{task}:{number}", "query_modality": modality, "query_txt": None, "query_img_path": None, "task_id": task}
    record |= {"pos_cand_list": positives, "neg_cand_list": []}
    if "text" in modality:
        record["query_txt"] = _words(task, number)
    if "image" in modality:
        record["query_img_path"] = _image(root, f"q{task}-{number}", 96, 1000 * task + number)
    return record


def _words(task: int, number: int) -> str:
    return " ".join(WORDS[(number * step + task) % len(WORDS)] for step in (1, 2, 3, 5))


def _image(root: Path, name: str, width: int, seed: int) -> str:
    path = root / "mbeir_images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(width, 64, seed).save(path)
    return str(path.relative_to(root))


def _video(root: Path, name: str, seed: int) -> str:
    path = root / "mbeir_videos" / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_film(path, film(4, seed=seed))
    return str(path.relative_to(root))


def write_film(path: Path, frames: list[PIL.Image.Image]) -> None:
    """A video file of these frames, four a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *frames[0].size, "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
