"""Small data to train on: pictures of one shape with their captions, sentence pairs, and an M-BEIR tree of two tasks and a mixed file."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw

from umr.models.tiny import make_checkpoint

COLOURS = {"red": "#d02020", "green": "#20a030", "blue": "#2040d0", "yellow": "#e0c020", "purple": "#9030b0", "black": "#101010"}
SHAPES = ("circle", "square", "triangle", "ring", "cross")
PLACES = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
SCENES = list(itertools.product(COLOURS, SHAPES, PLACES))
SIDE = 64


def caption(scene: tuple[str, str, str]) -> str:
    return "a {} {} in the {}".format(*scene)


def picture(scene: tuple[str, str, str], draw_from: random.Random) -> PIL.Image.Image:
    """A 64x64 picture of a scene, with a little play in place and size."""
    colour, shape, place = scene
    image = PIL.Image.new("RGB", (SIDE, SIDE), (235, 235, 235))
    draw, (column, row) = PIL.ImageDraw.Draw(image), PLACES[place]
    x, y = (half * 32 + 16 + draw_from.randint(-3, 3) for half in (column, row))
    r, fill = draw_from.randint(9, 12), COLOURS[colour]
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    elif shape == "ring":
        draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=4)
    else:
        draw.line((x - r, y, x + r, y), fill=fill, width=6)
        draw.line((x, y - r, x, y + r), fill=fill, width=6)
    return image


def write_captions(folder: Path, scenes: Iterable[tuple[str, str, str]], seed: int = 0) -> Path:
    """Pictures and `captions.jsonl`."""
    draw_from, lines = random.Random(seed), []
    for number, scene in enumerate(scenes):
        name = _save(picture(scene, draw_from), folder, f"{number}.png")
        lines.append({"image": name, "text": caption(scene)})
    return _write(folder / "captions.jsonl", lines)


def write_pairs(folder: Path, count: int = 24) -> Path:
    """Sentences that say the same in other words, with a contradiction each, as a CSV of the NLI file's form."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "nli.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sent0", "sent1", "hard_neg"])
        for number in range(count):
            colour, shape, place = SCENES[number * 7 % len(SCENES)]
            writer.writerow([f"a {colour} {shape} is in the {place}", f"the {place} has a {shape}", f"there is no {shape}"])
    return folder / "nli.csv"


def write_tree(root: Path, queries: int = 16) -> Path:
    """The training split of an M-BEIR tree.

    `shapes_task0` is text -> image with two positives for every fourth query and one hard negative for each; `shapes_task7` is
    picture and change -> picture; `mixed` holds both tasks without `task_id` and repeats a qid, as files of the real tree do.
    Candidates `1:0` and `1:900` are the same picture under two ids.
    """
    draw_from = random.Random(1)
    scenes = [SCENES[number * 11 % len(SCENES)] for number in range(3 * queries)]
    pool = [
        {"did": f"1:{number}", "txt": None, "img_path": _save(picture(scene, draw_from), root, f"images/{number}.png"), "modality": "image"}
        for number, scene in enumerate(scenes)
    ]
    pool.append({**pool[0], "did": "1:900"})
    find, change, mixed = [], [], []
    for number in range(queries):
        positives = [f"1:{number}"] + ([f"1:{number + queries}"] if number % 4 == 0 else [])
        find.append(_query(number, caption(scenes[number]), None, positives, [f"1:{2 * queries + number}"]))
        picture_path = pool[queries + number]["img_path"]
        change.append(_query(100 + number, f"make it {scenes[number][0]}", picture_path, [f"1:{number}"], []))
        if number < 3:
            mixed += [_query(200 + number, caption(scenes[number]), None, positives, []), {**change[-1], "task_id": None}]
    mixed.append(mixed[0])
    for record in mixed:
        record.pop("task_id", None)
    for name, records in {"shapes_task0": find, "shapes_task7": change, "mixed": mixed}.items():
        _write(root / "query" / "train" / f"mbeir_{name}_train.jsonl", records)
    _write(root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl", pool)
    instructions = root / "instructions" / "query_instructions.tsv"
    instructions.parent.mkdir(parents=True)
    wordings = ("Find a picture of this", "Which picture shows this", "Look for the picture", "Search a matching picture")
    rows = [("query_modality", "cand_modality", "dataset_name", "dataset_id", "prompt_1", "prompt_2", "prompt_3", "prompt_4")]
    rows += [("text", "image", "Shapes", "1", *wordings), ("image,text", "image", "Shapes", "1", *(f"{w}, changed" for w in wordings))]
    instructions.write_text("".join("\t".join(row) + "\n" for row in rows))
    return root


def write_all(root: Path) -> Path:
    """`tree/`, `captions/captions.jsonl` and `pairs/nli.csv`, and a tiny Qwen3-VL in `model/`."""
    write_tree(root / "tree")
    write_captions(root / "captions", SCENES[::5])
    write_pairs(root / "pairs")
    write_model(root / "model")
    return root


def write_model(folder: Path, family: str = "qwen3-vl") -> Path:
    make_checkpoint(family, folder, map(caption, SCENES))
    return folder


def recipe(root: Path, **training: Any) -> dict[str, Any]:
    """A recipe over everything that `write_all` made; `training` goes into that section."""
    settings = {"batch_size": 8, "steps": 6, "learning_rate": 1e-3, "chunk_tokens": 256, "save_every": 2, "log_every": 1, "workers": 0}
    return {
        "name": "small",
        "model": {"path": str(root / "model")},
        "data": [
            {"kind": "mbeir", "path": str(root / "tree"), "settings": ["shapes_task0", "shapes_task7"]},
            {"kind": "captions", "path": str(root / "captions" / "captions.jsonl")},
            {"kind": "text_pairs", "path": str(root / "pairs" / "nli.csv")},
        ],
        "loss": {"temperature": 0.1, "learn_temperature": True, "both_ways": True, "negatives": 1},
        "training": {**settings, **training},
    }


def _query(number: int, text: str, image: str | None, positives: list[str], negatives: list[str]) -> dict[str, Any]:
    return {
        "qid": f"1:{number}",
        "query_txt": text,
        "query_img_path": image,
        "query_modality": "image,text" if image else "text",
        "pos_cand_list": positives,
        "neg_cand_list": negatives,
        "task_id": 7 if image else 0,
    }


def _save(image: PIL.Image.Image, root: Path, name: str) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(root / name)
    return name


def _write(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
