"""Where training examples come from: the data sections of a recipe, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.data.fingerprint import fingerprint
from umr.data.instructions import choose
from umr.data.mbeir import MBeir, Pool, Queries
from umr.data.mbeir_records import MBeirQuery
from umr.data.pairs import CaptionPairs, TextPairs
from umr.data.statements import Statements
from umr.errors import RecipeError
from umr.items import Item, QueryText
from umr.protocols import query_text_of
from umr.training.examples import Example, Source, draw
from umr.training.mined import open_mined
from umr.training.recipe import Recipe
from umr.training.recipe_sections import (
    DataSection,
    InfoNceSection,
    MBeirSection,
    RerankSection,
    ScoredSection,
    StatementsSection,
    TextRetrievalSection,
    TriplesSection,
)
from umr.training.scored import open_scored
from umr.training.statements import StatementSource
from umr.training.text_sources import open_text_retrieval, open_triples

if TYPE_CHECKING:
    from umr.mining.negatives import NegativeTable
    from umr.protocols import Encoder


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
        mined: where negatives come from instead of the queries' own lists.
        strangers: answers to other queries that an example brings.
    """

    def __init__(
        self,
        name: str,
        queries: Queries,
        pool: Pool,
        instructions: str,
        negatives: int,
        seed: int,
        space: str = "",
        mined: NegativeTable | None = None,
        strangers: int = 0,
    ) -> None:
        self.name, self.queries, self.pool, self.space = name, queries, pool, space
        self.instructions, self.negatives, self.seed, self.mined, self.strangers = instructions, negatives, seed, mined, strangers

    def __len__(self) -> int:
        return len(self.queries)

    def example(self, index: int, epoch: int) -> Example:
        """The query with one of its positives and some of its negatives, both drawn anew each epoch."""
        query = self.queries[index]
        positive = query.positives[draw(self.seed, f"{query.qid}/{epoch}", len(query.positives))]
        known = query.negatives if self.mined is None else self.mined.of(query.qid)
        wrong = [did for did in known if did not in query.positives]
        start = draw(self.seed, f"{query.qid}/{epoch}/negatives", len(wrong)) if wrong else 0
        wrong = [*wrong[start:], *wrong[:start]][: self.negatives]
        instruction = None
        if self.instructions != "none":
            instruction = choose(query.instructions, query.qid, self.seed if self.instructions == "seeded" else None, epoch)
        items = self.pool.item(positive), tuple(self.pool.item(did) for did in wrong)
        return Example(query.item, instruction, *items, query.positives, self.space, self._strangers(query, epoch))

    def _strangers(self, query: MBeirQuery, epoch: int) -> tuple[Item, ...]:
        places = [draw(self.seed, f"{query.qid}/{epoch}/stranger {number}", len(self.queries)) for number in range(self.strangers)]
        dids = dict.fromkeys(self.queries[place].positives[0] for place in places)
        return tuple(self.pool.item(did) for did in dids if did not in query.positives)


class PairSource:
    """Pairs without instructions: sentences, or captions and images.

    Args:
        name: for tables and errors.
        pairs: the file.
        negatives: explicit negatives a query.
        space: of the file's ids.
        seed: of the draws.
        strangers: answers to other queries that an example brings.
    """

    def __init__(
        self, name: str, pairs: TextPairs | CaptionPairs, negatives: int, space: str = "", seed: int = 0, strangers: int = 0
    ) -> None:
        self.name, self.pairs, self.negatives, self.space, self.seed, self.strangers = name, pairs, negatives, space, seed, strangers

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, epoch: int) -> Example:
        """Row `index`; all but its strangers is the same in every epoch."""
        row = self.pairs[index]
        assert row.positive.id is not None
        places = [draw(self.seed, f"{index}/{epoch}/stranger {number}", len(self.pairs)) for number in range(self.strangers)]
        strangers = tuple(self.pairs[place].positive for place in dict.fromkeys(places) if place != index)
        return Example(row.query, None, row.positive, row.negatives[: self.negatives], (row.positive.id,), self.space, strangers)


def open_sources(recipe: Recipe, encoder: Encoder | None = None) -> tuple[list[Source[Any]], list[float], dict[str, str]]:
    """Open all data of a recipe.

    Args:
        recipe: what to open.
        encoder: the retriever in training, before its training: what stored vectors must come from.

    Returns:
        Sources, their weights, and the fingerprint of each data section's files.

    Raises:
        DataError: missing or malformed files.
        RecipeError: a setting that the data does not have, or negatives where there are none.
    """
    negatives = wanted_negatives(recipe)
    sources: list[Source[Any]] = []
    weights: list[float] = []
    fingerprints: dict[str, str] = {}
    for section in recipe.data:
        opened, shares, found = _open(section, recipe, negatives, encoder)
        sources += opened
        weights += shares
        fingerprints |= found
    if negatives and not any(_has_negatives(source) for source in sources):
        raise RecipeError("loss.negatives has no effect: none of the data holds hard negatives; mine some first, or set it to 0")
    return sources, weights, fingerprints


