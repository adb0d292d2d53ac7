"""Zero-shot suites in which every query has its own gallery or pair: readers, and scores against brute force."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from umr.evaluation.suites import SuiteResult, Wordings, evaluate_suite, open_suite
from umr.evaluation.suites.mmeb import IN_DISTRIBUTION, META_TASKS
from umr.items import Item
from umr.progress import quiet
from unit import suite_folders as folders
from unit.suite_folders import SceneEncoder, embed, percent

CHANGE = "I'm looking for a similar everyday image with the described changes."
ATTRIBUTE = "I'm looking for an image with the same attributes as described."


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


def rank_in(query: np.ndarray, target: np.ndarray, others: Sequence[np.ndarray]) -> int:
    """1 for the best; a wrong candidate that is equally close is better."""
    best = (target * query).sum()
    return 1 + sum(bool((other * query).sum() >= best) for other in others)


def in_gallery(queries: list[Item], targets: list[Item], others: list[list[Item]], instruction: str | None, k: int) -> float:
    hits = []
    for query, target, wrong in zip(embed(queries, "query", instruction), targets, others, strict=True):
        found = embed([target, *wrong])
        hits.append(float(rank_in(query, found[0], found[1:]) <= k))
    return percent(hits)


def check_genecis(result: SuiteResult, root: Path, task: str, picture) -> None:
    records = json.loads((root / "annotations" / f"{task}.json").read_text())
    queries = [Item.of(image=picture(n, 0, one["reference"]), text=one["condition"]) for n, one in enumerate(records)]
    targets = [Item.of(image=picture(n, 1, one["target"])) for n, one in enumerate(records)]
    others = []
    for n, one in enumerate(records):
        wrong = [(part, other) for part, other in enumerate(one["gallery"], 2) if other != one["target"]]
        others.append([Item.of(image=picture(n, part, other)) for part, other in wrong])
    found = next(one for one in result.tasks if one.task == task)
    assert found.instruction == (ATTRIBUTE if task == "focus_attribute" else CHANGE)
    for k in (1, 2, 3):
        assert found.metrics[f"hit@{k}"] == pytest.approx(in_gallery(queries, targets, others, found.instruction, k), abs=1e-9)
    assert found.chance["hit@1"] == pytest.approx(percent([1 / (1 + len(wrong)) for wrong in others]))


def test_genecis_with_pictures_cut_out_before(tmp_path: Path):
    root = folders.genecis(tmp_path)
    result = evaluate_suite(SceneEncoder(), "genecis", root)
    for task in ("focus_object", "change_object"):
        check_genecis(result, root, task, lambda n, part, one: root / "val2017" / f"{one['val_image_id']:012d}.jpg")
    for task in ("focus_attribute", "change_attribute"):
        check_genecis(result, root, task, lambda n, part, one, task=task: root / "vg" / task / f"{one['image_id']}_{n}_{part}.jpg")
    assert all(0 < one.metrics["hit@3"] < 100 for one in result.tasks)
    mean = np.mean([one.metrics["hit@1"] for one in result.tasks])
    assert result.means["all"]["hit@1"] == pytest.approx(mean) and 0 < mean < 100
    assert result.tasks[2].chance["hit@1"] > 100 / 15, "galleries that hold the target twice are smaller"


def test_genecis_with_pictures_of_visual_genome(tmp_path: Path):
    root = folders.genecis(tmp_path, cut=False, queries=4)
    result = evaluate_suite(SceneEncoder(), "genecis", root)

    def picture(n, part, one):
        """By the authors' rule, on an array: 0.7 of the size more on each side, then black to a square."""
        pixels = np.asarray(PIL.Image.open(root / "VG_100K_all" / f"{one['image_id']}.jpg").convert("RGB"))
        x, y, width, height = one["instance_bbox"]
        left, top = max(0, x - 0.7 * width), max(0, y - 0.7 * height)
        right, bottom = min(pixels.shape[1], left + 1.7 * width), min(pixels.shape[0], top + 1.7 * height)
        part = pixels[round(top) : round(bottom), round(left) : round(right)]
        side = max(part.shape[:2])
        square = np.zeros((side, side, 3), np.uint8)
        first, second = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
        square[first : first + part.shape[0], second : second + part.shape[1]] = part
        return PIL.Image.fromarray(square)

    for task in ("focus_attribute", "change_attribute"):
        check_genecis(result, root, task, picture)
    assert len({one.ids for one in (open_suite("genecis", root).tasks[0].candidates,)}) == 1


def test_ccneg(tmp_path: Path):
    import torch

    root = folders.ccneg(tmp_path)
    content = torch.load(root / "ccneg_preprocessed.pt", weights_only=True)
    images = [Item.of(image=root / path.removeprefix("/workspace/datasets/cc3m/")) for path in content["image_paths"]]
    right = [Item.of(text=one["json"]["caption"]) for one in content["annotations"]]
    wrong = [[Item.of(text=one["sop_data"]["negative-prompt"].replace(",", ""))] for one in content["annotations"]]
    (found,) = evaluate_suite(SceneEncoder(), "ccneg", root).tasks
    assert found.metrics == {"accuracy": pytest.approx(in_gallery(images, right, wrong, None, 1))}
    assert found.instruction is None and found.chance == {"accuracy": 50} and 0 < found.metrics["accuracy"] < 100


