"""Small folders in the published layout of each zero-shot suite, an encoder that sees films too, and brute-force search."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from umr.items import Item, Video
from unit.mbeir_fixture import NOUNS, BagEncoder

WORDS = [*NOUNS, "red", "green", "blue", "old", "new", "tall", "wet", "two"]


class SceneEncoder(BagEncoder):
    """`BagEncoder`, for which a film is the picture of its mean colour."""

    def _encode(self, item: Item, instruction: str | None) -> np.ndarray:
        parts = []
        for part in item.parts:
            if isinstance(part, Video):
                mean = np.mean([np.asarray(image).mean(axis=(0, 1)) for image in part.frames().images], axis=0)
                parts.append(Item.of(image=PIL.Image.new("RGB", (4, 4), tuple(int(value) for value in mean))).parts[0])
            else:
                parts.append(part)
        return super()._encode(Item(tuple(parts)), instruction)


def embed(items: Sequence[Item], side: str = "candidate", instruction: str | None = None) -> np.ndarray:
    """What a store gives back for these items, in double precision: (N, D)."""
    vectors = SceneEncoder().encode(list(items), side, instruction)
    rounded = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    return (rounded / np.linalg.norm(rounded, axis=1, keepdims=True)).astype(np.float64)


def order(query: np.ndarray, candidates: np.ndarray) -> list[int]:
    """Places of all candidates, best first; of equal scores the lower place first. Literally."""
    scores = [np.float32((candidate * query).sum()) for candidate in candidates]
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


def hit(ranked: Sequence[int], right: Sequence[int], k: int) -> float:
    return float(any(place in right for place in ranked[:k]))


def percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)


class Draw:
    """Texts and pictures from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def colour(self) -> tuple[int, int, int]:
        return tuple(int(value) for value in self.rng.integers(10, 245, 3))

    def text(self, words: int = 4) -> str:
        return " ".join(self.rng.choice(WORDS, words, replace=False))

    def picture(self, path: Path, colour: tuple[int, int, int] | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 8), colour or self.colour()).save(path, quality=95)
        return path


def caption_of(path: Path, draw: Draw) -> str:
    """Words by chance, and the strongest colour of the picture two times in three, so that some answers are found."""
    strongest = ("red", "green", "blue")[int(np.asarray(PIL.Image.open(path).convert("RGB"))[0, 0].argmax())]
    return f"{strongest if draw.rng.random() < 0.67 else 'old'} {draw.text(2)}"


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def film(path: Path, colour: tuple[int, int, int], codec: str = "mpeg4", frames: int = 14) -> Path:
    """One colour throughout, in the container that the file's name says."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(PIL.Image.new("RGB", (32, 32), colour))))
        container.mux(stream.encode())
    return path


def five_captions(root: Path, name: str = "flickr_text.json", images: int = 12) -> Path:
    draw = Draw(1)
    paths = [draw.picture(root / "images" / f"{n}.png") for n in range(images)]
    write(root / name, [caption_of(path, draw) for path in paths for _ in range(5)])
    return root


def sharegpt4v(root: Path) -> Path:
    draw = Draw(2)
    names = [f"coco/train/{n:04d}.jpg" if n % 2 else f"sam/{n}.jpg" for n in range(9)]
    records = [{"image_name": name, "caption": caption_of(draw.picture(root / "val_data" / name), draw)} for name in names]
    write(root / "datas_for_validation.json", records)
    return root


def urban1k(root: Path) -> Path:
    draw = Draw(3)
    for n in range(1, 12):
        path = draw.picture(root / "image" / f"{n}.jpg")
        write(root / "caption" / f"{n}.txt", f"{caption_of(path, draw)}\nA second line that nobody reads.\n")
    return root


def circo(root: Path, images: int = 70, queries: int = 9) -> Path:
    draw = Draw(4)
    ids = [int(number) for number in draw.rng.choice(10**6, images, replace=False)]
    info = [{"id": id, "file_name": f"{id:012d}.jpg", "height": 8, "width": 8} for id in ids]
    colours = {one["id"]: draw.colour() for one in info}
    for one in info:
        draw.picture(root / "COCO2017_unlabeled" / "unlabeled2017" / one["file_name"], colours[one["id"]])
    write(root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json", {"images": info})
    for split in ("val", "test"):
        records = []
        for number in range(queries):
            reference = int(draw.rng.choice(ids))
            near = sorted(ids, key=lambda id: np.abs(np.subtract(colours[id], colours[reference])).sum())[:16]
            answers = [int(id) for id in draw.rng.choice(near, 1 + number, replace=False)]
            record = {"id": number, "reference_img_id": reference, "relative_caption": draw.text(1), "shared_concept": "a thing"}
            records.append(record | ({"target_img_id": answers[0], "gt_img_ids": answers} if split == "val" else {}))
        write(root / "annotations" / f"{split}.json", records)
    return root


def genecis(root: Path, cut: bool = True, queries: int = 8) -> Path:
    """Some galleries hold the target a second time. With `cut`, attribute tasks have cut-out files, else Visual Genome's pictures."""
    draw = Draw(5)
    coco = [draw.picture(root / "val2017" / f"{n:012d}.jpg") for n in range(1, 25)]
    genome = []
    if not cut:
        for n in range(1, 7):
            path = root / "VG_100K_all" / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(draw.rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path, quality=95)
            genome.append(path)
    for task in ("focus_attribute", "change_attribute", "focus_object", "change_object"):
        records = []
        for number in range(queries):
            size = 9 if task == "focus_attribute" else 14
            if task.endswith("object"):
                chosen = [{"val_image_id": int(n)} for n in draw.rng.choice(range(1, len(coco) + 1), size + 2, replace=False)]
                if number % 2:
                    chosen[1] = dict(chosen[0])
                if number % 3 == 0:
                    chosen[3] = chosen[1]
            else:
                chosen = [{"image_id": int(n), "instance_bbox": _box(draw)} for n in draw.rng.integers(1, 7, size + 2)]
                same = draw.colour() if number % 2 else None  # the target looks like the reference
                for part, one in enumerate(chosen if cut else ()):
                    draw.picture(root / "vg" / task / f"{one['image_id']}_{number}_{part}.jpg", same if part < 2 else None)
            records.append({"reference": chosen[0], "target": chosen[1], "gallery": chosen[2:], "condition": draw.text(1)})
        write(root / "annotations" / f"{task}.json", records)
    return root


