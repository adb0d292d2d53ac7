"""Statements: questions about pictures and texts of World that are answered by yes or no, for generative training.

A row is one message, parts in their order, and its answer. Rows come in pairs, a right and a wrong statement about the same subject.
Half of the wrong ones are near misses, one thing away from the truth, and half are easy ones, about something else: a model from
scratch that sees near misses alone does not start to learn (docs/decisions.md).

| kind | parts | asks |
|---|---|---|
| `describes` | picture, text | whether the text is true of the picture |
| `same` | picture, picture | whether both show the same things in the same places |
| `change` | picture, text, picture | whether the change leads from the first picture to the second |
| `texts` | two texts | whether the second is true of the scene that the first describes |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeAlias

from umr.data.world.book import Record, World
from umr.data.world.draw import Picture
from umr.data.world.scene import Scene, alter, draw_until
from umr.data.world.settings import DATASETS, SPLITS, Split
from umr.data.world.truth import holds, view_of
from umr.data.world.wording import Caption, by_position, describe

STATEMENTS_FOLDER = "statements"
QUESTIONS: dict[str, tuple[str, str]] = {
    "describes": ("Does the text describe the picture?", "Is this true of the picture?"),
    "same": ("Do both pictures show the same things?", "Are these two pictures of the same scene?"),
    "change": ("Is the second picture the first one after this change?", "Does this change turn the first picture into the second?"),
    "texts": ("Are both texts about the same scene?", "Can both texts be true of one picture?"),
}
"""By kind, two wordings."""

_STATEMENTS = len(DATASETS) + 20  # its number in the keys of streams, apart from all others
_SHOWN = ("scenes", "twins", "edits", "moves")
"""Datasets whose pictures show small things and nothing else, so that a scene says all of them."""
_CHANGES = ("edits_task7", "moves_task7")
_Shot: TypeAlias = tuple[str, Scene]
"""Path of a picture, and what it shows."""
_Parts: TypeAlias = list[dict[str, str]]


def plan_statements(world: World) -> dict[Split, list[Record]]:
    """Rows by split, kinds in turns; to be called when all pictures are planned.

    Nothing is drawn for them, and they have streams of their own, so all other files are the same with and without them. For each
    kind there are two train rows a picture of the caption set, one val row a val query of a setting, and three test rows a test query.
    """
    counts = {"train": 2 * world.scale.captions, "val": world.scale.val, "test": 3 * world.scale.test}
    return {split: _Asker(world, split).rows(counts[split]) for split in SPLITS}


class _Asker:
    """Makes the rows of one split out of its pictures."""

    def __init__(self, world: World, split: Split) -> None:
        self.split: Split = split
        self.stream = world.stream(_STATEMENTS, SPLITS.index(split))
        self.shots: dict[str, list[_Shot]] = defaultdict(list)
        scene_of: dict[str, Scene] = {}
        for job in world.jobs:
            if not isinstance(job.content, Picture) or job.content.word is not None:  # a clip, or a product with its label
                continue
            if (dataset := _dataset(job.path, split)) is not None:
                self.shots[dataset].append((job.path, job.content.scene))
                scene_of[job.path] = job.content.scene
        self.all = [shot for shots in self.shots.values() for shot in shots]
        self.near = {dataset: _Neighbours(shots) for dataset, shots in self.shots.items()}
        copies: dict[Scene, list[str]] = defaultdict(list)
        for path, scene in self.shots["twins"]:
            copies[scene].append(path)
        self.twins = [(scene, paths) for scene, paths in copies.items() if len(paths) > 1]
        self.changes = [((before, scene_of[before]), text, scene_of[after], after) for before, text, after in _changes(world, split)]

    def rows(self, count: int) -> list[Record]:
        makers: dict[str, Callable[[str], tuple[_Parts, _Parts]]] = {
            "describes": self._describes,
            "same": self._same,
            "change": self._change,
            "texts": self._texts,
        }
        rows: list[Record] = []
        for pair in range(count // 2):
            miss = "near" if pair % 2 == 0 else "easy"
            for kind, make in makers.items():
                right, wrong = make(miss)
                about = {"kind": kind, "group": f"{kind}:{pair}"}
                rows.append({"id": f"{self.split}:{kind}:{2 * pair}", **about, "parts": right, "answer": True})
                rows.append({"id": f"{self.split}:{kind}:{2 * pair + 1}", **about, "parts": wrong, "answer": False, "miss": miss})
        return rows

    def _describes(self, miss: str) -> tuple[_Parts, _Parts]:
        path, scene = self.stream.pick(self.all)
        question = self._question("describes")
        right, wrong = (f"{self._said(scene, how)}\n{question}" for how in ("", miss))
        return [{"image": path}, {"text": right}], [{"image": path}, {"text": wrong}]

    def _same(self, miss: str) -> tuple[_Parts, _Parts]:
        scene, paths = self.stream.pick(self.twins)
        first, second = self.stream.sample(paths, 2)
        other, question = self._other("twins", [scene], scene, miss), {"text": self._question("same")}
        return [{"image": first}, {"image": second}, question], [{"image": first}, {"image": other}, question]

    def _change(self, miss: str) -> tuple[_Parts, _Parts]:
        (before, given), text, wanted, after = self.stream.pick(self.changes)
        other = self._other(before.split("/")[1].removesuffix("_images"), [wanted, given], wanted, miss)
        asked, question = [{"image": before}, {"text": text}], {"text": self._question("change")}
        return [*asked, {"image": after}, question], [*asked, {"image": other}, question]

    def _texts(self, miss: str) -> tuple[_Parts, _Parts]:
        _, scene = self.stream.pick(self.all)
        first, question = by_position(self.stream, scene).text, self._question("texts")

        def beside(how: str) -> str:
            return draw_until(lambda: text if (text := self._said(scene, how)) != first else None)

        right, wrong = (f"{first}\n{beside(how)}\n{question}" for how in ("", miss))
        return [{"text": right}], [{"text": wrong}]

    def _said(self, scene: Scene, miss: str) -> str:
        """Something true of the scene, or something that is not."""
        if not miss:
            return describe(self.stream, scene).text

        def make() -> Caption | None:
            other = alter(self.stream, scene) if miss == "near" else self.stream.pick(self.all)[1]
            caption = describe(self.stream, other)
            return None if holds(caption.claims, view_of(scene)) else caption

        return draw_until(make).text

    def _other(self, dataset: str, beside: Sequence[Scene], than: Scene, miss: str) -> str:
        """A picture of the dataset that does not show `than`: near one of `beside`, or any; any, too, where nothing is near."""
        near = [shot for scene in beside for shot in self.near[dataset].of(scene)] if miss == "near" else []
        shots = [shot for shot in near if shot[1] != than] or self.shots[dataset]
        return draw_until(lambda: shot[0] if (shot := self.stream.pick(shots))[1] != than else None)

    def _question(self, kind: str) -> str:
        return self.stream.pick(QUESTIONS[kind])


class _Neighbours:
    """Finds pictures that show a scene but for one of its things."""

    def __init__(self, shots: Sequence[_Shot]) -> None:
        self._by_part: dict[Scene, list[_Shot]] = defaultdict(list)
        for shot in shots:
            for part in _parts(shot[1]):
                self._by_part[part].append(shot)

    def of(self, scene: Scene) -> list[_Shot]:
        return [shot for part in _parts(scene) if part for shot in self._by_part.get(part, ())]


def _parts(scene: Scene) -> list[Scene]:
    """The scene, and all scenes with one thing less."""
    return [scene, *(scene[:i] + scene[i + 1 :] for i in range(len(scene)))]


def _dataset(path: str, split: Split) -> str | None:
    """The dataset that a media file belongs to; None when statements do not use it, or another split does."""
    parts = PurePosixPath(path).parts
    if parts[0] == "captions":
        return "captions" if split == "train" else None
    dataset = parts[1].removesuffix("_images")
    return dataset if parts[2] == split and dataset in _SHOWN else None


def _changes(world: World, split: Split) -> list[tuple[str, str, str]]:
    """Given picture, change and changed picture of all queries for a change."""
    found = []
    for setting in _CHANGES:
        book = world.books[setting.partition("_")[0]]
        pool = {record["did"]: record["img_path"] for record in book.candidates[setting, "train" if split == "train" else "pool"]}
        for query in book.queries[setting, split]:
            found.append((query["query_img_path"], query["query_txt"], pool[query["pos_cand_list"][0]]))
    return found
