"""What the settings of one dataset ask for: records with their ids, and media still to be drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from umr.data.world.clips import Clip
from umr.data.world.draw import Picture
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.settings import BY_NAME, DATASETS, SPLITS, Scale, Split
from umr.data.world.truth import UNLABELLED, Claim, View

Record: TypeAlias = dict[str, Any]

PLAN_STREAM, MEDIA_STREAM, WORDS_STREAM, ANOTHER_STREAM = 0, 1, 2, 3  # last number of a stream's key, so that no two uses share one
FILES_PER_FOLDER = 1000


class Another(NamedTuple):
    """What would be as right an answer as some candidate: a text, a picture or clip to draw, or both.

    `claims` are the text's, where they are not those of the candidate.
    """

    text: str | None
    content: Picture | Clip | None
    claims: Sequence[Claim] | None = None


@dataclass(frozen=True)
class Job:
    """A media file to make: its path below the root, what it shows, and the key of its random stream."""

    path: str
    content: Picture | Clip
    key: tuple[int, ...]


@dataclass
class World:
    """Everything planned so far.

    Attributes:
        seed: of the whole World.
        scale: how much is made.
        registries: what has been used up, by sort, see `registry`.
        books: one a dataset, by name.
        jobs: media of all datasets and of the caption set.
    """

    seed: int
    scale: Scale
    registries: dict[str, Registry] = field(default_factory=dict)
    books: dict[str, Book] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def registry(self, sort: str) -> Registry:
        """The registry of a sort of content, such as `"names"`, opened on first use."""
        return self.registries.setdefault(sort, Registry())

    @property
    def scenes(self) -> Registry:
        """The registry of all scenes of small things, shared by every dataset that shows such."""
        return self.registry("scenes")

    def book(self, dataset: str) -> Book:
        """The book of a dataset, opened on first use."""
        return self.books.setdefault(dataset, Book(self, dataset))

    def stream(self, part: int, index: int, use: int = PLAN_STREAM) -> Stream:
        """A stream; `part` is a dataset id or a number above all of them."""
        return Stream(self.seed, part, index, use)


class Book:
    """Records of a dataset. Ids count on through all its tasks and splits."""

    def __init__(self, world: World, dataset: str) -> None:
        self.world = world
        self.dataset = dataset
        self.dataset_id = DATASETS.index(dataset)
        self.candidates: dict[tuple[str, str], list[Record]] = {}
        """By setting name and `"train"` or `"pool"` (the one local pool of val and test)."""
        self.queries: dict[tuple[str, Split], list[Record]] = {}
        """By setting name and split."""
        self.another: dict[str, Callable[[Stream], Another]] = {}
        """By did: makes another answer as right as that train candidate."""
        self._contents: dict[str, Picture | Clip] = {}
        self._dids = self._qids = 0
        self._files: dict[Split, int] = dict.fromkeys(SPLITS, 0)

    def stream(self, split: Split, use: int = PLAN_STREAM) -> Stream:
        """The stream that plans this dataset's split."""
        return self.world.stream(self.dataset_id, SPLITS.index(split), use)

    def draw(self, split: Split, content: Picture | Clip) -> str:
        """Order a media file and return its path below the root. Every fourth picture is a PNG, the others are JPEG."""
        index = self._files[split]
        self._files[split] += 1
        suffix = "mp4" if isinstance(content, Clip) else "png" if index % 4 == 3 else "jpg"
        kind = "videos" if isinstance(content, Clip) else "images"
        shard = f"{index // FILES_PER_FOLDER:03d}"
        path = f"mbeir_{kind}/{self.dataset}_{kind}/{split}/{shard}/{self.dataset}_{split}_{index:06d}.{suffix}"
        self._contents[path] = content
        self.world.jobs.append(Job(path, content, (self.world.seed, self.dataset_id, SPLITS.index(split), index, MEDIA_STREAM)))
        return path

    def candidate(
        self,
        setting: str,
        split: Split,
        text: str | None,
        path: str | None,
        view: View | None = None,
        claims: Sequence[Claim] | None = None,
        another: Callable[[Stream], Another] | None = None,
        unlabelled_for: Sequence[str] = (),
    ) -> str:
        """Add a candidate and return its did.

        Args:
            setting: its name.
            split: which queries it is made along with.
            text: of the candidate.
            path: of its picture or clip, from `draw`.
            view: what it shows.
            claims: what its text says.
            another: makes another answer as right as this one; by default the same text beside the picture or clip drawn again.
            unlabelled_for: queries that it answers although they do not list it.
        """
        self._dids += 1
        did = f"{self.dataset_id}:{self._dids}"
        modality = BY_NAME[setting].candidate_modality
        is_video = modality == "video"
        record: Record = {
            "did": did,
            "txt": text,
            "img_path": None if is_video else path,
            "modality": modality,
            "src_content": _source(view, claims, unlabelled_for),
        }
        if is_video:
            record["video_path"] = path
        self.candidates.setdefault((setting, "train" if split == "train" else "pool"), []).append(record)
        if split == "train":
            self.another[did] = another or (lambda _: Another(text, None if path is None else self._contents[path]))
        return did

    def query(
        self,
        setting: str,
        split: Split,
        text: str | None,
        path: str | None,
        positives: Sequence[str],
        negatives: Sequence[str] = (),
        view: View | None = None,
        claims: Sequence[Claim] | None = None,
    ) -> None:
        """Add a query; `negatives`, near-duplicates of the positive, are kept for train queries only."""
        self._qids += 1
        record: Record = {
            "qid": f"{self.dataset_id}:{self._qids}",
            "query_txt": text,
            "query_img_path": path,
            "query_modality": BY_NAME[setting].query_modality,
            "query_src_content": _source(view, claims),
            "pos_cand_list": list(positives),
            "neg_cand_list": list(negatives) if split == "train" else [],
            "task_id": BY_NAME[setting].task_id,
        }
        self.queries.setdefault((setting, split), []).append(record)


def _source(view: View | None, claims: Sequence[Claim] | None, unlabelled_for: Sequence[str] = ()) -> str:
    source: Record = {}
    if view is not None:
        source["view"] = view
    if claims is not None:
        source["claims"] = list(claims)
    if unlabelled_for:
        source[UNLABELLED] = list(unlabelled_for)
    return json.dumps(source, separators=(",", ":"))


def round_robin(families: int, members: int, n: int) -> list[tuple[int, int]]:
    """The first `n` (family, member) pairs, going through all families before taking a second member of any.

    Fewer come back when there are not so many.
    """
    return [(family, member) for member in range(members) for family in range(families)][:n]


def others(ids: Sequence[str], index: int) -> list[str]:
    """All ids but the one at `index`."""
    return [did for i, did in enumerate(ids) if i != index]