def _box(draw: Draw) -> list[int]:
    return [int(draw.rng.integers(0, 30)), int(draw.rng.integers(0, 20)), int(draw.rng.integers(5, 30)), int(draw.rng.integers(5, 20))]


def visdial(root: Path, dialogs: int = 12) -> Path:
    draw = Draw(6)
    questions, answers = [f"is it {word}" for word in WORDS], ["yes", "no", *WORDS]
    records = []
    for number in range(dialogs):
        draw.picture(root / "VisualDialog_val2018" / f"VisualDialog_val2018_{number + 7:012d}.jpg")
        turns = [{"question": int(q), "answer": int(a), "answer_options": [1, 2]} for q, a in draw.rng.integers(0, 10, (10, 2))]
        records.append({"image_id": number + 7, "caption": "not shown", "dialog": turns})
    write(
        root / "visdial_1.0_val.json",
        {"version": "1.0", "split": "val2018", "data": {"questions": questions, "answers": answers, "dialogs": records}},
    )
    return root


def vist(root: Path, stories: int = 8) -> Path:
    """Five pictures a story, some in several stories; file order is not the story's; one story ends in a picture that it has shown."""
    draw = Draw(7)
    for number in range(20):
        draw.picture(root / "images" / "val" / f"{number}.{('jpg', 'png', 'gif')[number % 3]}")
    annotations = []
    for story in range(stories):
        photos = [int(n) for n in draw.rng.choice(20, 5, replace=False)]
        if story == 2:
            photos[4] = photos[0]
        sentences = [
            {"story_id": str(100 + story), "photo_flickr_id": str(photo), "text": draw.text(), "worker_arranged_photo_order": place}
            for place, photo in enumerate(photos)
        ]
        annotations += [[sentences[place]] for place in (draw.rng.permutation(5) if story % 2 else range(5))]
    write(root / "sis" / "val.story-in-sequence.json", {"images": [], "albums": [], "annotations": annotations})
    return root


def fashion_rounds(root: Path, queries: int = 9) -> Path:
    draw = Draw(8)
    names = [f"B{n:03d}" for n in range(14)]
    for name in names:
        draw.picture(root / "images" / f"{name}.jpg")
    records = []
    for _ in range(queries):
        chosen = [str(name) for name in draw.rng.choice(names, int(draw.rng.integers(3, 6)), replace=False)]
        rounds = [[place, [draw.text(2), "" if place % 2 else draw.text(2)], name] for place, name in enumerate(chosen[1:])]
        records.append({"target": ["dress", chosen[0]], "reference": rounds})
    write(root / "data" / "all.val.json", records)
    write(root / "image_splits" / "split.all.val.json", [*names, names[0]])
    return root


