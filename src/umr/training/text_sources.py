"""Training examples of text retrieval: sets in BEIR's layout, and triples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from umr.data.fingerprint import fingerprint
from umr.data.instructions import choose
from umr.data.mbeir_records import MBeirQuery
from umr.data.text_queries import TextPool, TextQueries
from umr.data.text_retrieval import TextRetrieval
from umr.data.triples import Triples
from umr.errors import DataError, RecipeError
from umr.items import Item
from umr.training.examples import Example, draw
from umr.training.mined import open_mined
from umr.training.recipe import Recipe
from umr.training.recipe_sections import RerankSection, TextRetrievalSection, TriplesSection

if TYPE_CHECKING:
    from umr.mining.negatives import NegativeTable

Opened = tuple[list["TextSource"] | list["TripleSource"], list[float], dict[str, str]]


class TextSource:
    """Training queries of a text-retrieval set.

    The positive is one of the best grade; everything judged right, whatever its grade, and the document that has the query's own
    id are never negatives. Explicit negatives are mined ones or, without, those that the judgements call wrong.

    Args:
        name: of the setting.
        queries: its training queries.
        pool: its documents.
        grades: relevance by query and document.
        instructions: `"seeded"` draws a wording by query and epoch, `"first"` takes the first, `"none"` trains without.
        negatives: explicit negatives a query; queries with fewer take what they have.
        seed: of the draws.
        space: of the ids.
        mined: where negatives come from.
        strangers: answers to other queries that an example brings.
    """

    def __init__(
        self,
        name: str,
        queries: TextQueries,
        pool: TextPool,
        grades: Mapping[str, Mapping[str, int]],
        instructions: str,
        negatives: int,
        seed: int,
        space: str = "",
        mined: NegativeTable | None = None,
        strangers: int = 0,
    ) -> None:
        self.name, self.queries, self.pool, self.grades, self.space = name, queries, pool, grades, space
        self.instructions, self.negatives, self.seed, self.mined, self.strangers = instructions, negatives, seed, mined, strangers

    def __len__(self) -> int:
        return len(self.queries)

    def example(self, index: int, epoch: int) -> Example:
        """The query with one of its best answers and some of its negatives, both drawn anew each epoch."""
        query = self.queries[index]
        best = self._best(query)
        positive = best[draw(self.seed, f"{query.qid}/{epoch}", len(best))]
        right = (*query.positives, query.qid)
        known = query.negatives if self.mined is None else self.mined.of(query.qid)
        wrong = [did for did in known if did not in right and did in self.pool]
        start = draw(self.seed, f"{query.qid}/{epoch}/negatives", len(wrong)) if wrong else 0
        wrong = [*wrong[start:], *wrong[:start]][: self.negatives]
        instruction = None
        if self.instructions != "none":
            instruction = choose(query.instructions, query.qid, self.seed if self.instructions == "seeded" else None, epoch)
        items = self.pool.item(positive), tuple(self.pool.item(did) for did in wrong)
        return Example(query.item, instruction, *items, right, self.space, self._strangers(query, right, epoch))

    def _best(self, query: MBeirQuery) -> list[str]:
        grades = self.grades[query.qid]
        highest = max(grades[did] for did in query.positives)
        return [did for did in query.positives if grades[did] == highest]

    def _strangers(self, query: MBeirQuery, right: tuple[str, ...], epoch: int) -> tuple[Item, ...]:
        places = [draw(self.seed, f"{query.qid}/{epoch}/stranger {number}", len(self.queries)) for number in range(self.strangers)]
        dids = dict.fromkeys(self.queries[place].positives[0] for place in places)
        return tuple(self.pool.item(did) for did in dids if did not in right)


class TripleSource:
    """Triples, all with the same instruction.

    Args:
        name: for tables and errors.
        triples: the file.
        instruction: of every query, if any.
        negatives: explicit negatives a query.
        seed: of the draws.
        space: of the ids.
        strangers: right passages of other rows that an example brings.
    """

    def __init__(
        self, name: str, triples: Triples, instruction: str | None, negatives: int, seed: int, space: str = "", strangers: int = 0
    ) -> None:
        self.name, self.triples, self.instruction, self.negatives = name, triples, instruction, negatives
        self.seed, self.space, self.strangers = seed, space, strangers

    def __len__(self) -> int:
        return len(self.triples)

    def example(self, index: int, epoch: int) -> Example:
        """Row `index` with one of its right passages and some of its wrong ones, both drawn anew each epoch."""
        row = self.triples[index]
        right = tuple(str(one.id) for one in row.positives)
        positive = row.positives[draw(self.seed, f"{index}/{epoch}", len(row.positives))]
        wrong = [one for one in row.negatives if one.id not in right]
        start = draw(self.seed, f"{index}/{epoch}/negatives", len(wrong)) if wrong else 0
        negatives = tuple([*wrong[start:], *wrong[:start]][: self.negatives])
        places = [draw(self.seed, f"{index}/{epoch}/stranger {number}", len(self.triples)) for number in range(self.strangers)]
        others = {one.id: one for place in places for one in self.triples[place].positives[:1] if one.id not in right}
        return Example(row.query, self.instruction, positive, negatives, right, self.space, tuple(others.values()))


def open_text_retrieval(section: TextRetrievalSection, recipe: Recipe, negatives: int) -> Opened:
    """Open a set in BEIR's or MTEB's layout.

    Raises:
        DataError: missing or malformed files, or no training queries.
        RecipeError: negatives that were mined from other data, or for which there is no use.
    """
    if section.mined is not None and not negatives:
        raise RecipeError("data: mined has no effect with loss.negatives=0; set it to the number of negatives a query")
    tree = TextRetrieval(Path(section.path), section.on_error, None if section.instruction is None else (section.instruction,))
    if not tree.settings("train"):
        raise DataError(f"{tree.qrels_path(tree.setting, 'train')}: does not exist, so there are no training queries")
    mined, queries = open_mined(section.mined, tree), tree.train_queries()
    if not len(queries):
        raise DataError(f"{tree.root}: has no usable training queries")
    source = TextSource(
        tree.setting.name,
        queries,
        tree.train_pool(),
        tree.qrels(tree.setting, "train"),
        section.instructions,
        negatives,
        recipe.training.seed,
        section.path,
        mined,
        _strangers(recipe),
    )
    fingerprints = {f"{section.kind}:{section.path}": tree.fingerprint("train")}
    if mined is not None:
        fingerprints[f"mined:{section.mined}"] = mined.fingerprint
    return [source], [section.weight], fingerprints


def open_triples(section: TriplesSection, recipe: Recipe, negatives: int) -> Opened:
    """Open a file of triples. Raises `DataError`."""
    triples = Triples(Path(section.path), None if section.ids_in is None else Path(section.ids_in))
    source = TripleSource(
        section.kind, triples, section.instruction, negatives, recipe.training.seed, section.ids_in or section.path, _strangers(recipe)
    )
    marks = "-".join(fingerprint([path], path.parent) for path in triples.paths)
    return [source], [section.weight], {f"{section.kind}:{section.path}": marks}


def _strangers(recipe: Recipe) -> int:
    return recipe.loss.strangers if isinstance(recipe.loss, RerankSection) else 0
