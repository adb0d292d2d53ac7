"""The settings of World: which dataset asks what of what, in which words, and how many of each there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Size: TypeAlias = Literal["mini", "tiny", "small", "medium"]
Split: TypeAlias = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")

DATASETS = ("scenes", "catalog", "facts", "news", "twins", "field", "edits", "moves", "clips")
"""Names in order of their ids."""


@dataclass(frozen=True)
class Setting:
    """One dataset with one task, the unit that is evaluated.

    Attributes:
        dataset: its name; the id is its place in `DATASETS`.
        task_id: 0-8 as in M-BEIR; 9 is text -> video, our own.
        query_modality, candidate_modality: as M-BEIR spells them, plus `video`.
        domain: what kind of material it is, named in every instruction.
        instructions: four wordings, one of which goes before a query.
    """

    dataset: str
    task_id: int
    query_modality: str
    candidate_modality: str
    domain: str
    instructions: tuple[str, str, str, str]

    @property
    def name(self) -> str:
        """As in file names: `"scenes_task0"`."""
        return f"{self.dataset}_task{self.task_id}"

    @property
    def dataset_id(self) -> int:
        """The number before the colon in ids."""
        return DATASETS.index(self.dataset)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "scenes",
        0,
        "text",
        "image",
        "common",
        (
            "Find an everyday picture that shows what this caption says.",
            "Which everyday picture fits this caption?",
            "Look for the everyday picture of the scene described here.",
            "Show me an everyday picture with these things in it.",
        ),
    ),
    Setting(
        "scenes",
        3,
        "image",
        "text",
        "common",
        (
            "Find a caption that says what this everyday picture shows.",
            "Which caption fits this everyday picture?",
            "Look for the text that describes this everyday scene.",
            "Tell me in words what is in this everyday picture.",
        ),
    ),
    Setting(
        "catalog",
        0,
        "text",
        "image",
        "shop",
        (
            "Find the shop picture of the product with this description.",
            "Which product picture in the shop fits this description?",
            "Look for the catalog picture of these goods.",
            "Show me the shop picture of this product.",
        ),
    ),
    Setting(
        "catalog",
        3,
        "image",
        "text",
        "shop",
        (
            "Find the description of the product in this shop picture.",
            "Which product description fits this shop picture?",
            "Look for the catalog text about the goods shown here.",
            "Describe the product in this shop picture.",
        ),
    ),
    Setting(
        "facts",
        1,
        "text",
        "text",
        "wiki",
        (
            "Find the passage that answers this question about a person.",
            "Which text about this person has the answer?",
            "Look for a passage with the fact asked for.",
            "Answer this question with a text about the person.",
        ),
    ),
    Setting(
        "facts",
        2,
        "text",
        "image,text",
        "wiki",
        (
            "Find the portrait with the name of the person asked for.",
            "Which named portrait answers this question?",
            "Look for a portrait and its text about this person.",
            "Answer with a portrait of the person and the name below it.",
        ),
    ),
    Setting(
        "news",
        2,
        "text",
        "image,text",
        "news",
        (
            "Find the news photo and its caption for this headline.",
            "Which news photo with caption goes with this headline?",
            "Look for the captioned news photo of this event.",
            "Show me the news photo and caption of what happened.",
        ),
    ),
    Setting(
        "twins",
        4,
        "image",
        "image",
        "common",
        (
            "Find another picture of the same scene.",
            "Which picture shows the same things in the same places?",
            "Look for a twin of this picture.",
            "Show me a second picture of exactly this scene.",
        ),
    ),
    Setting(
        "field",
        6,
        "image,text",
        "text",
        "nature",
        (
            "Find the field guide passage that answers this question about the picture.",
            "Which field guide text tells this about the creatures in the picture?",
            "Look for the passage in the field guide about these creatures.",
            "Answer the question on this picture with a field guide text.",
        ),
    ),
    Setting(
        "field",
        8,
        "image,text",
        "image,text",
        "nature",
        (
            "Find the field guide plate and note that answer this question about the picture.",
            "Which field guide plate with its note tells this about the creatures in the picture?",
            "Look for the field guide plate and note about these creatures.",
            "Answer the question on this picture with a plate and a note of the field guide.",
        ),
    ),
    Setting(
        "edits",
        7,
        "image,text",
        "image",
        "studio",
        (
            "Find the picture that results from this edit of the given picture.",
            "Which picture is the given one with the change made?",
            "Look for the edited picture.",
            "Show me this picture after the edit.",
        ),
    ),
    Setting(
        "moves",
        7,
        "image,text",
        "image",
        "puzzle",
        (
            "Find the board after this move of the pieces.",
            "Which board results from the given one by this move?",
            "Look for the puzzle board after the move.",
            "Show me how the board looks once the pieces are moved.",
        ),
    ),
    Setting(
        "clips",
        9,
        "text",
        "video",
        "film",
        (
            "Find the video in which this happens.",
            "Which video clip fits this description?",
            "Look for a clip of this motion.",
            "Show me the video of what is described.",
        ),
    ),
)
"""All settings, by dataset id and task id."""

BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Scale:
    """How much of everything is made.

    Attributes:
        pool: candidates of a setting's local pool, at least; 40 % come with the val queries, 60 % with the test queries.
        val, test: queries of a setting.
        train: train queries of a setting, by its name.
        names: given names, and as many family names.
        brands: words printed on labels.
        alone: share of clips with nothing but the moving thing.
        textured_field: whether the creatures of `field` have textures, which makes four times as many kinds.
        captions: pictures of the caption set, two captions each.
        text_pairs: rows of the text pair set.
    """

    pool: int
    val: int
    test: int
    train: dict[str, int]
    names: int
    brands: int
    alone: float
    textured_field: bool
    captions: int
    text_pairs: int

    def queries(self, name: str, split: Split) -> int:
        """Number of queries of a setting in a split."""
        return {"train": self.train[name], "val": self.val, "test": self.test}[split]

    def room(self, name: str, split: Split) -> int:
        """Number of candidates, at least, that are made along with the queries of a split."""
        share = round(0.4 * self.pool)
        return {"train": self.train[name], "val": share, "test": self.pool - share}[split]


_TINY_TRAIN = {
    "scenes_task0": 1800,
    "scenes_task3": 1200,
    "catalog_task0": 1200,
    "catalog_task3": 900,
    "facts_task1": 1000,
    "facts_task2": 900,
    "news_task2": 1100,
    "twins_task4": 900,
    "field_task6": 1100,
    "field_task8": 1000,
    "edits_task7": 1900,
    "moves_task7": 1000,
    "clips_task9": 700,
}


def _train(times: float) -> dict[str, int]:
    return {name: round(times * count) for name, count in _TINY_TRAIN.items()}


SCALES: dict[str, Scale] = {
    "mini": Scale(250, 60, 80, _train(0.5), 48, 12, 0.5, False, 3000, 6000),
    "tiny": Scale(540, 100, 150, _train(1), 48, 12, 0.5, False, 3000, 6000),
    "small": Scale(2000, 200, 300, _train(3), 96, 24, 0.15, True, 9000, 18_000),
    "medium": Scale(10_000, 500, 1000, _train(8), 240, 96, 0.02, True, 24_000, 48_000),
}