def msrvtt(root: Path, clips: int = 6) -> Path:
    draw = Draw(9)
    rows = []
    for number in range(clips):
        colour = draw.colour()
        film(root / "videos" / f"video{number}.mp4", colour)
        strongest = ("red", "green", "blue")[int(np.argmax(colour))]
        rows.append(
            {"key": f"ret{number}", "vid_key": f"msr{number}", "video_id": f"video{number}", "sentence": f"a, {strongest} {draw.text(2)}"}
        )
    path = root / "annotations" / "MSRVTT_JSFUSION_test.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["key", "vid_key", "video_id", "sentence"])
        table.writeheader()
        table.writerows(rows)
    return root


def msvd(root: Path, clips: int = 4, protocol: int = 3) -> Path:
    draw = Draw(10)
    captions = {}
    for number in range(clips):
        colour = draw.colour()
        film(root / "YouTubeClips" / f"clip_{number}.avi", colour)
        captions[f"clip_{number}"] = [[("red", "green", "blue")[int(np.argmax(colour))], *draw.text(2).split()] for _ in range(3)]
    captions["not_in_test"] = [["a", "man"]]
    write(root / "test_list.txt", "".join(f"clip_{number}\n" for number in range(clips)))
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol=protocol))
    return root


def ccneg(root: Path, pairs: int = 10) -> Path:
    import torch

    draw = Draw(11)
    paths, annotations = [], []
    for number in range(pairs):
        path = draw.picture(root / "images" / f"{number}.jpg")
        right = caption_of(path, draw)
        wrong = f"{right}, but not, {draw.text(1)}" if number % 3 else draw.text()
        paths.append(f"/workspace/datasets/cc3m/images/{number}.jpg")
        annotations.append({"json": {"caption": right, "key": str(number)}, "sop_data": {"negative-prompt": wrong, "sop": ["a"]}})
    torch.save({"annotations": annotations, "image_paths": paths}, root / "ccneg_preprocessed.pt")
    return root


def sugarcrepe(root: Path, pairs: int = 6) -> Path:
    draw = Draw(12)
    for kind in ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"):
        content = {}
        for number in range(pairs):
            path = draw.picture(root / "images" / "val2017" / f"{kind}{number}.jpg")
            content[str(number)] = {"filename": path.name, "caption": caption_of(path, draw), "negative_caption": caption_of(path, draw)}
        # A wrong caption of the same words: its vector is the right one's.
        content["0"]["negative_caption"] = " ".join(reversed(content["0"]["caption"].split()))
        write(root / "data" / f"{kind}.json", content)
    return root


def mmeb(root: Path, parquet: bool = False, rows: int = 7) -> Path:
    """A retrieval set with pictures on both sides, and a classification set whose candidates are texts."""
    draw = Draw(13)
    pictures = [f"CIRR/{n}.jpg" for n in range(12)]
    for picture in pictures:
        draw.picture(root / "eval_images" / picture)
    sets: dict[str, list[dict[str, Any]]] = {"CIRR": [], "VOC2007": []}
    for number in range(rows):
        chosen = [str(name) for name in draw.rng.choice(pictures, 7, replace=False)]
        if number == 3:
            chosen[4] = chosen[1]
        sets["CIRR"].append(
            {
                "qry_text": f"<|image_1|>\nGiven an image, find one with the changes: {draw.text()}\n",
                "qry_img_path": chosen[0],
                "tgt_text": ["<|image_1|>\nRepresent the given image.\n"] * 6,
                "tgt_img_path": chosen[1:],
            }
        )
        labels = [str(word) for word in draw.rng.permutation(["red", "green", "blue", "star"])]
        sets["VOC2007"].append(
            {
                "qry_text": "<|image_1|>\nIdentify the object shown in the image.\n",
                "qry_img_path": chosen[0],
                "tgt_text": labels,
                "tgt_img_path": [""] * len(labels),
            }
        )
    for name, records in sets.items():
        if parquet:
            (root / name).mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(records), root / name / "test-00000-of-00001.parquet")
        else:
            write(root / name / f"{name}_test.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    told = {
        "CIRR": {"qry_instruction": "Given an image, find one with the changes", "tgt_instruction": "Represent the given image"},
        "VOC2007": {"qry_instruction": "Identify the object shown in the image", "tgt_instruction": ""},
    }
    write(root / "data_instruction.json", told)
    return root