def wanted_negatives(recipe: Recipe) -> int:
    """Explicit negatives that an example should bring."""
    if isinstance(recipe.loss, InfoNceSection):
        return recipe.loss.negatives
    return recipe.loss.negatives + max(recipe.loss.choices - 1, 0) if isinstance(recipe.loss, RerankSection) else 0


def _open(
    section: DataSection, recipe: Recipe, negatives: int, encoder: Encoder | None
) -> tuple[Sequence[Source[Any]], list[float], dict[str, str]]:
    if isinstance(section, MBeirSection):
        return _open_mbeir(section, recipe, negatives, query_text_of(encoder))
    if isinstance(section, ScoredSection):
        return open_scored(section, recipe, encoder)
    if isinstance(section, StatementsSection):
        return _open_statements(section)
    if isinstance(section, TextRetrievalSection):
        return open_text_retrieval(section, recipe, negatives)
    if isinstance(section, TriplesSection):
        return open_triples(section, recipe, negatives)
    pairs = CaptionPairs(Path(section.path)) if section.kind == "captions" else TextPairs(Path(section.path))
    path = Path(section.path)
    source = PairSource(section.kind, pairs, negatives, section.path, recipe.training.seed, _wanted_strangers(recipe))
    return [source], [section.weight], {f"{section.kind}:{section.path}": fingerprint([path], path.parent)}


def _open_statements(section: StatementsSection) -> tuple[Sequence[Source[Any]], list[float], dict[str, str]]:
    statements = Statements(Path(section.path), Path(section.images))
    statements.check()
    marks = {f"{section.kind}:{section.path}": fingerprint([statements.path], statements.path.parent)}
    return [StatementSource(section.kind, statements)], [section.weight], marks


def _wanted_strangers(recipe: Recipe) -> int:
    return recipe.loss.strangers if isinstance(recipe.loss, RerankSection) else 0


def _open_mbeir(
    section: MBeirSection, recipe: Recipe, negatives: int, query_text: QueryText
) -> tuple[Sequence[Source[Example]], list[float], dict[str, str]]:
    tree = MBeir(Path(section.path), section.on_error, "separate" if section.instructions == "none" else query_text)
    names = [setting.name for setting in tree.settings("train")]
    chosen = names if section.settings is None else section.settings
    _check_mbeir(section, names, chosen, negatives)
    mined = open_mined(section.mined, tree)
    pool = tree.train_pool()
    counts = {name: negatives if section.negatives_for is None or name in section.negatives_for else 0 for name in chosen}
    strangers, seed = _wanted_strangers(recipe), recipe.training.seed
    sources = [
        MBeirSource(name, tree.train_queries([name]), pool, section.instructions, count, seed, section.path, mined, strangers)
        for name, count in counts.items()
    ]
    fingerprints = {f"{section.kind}:{section.path}": tree.fingerprint("train", chosen)}
    if mined is not None:
        fingerprints[f"mined:{section.mined}"] = mined.fingerprint
    return sources, [section.weights.get(name, 1.0) for name in chosen], fingerprints


def _check_mbeir(section: MBeirSection, names: list[str], chosen: list[str], negatives: int) -> None:
    if unknown := [name for name in [*chosen, *section.weights] if name not in names]:
        raise RecipeError(f"data: {section.path} has no training setting {unknown[0]!r}; it has {', '.join(names)}")
    if unknown := [name for name in section.negatives_for or [] if name not in chosen]:
        raise RecipeError(f"data: negatives_for names {unknown[0]!r}, which is not among the settings trained on")
    if not negatives and (idle := [key for key in ("negatives_for", "mined") if getattr(section, key)]):
        raise RecipeError(f"data: {idle[0]} has no effect with loss.negatives=0; set it to the number of negatives a query")
    if idle := [name for name in section.weights if name not in chosen]:
        raise RecipeError(f"data: a weight for {idle[0]!r} has no effect, because settings leaves it out")


def _has_negatives(source: Source[Any]) -> bool:
    return any(source.example(index, 0).negatives for index in range(min(len(source), 100)))
