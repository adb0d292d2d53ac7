"""What a training example is, and where examples come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from umr.data.fingerprint import fingerprint
from umr.data.instructions import choose
from umr.data.mbeir import MBeir, Pool, Queries
from umr.data.pairs import CaptionPairs, TextPairs
from umr.errors import RecipeError
from umr.items import Item
from umr.training.recipe import DataSection, MBeirSection, Recipe


@dataclass(frozen=True)
class Example:
    """A query with one positive and some negatives.

    Attributes:
        query: what is searched with.
        instruction: its instruction, if any.
        positive: a right answer; its id is the did.
        negatives: wrong answers, ids alike.
        positives: ids of all known right answers: none of them is used as a negative.
        space: what the ids are unique in: two data sets may both have a candidate 17.
    """

    query: Item
    instruction: str | None
    positive: Item
    negatives: tuple[Item, ...]
    positives: tuple[str, ...]
    space: str = ""


class Source(Protocol):
    """Random access to examples; the same (index, epoch) always gives the same example."""

    name: str

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int) -> Example:
        """Example `index` in pass `epoch`."""
        ...


def draw(seed: int, key: str, count: int) -> int:
    """A number below `count`, by hash: the same on every machine and in every order."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest(), "little") % count


class MBeirSource:
    """Training queries of one M-BEIR setting, with candidates from the training pool.

    Args:
        name: of the setting.
        queries: its training queries.
        pool: where positives and negatives are looked up.
        instructions: `"seeded"` draws a wording by query and epoch, `"first"` takes the first, `"none"` trains without.
        negatives: explicit negatives a query; queries with fewer take what they have.
        seed: of the draws.
        space: of the pool's ids.
    """

    def __init__(self, name: str, queries: Queries, pool: Pool, instructions: str, negatives: int, seed: int, space: str = "") -> None:
        self.name, self.queries, self.pool, self.space = name, queries, pool, space
        self.instructions, self.negatives, self.seed = instructions, negatives, seed

    def __len__(self) -> int:
        return len(self.queries)

    def example(self, index: int, epoch: int) -> Example:
        """The query with one of its positives and some of its negatives, both drawn anew each epoch."""
        query = self.queries[index]
        positive = query.positives[draw(self.seed, f"{query.qid}/{epoch}", len(query.positives))]
        wrong = [did for did in query.negatives if did not in query.positives]
        start = draw(self.seed, f"{query.qid}/{epoch}/negatives", len(wrong)) if wrong else 0
        wrong = [*wrong[start:], *wrong[:start]][: self.negatives]
        instruction = None
        if self.instructions != "none":
            instruction = choose(query.instructions, query.qid, self.seed if self.instructions == "seeded" else None, epoch)
        items = self.pool.item(positive), tuple(self.pool.item(did) for did in wrong)
        return Example(query.item, instruction, *items, query.positives, self.space)


class PairSource:
    """Pairs without instructions: sentences, or captions and images.

    Args:
        name: for tables and errors.
        pairs: the file.
        negatives: explicit negatives a query.
        space: of the file's ids.
    """

    def __init__(self, name: str, pairs: TextPairs | CaptionPairs, negatives: int, space: str = "") -> None:
        self.name, self.pairs, self.negatives, self.space = name, pairs, negatives, space

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, epoch: int) -> Example:
        """Row `index`, the same in every epoch."""
        row = self.pairs[index]
        assert row.positive.id is not None
        return Example(row.query, None, row.positive, row.negatives[: self.negatives], (row.positive.id,), self.space)


def open_sources(recipe: Recipe) -> tuple[list[Source], list[float], dict[str, str]]:
    """Open all data of a recipe.

    Returns:
        Sources, their weights, and the fingerprint of each data section's files.

    Raises:
        DataError: missing or malformed files.
        RecipeError: a setting that the data does not have, or negatives where there are none.
    """
    sources: list[Source] = []
    weights: list[float] = []
    fingerprints: dict[str, str] = {}
    for section in recipe.data:
        opened, shares, fingerprint = _open(section, recipe.loss.negatives, recipe.training.seed)
        sources += opened
        weights += shares
        fingerprints[f"{section.kind}:{section.path}"] = fingerprint
    if recipe.loss.negatives and not any(_has_negatives(source) for source in sources):
        raise RecipeError("loss.negatives has no effect: none of the data holds hard negatives; mine some first, or set it to 0")
    return sources, weights, fingerprints


def _open(section: DataSection, negatives: int, seed: int) -> tuple[Sequence[Source], list[float], str]:
    if isinstance(section, MBeirSection):
        return _open_mbeir(section, negatives, seed)
    pairs = CaptionPairs(Path(section.path)) if section.kind == "captions" else TextPairs(Path(section.path))
    path = Path(section.path)
    return [PairSource(section.kind, pairs, negatives, section.path)], [section.weight], fingerprint([path], path.parent)


def _open_mbeir(section: MBeirSection, negatives: int, seed: int) -> tuple[Sequence[Source], list[float], str]:
    tree = MBeir(Path(section.path), section.on_error)
    names = [setting.name for setting in tree.settings("train")]
    chosen = names if section.settings is None else section.settings
    if unknown := [name for name in [*chosen, *section.weights] if name not in names]:
        raise RecipeError(f"data: {section.path} has no training setting {unknown[0]!r}; it has {', '.join(names)}")
    if unknown := [name for name in section.negatives_for or [] if name not in chosen]:
        raise RecipeError(f"data: negatives_for names {unknown[0]!r}, which is not among the settings trained on")
    if section.negatives_for and not negatives:
        raise RecipeError("data: negatives_for has no effect with loss.negatives=0; set it to the number of negatives a query")
    if idle := [name for name in section.weights if name not in chosen]:
        raise RecipeError(f"data: a weight for {idle[0]!r} has no effect, because settings leaves it out")
    pool = tree.train_pool()
    counts = {name: negatives if section.negatives_for is None or name in section.negatives_for else 0 for name in chosen}
    sources = [
        MBeirSource(name, tree.train_queries([name]), pool, section.instructions, count, seed, section.path)
        for name, count in counts.items()
    ]
    return sources, [section.weights.get(name, 1.0) for name in chosen], tree.fingerprint("train", chosen)


def _has_negatives(source: Source) -> bool:
    return any(source.example(index, 0).negatives for index in range(min(len(source), 100)))