def test_ccneg_takes_the_last_forty_thousand(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("umr.evaluation.suites.ccneg.TEST", 4)
    (task,) = open_suite("ccneg", folders.ccneg(tmp_path)).tasks
    assert [path.name for place in range(4) for path in task.queries.media(place)] == ["6.jpg", "7.jpg", "8.jpg", "9.jpg"]
    assert len(task.queries) == 4 and len(task.candidates) == 8


def test_sugarcrepe(tmp_path: Path):
    root = folders.sugarcrepe(tmp_path)
    result = evaluate_suite(SceneEncoder(), "sugarcrepe", root)
    scores = []
    for found in result.tasks:
        records = list(json.loads((root / "data" / f"{found.task}.json").read_text()).values())
        images = [Item.of(image=root / "images" / "val2017" / one["filename"]) for one in records]
        right = [Item.of(text=one["caption"]) for one in records]
        wrong = [[Item.of(text=one["negative_caption"])] for one in records]
        scores.append(in_gallery(images, right, wrong, None, 1))
        assert found.metrics == {"accuracy": pytest.approx(scores[-1])}
        assert found.values["accuracy"][0] == 0, "two captions with one vector: a tie is no hit"
    assert result.means["all"] == {"accuracy": pytest.approx(np.mean(scores))}
    assert result.published["all"]["U-MARVEL"] == {"accuracy": 87.9}


@pytest.mark.parametrize("parquet", [False, True])
def test_mmeb_layout(tmp_path: Path, parquet: bool):
    root = folders.mmeb(tmp_path / "lines")
    rows = [json.loads(line) for line in (root / "CIRR" / "CIRR_test.jsonl").read_text().splitlines()]
    result = evaluate_suite(SceneEncoder(), "mmeb", folders.mmeb(tmp_path / "table", parquet=True) if parquet else root)
    images = root / "eval_images"
    queries = []
    for row in rows:
        text = row["qry_text"].split("changes: ")[1].strip()
        queries.append(Item.of(image=images / row["qry_img_path"], text=f"{text[0].upper()}{text[1:]}."))
    targets = [Item.of(image=images / row["tgt_img_path"][0]) for row in rows]
    others = [[Item.of(image=images / path) for path in row["tgt_img_path"][1:] if path != row["tgt_img_path"][0]] for row in rows]
    composed, labels = result.tasks
    assert composed.instruction == "Given an image, find one with the changes"
    assert composed.metrics == {"accuracy": pytest.approx(in_gallery(queries, targets, others, composed.instruction, 1))}
    rows = [json.loads(line) for line in (root / "VOC2007" / "VOC2007_test.jsonl").read_text().splitlines()]
    items = [[Item.of(text=f"{text.capitalize()}.") for text in row["tgt_text"]] for row in rows]
    queries = [Item.of(image=images / row["qry_img_path"]) for row in rows]
    expected = in_gallery(queries, [one[0] for one in items], [one[1:] for one in items], labels.instruction, 1)
    assert labels.metrics == {"accuracy": pytest.approx(expected)} and labels.candidates == 4
    assert result.means == {"the 2 sets here": {"accuracy": pytest.approx((composed.metrics["accuracy"] + expected) / 2)}}


def test_mmeb_without_instructions_keeps_texts_whole(tmp_path: Path):
    root = folders.mmeb(tmp_path)
    (root / "data_instruction.json").unlink()
    task = open_suite("mmeb", root).tasks[0]
    assert task.instruction is None and task.queries.make(0).text.startswith("Given an image, find one with the changes: ")
    assert task.candidates.make(0).text == "Represent the given image." and task.candidates.make(0).modality == "image,text"


def test_mmeb_means_are_of_whole_groups():
    assert sum(map(len, META_TASKS.values())) == 36 and len(IN_DISTRIBUTION) == 20
    from umr.evaluation.suites.mmeb import _means

    everything = tuple(name for sets in META_TASKS.values() for name in sets)
    whole = _means(everything)
    assert set(whole) == {*META_TASKS, "in distribution", "out of distribution", "overall"} and len(whole["out of distribution"]) == 16
    assert set(_means((*META_TASKS["grounding"], "Own"))) == {"grounding", "the 5 sets here"}


def test_instructions_may_be_changed(tmp_path: Path):
    root, own = folders.sugarcrepe(tmp_path / "data"), tmp_path / "own.yaml"
    own.write_text("sugarcrepe:\n  add_att: Which caption is true?\n")
    first, second = evaluate_suite(SceneEncoder(), "sugarcrepe", root, wordings=Wordings.load(own)).tasks[:2]
    assert first.instruction == "Which caption is true?" and second.instruction is None
