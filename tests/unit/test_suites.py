"""Zero-shot suites that search a pool: each reader on a folder in its published layout, its scores against brute force."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umr.evaluation.suites import SuiteResult, evaluate_suite
from umr.evaluation.suites.circo import submission, write_submission
from umr.evaluation.suites.msrvtt import SAMPLING as MSRVTT_SAMPLING
from umr.evaluation.suites.msvd import SAMPLING as MSVD_SAMPLING
from umr.items import Image, Item, Text, Video
from umr.progress import quiet
from unit import suite_folders as folders
from unit.suite_folders import SceneEncoder, embed, hit, order, percent

IMAGE_OF_CAPTION = "Find me an everyday image that matches the given caption."
CAPTION_OF_IMAGE = "Find an image caption describing the following everyday image."


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


def measured(name: str, root: Path) -> SuiteResult:
    return evaluate_suite(SceneEncoder(), name, root)


def check_hits(
    result: SuiteResult,
    task: str,
    queries: Sequence[Item],
    instruction: str,
    candidates: Sequence[Item],
    right: Sequence[Sequence[int]],
    cuts: Sequence[int] = (1, 5, 10),
    hidden: Callable[[int], set[int]] = lambda query: set(),
) -> None:
    """Hit rates of one task are those of a loop over everything, and are neither 0 nor 100 throughout."""
    found = next(one for one in result.tasks if one.task == task)
    assert (found.queries, found.candidates, found.instruction) == (len(queries), len(candidates), instruction)
    queries_QD, candidates_ND = embed(queries, "query", instruction), embed(candidates)
    ranked = [[place for place in order(query, candidates_ND) if place not in hidden(n)] for n, query in enumerate(queries_QD)]
    for k in cuts:
        expected = percent([hit(places, answers, k) for places, answers in zip(ranked, right, strict=True)])
        assert found.metrics[f"hit@{k}"] == pytest.approx(expected, abs=1e-9), k
        if any(len(answers) > 1 for answers in right):
            shares = [len(set(places[:k]) & set(answers)) / len(answers) for places, answers in zip(ranked, right, strict=True)]
            assert found.metrics[f"recall@{k}"] == pytest.approx(percent(shares), abs=1e-9), k
    assert any(0 < found.metrics[f"hit@{k}"] < 100 for k in cuts)


def check_both_directions(result: SuiteResult, images: list[Item], texts: list[str], owners: list[int]) -> None:
    captions = [Item.of(text=text) for text in texts]
    check_hits(result, "text -> image", captions, IMAGE_OF_CAPTION, images, [[owner] for owner in owners])
    of_image = [[place for place, owner in enumerate(owners) if owner == image] for image in range(len(images))]
    check_hits(result, "image -> text", images, CAPTION_OF_IMAGE, captions, of_image)


@pytest.mark.parametrize(("name", "file"), [("flickr30k", "flickr_text.json"), ("coco", "coco_text.json")])
def test_five_captions_a_picture(name: str, file: str, tmp_path: Path):
    root = folders.five_captions(tmp_path, file)
    texts = json.loads((root / file).read_text())
    images = [Item.of(image=root / "images" / f"{n}.png") for n in range(12)]
    check_both_directions(measured(name, root), images, [f"{text[0].upper()}{text[1:]}." for text in texts], [n // 5 for n in range(60)])


def test_sharegpt4v(tmp_path: Path):
    root = folders.sharegpt4v(tmp_path)
    records = json.loads((root / "datas_for_validation.json").read_text())
    images = [Item.of(image=root / "val_data" / record["image_name"]) for record in records]
    check_both_directions(measured("sharegpt4v", root), images, [record["caption"] for record in records], list(range(9)))


def test_urban1k(tmp_path: Path):
    root = folders.urban1k(tmp_path)
    images = [Item.of(image=root / "image" / f"{n}.jpg") for n in range(1, 12)]
    texts = [(root / "caption" / f"{n}.txt").read_text().splitlines()[0] for n in range(1, 12)]
    check_both_directions(measured("urban1k", root), images, texts, list(range(11)))


def test_circo(tmp_path: Path):
    root = folders.circo(tmp_path)
    records = json.loads((root / "annotations" / "val.json").read_text())
    info = json.loads((root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json").read_text())["images"]
    ids = [one["id"] for one in info]
    files = {one["id"]: root / "COCO2017_unlabeled" / "unlabeled2017" / one["file_name"] for one in info}
    result = measured("circo", root)
    queries = [Item.of(image=files[record["reference_img_id"]], text=record["relative_caption"]) for record in records]
    candidates_ND = embed([Item.of(image=files[id]) for id in ids])
    queries_QD = embed(queries, "query", "I'm looking for a similar everyday image with the described changes.")
    rankings = [[ids[place] for place in order(query, candidates_ND)][:50] for query in queries_QD]
    val, test = result.tasks
    for k in (5, 10, 25, 50):
        precisions = []
        for ranking, record in zip(rankings, records, strict=True):
            answers, found, total = record["gt_img_ids"], 0, 0.0
            for rank, id in enumerate(ranking[:k], 1):
                if id in answers:
                    found += 1
                    total += found / rank
            precisions.append(total / min(k, len(answers)))
        assert val.metrics[f"map@{k}"] == pytest.approx(percent(precisions), abs=1e-9)
        targets = [float(record["target_img_id"] in ranking[:k]) for ranking, record in zip(rankings, records, strict=True)]
        assert val.metrics[f"target_hit@{k}"] == pytest.approx(percent(targets), abs=1e-9)
    assert val.metrics["map@5"] > 10 and val.metrics["map@5"] != val.metrics["map@10"] and val.metrics["map@50"] < 100
    assert test.metrics == {} and test.queries == 9
    sent = submission(result)
    write_submission(result, tmp_path / "out" / "submission.json")
    assert json.loads((tmp_path / "out" / "submission.json").read_text()) == sent
    assert list(sent) == [str(number) for number in range(9)]
    assert all(len(found) == 50 == len(set(found)) and set(found) <= set(ids) for found in sent.values())
    asked = json.loads((root / "annotations" / "test.json").read_text())[4]
    item = Item.of(image=files[asked["reference_img_id"]], text=asked["relative_caption"])
    query = embed([item], "query", "I'm looking for a similar everyday image with the described changes.")[0]
    assert sent["4"] == [ids[place] for place in order(query, candidates_ND)][:50]


def test_visual_dialog(tmp_path: Path):
    root = folders.visdial(tmp_path)
    data = json.loads((root / "visdial_1.0_val.json").read_text())["data"]
    texts = [
        " ".join(f"Q: {data['questions'][turn['question']]}? A: {data['answers'][turn['answer']]}." for turn in dialog["dialog"])
        for dialog in data["dialogs"]
    ]
    assert texts[0].startswith("Q: is it ") and texts[0].count("A: ") == 10
    images = [root / "VisualDialog_val2018" / f"VisualDialog_val2018_{dialog['image_id']:012d}.jpg" for dialog in data["dialogs"]]
    check_hits(
        measured("visdial", root),
        "dialog -> image",
        [Item.of(text=text) for text in texts],
        "Find me an everyday image that matches the given dialog.",
        [Item.of(image=path) for path in images],
        [[n] for n in range(12)],
    )


def test_vist_leaves_out_what_the_story_shows(tmp_path: Path):
    root = folders.vist(tmp_path)
    annotations = [one[0] for one in json.loads((root / "sis" / "val.story-in-sequence.json").read_text())["annotations"]]
    photos = sorted({one["photo_flickr_id"] for one in annotations})
    files = {photo: next((root / "images" / "val").glob(f"{photo}.*")) for photo in photos}
    names = list(dict.fromkeys(one["story_id"] for one in annotations))
    stories = [
        sorted((one for one in annotations if one["story_id"] == name), key=lambda one: one["worker_arranged_photo_order"])
        for name in names
    ]
    queries = []
    for story in stories:
        parts = [part for one in story[:-1] for part in (Text(one["text"]), Image(files[one["photo_flickr_id"]]))]
        queries.append(Item((*parts, Text(story[-1]["text"]))))
    last = [photos.index(story[-1]["photo_flickr_id"]) for story in stories]
    shown = [{photos.index(one["photo_flickr_id"]) for one in story[:-1]} - {last[n]} for n, story in enumerate(stories)]
    result = measured("vist", root)
    check_hits(
        result,
        "story -> image",
        queries,
        "I will provide you with a series of images and captions from a story, "
        "and I need you to retrieve the image corresponding to the last caption.",
        [Item.of(image=files[photo]) for photo in photos],
        [[place] for place in last],
        hidden=lambda query: shown[query],
    )
    (found,) = result.tasks
    assert all(not set(dids) & {photos[place] for place in shown[n]} for n, dids in enumerate(found.ranked.dids.values()))
    assert found.ranked.dids["102"] and photos[last[2]] in found.ranked.dids["102"], (
        "a last picture that was shown before is still looked for"
    )
    sizes = [len(photos) - len(one) for one in shown]
    assert found.chance["hit@5"] == pytest.approx(percent([5 / size for size in sizes]))


def test_several_rounds_of_fashion(tmp_path: Path):
    root = folders.fashion_rounds(tmp_path)
    records = json.loads((root / "data" / "all.val.json").read_text())
    names = [f"B{n:03d}" for n in range(14)]
    queries = []
    for record in records:
        parts = []
        for _, texts, name in record["reference"]:
            parts += [Image(root / "images" / f"{name}.jpg"), Text(" and ".join(text for text in texts if text))]
        queries.append(Item(tuple(parts)))
    assert any(" and " in item.text for item in queries)
    check_hits(
        measured("fashioniq-rounds", root),
        "rounds -> image",
        queries,
        "Find me a similar fashion image based on the following multi-round modifications.",
        [Item.of(image=root / "images" / f"{name}.jpg") for name in names],
        [[names.index(record["target"][1])] for record in records],
        cuts=(5, 8, 10),
    )


def test_msrvtt(tmp_path: Path):
    root = folders.msrvtt(tmp_path)
    sentences = re.findall(r'"(a, .*)"', (root / "annotations" / "MSRVTT_JSFUSION_test.csv").read_text())
    check_hits(
        measured("msrvtt", root),
        "text -> video",
        [Item.of(text=sentence) for sentence in sentences],
        "Find an everyday video match with caption.",
        [Item.of(video=Video(root / "videos" / f"video{n}.mp4", sampling=MSRVTT_SAMPLING)) for n in range(6)],
        [[n] for n in range(6)],
        cuts=(1, 5),
    )


def test_msvd(tmp_path: Path):
    import pickle

    root = folders.msvd(tmp_path)
    captions = pickle.loads((root / "raw-captions.pkl").read_bytes())
    texts = [(" ".join(words), n) for n in range(4) for words in captions[f"clip_{n}"]]
    clips = [Video(root / "YouTubeClips" / f"clip_{n}.avi", sampling=MSVD_SAMPLING) for n in range(4)]
    assert len(clips[0].frames().images) == 12
    check_hits(
        measured("msvd", root),
        "text -> video",
        [Item.of(text=text) for text, _ in texts],
        "Find an everyday video match with caption.",
        [Item.of(video=clip) for clip in clips],
        [[n] for _, n in texts],
        cuts=(1,),
    )


def test_results_as_json_table_and_runs(tmp_path: Path):
    result = measured("flickr30k", folders.five_captions(tmp_path / "data"))
    content = json.loads(result.to_json())
    assert [one["task"] for one in content["tasks"]] == ["text -> image", "image -> text"]
    assert content["tasks"][0]["metrics"]["hit@1"] == result.tasks[0].metrics["hit@1"]
    assert content["tasks"][0]["chance"]["hit@1"] == pytest.approx(100 / 12)
    assert content["published"]["text -> image"]["U-MARVEL"] == {"hit@1": 85.4}
    assert np.mean(result.tasks[1].values["hit@5"]) == pytest.approx(result.tasks[1].metrics["hit@5"] / 100)
    shown = str(result)
    assert not result.comparable and content["other_sizes"][0] == "text -> image: 60 queries, not 5,000"
    assert "NOT THE PUBLISHED TEST: text -> image: 60 queries" in " ".join(shown.split())
    whole = replace(result, sizes={"text -> image": {"queries": 60, "candidates": 12}})
    assert whole.comparable and "NOT THE PUBLISHED" not in " ".join(str(whole).split())
    assert "U-MARVEL+" in shown and "88.5" in shown and f"{result.tasks[0].metrics['hit@10']:.1f}" in shown and "PARTIAL" not in shown
    paths = result.write_run_trec(tmp_path / "runs")
    assert [path.name for path in paths] == ["flickr30k_text----image.trec", "flickr30k_image----text.trec"]
    first = paths[0].read_text().splitlines()[0].split()
    assert first[:1] + first[3:4] == ["caption_0", "1"] and len(first) == 6


def test_a_picture_on_both_sides_is_not_one_vector(tmp_path: Path):
    """Queries carry their instruction and candidates none, so a picture that is both is embedded twice."""
    root = folders.five_captions(tmp_path)
    encoder = SceneEncoder()
    evaluate_suite(encoder, "flickr30k", root)
    assert sum(encoder.calls) == 2 * (12 + 60)
