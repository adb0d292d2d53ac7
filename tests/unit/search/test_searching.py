"""One search through its stages, against a small table in memory and plain re-computations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from umr.errors import RecipeError
from umr.evaluation.calibration import Calibration
from umr.items import Item
from umr.rendering.pairs import Pair
from umr.search.asking import Question, ask
from umr.search.filters import Filter
from umr.search.fusion import reciprocal_ranks
from umr.search.hits import Results
from umr.search.options import MODALITIES, Options, modalities_of
from umr.search.places import Places
from umr.search.searching import Search
from unit.bag_reranker import BagReranker, JudgeReranker
from unit.mbeir_fixture import BagEncoder
from unit.search.memory_table import MemoryTable
from unit.search.photo_rows import photo_rows

BLUE_BOAT = ask("a blue boat")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture
def table(root: Path) -> MemoryTable:
    return MemoryTable(photo_rows(root))


def run(table: MemoryTable, root: Path, question: Question = BLUE_BOAT, **options: object) -> Results:
    asked = Options(**options)
    asked.check(question)
    places = Places(root / "collection", root)
    return Search(table, asked, question, lambda: question.vector(BagEncoder()), places.of, question.wanted.modality).run()


def cosines(table: MemoryTable, question: Question = BLUE_BOAT) -> dict[str, float]:
    found = table.nearest(question.vector(BagEncoder())[None], 10_000)[0]
    return {near.id: near.score for near in found}


def order_of(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda id: (-scores[id], id))


def test_by_vector(table: MemoryTable, root: Path):
    expected = cosines(table)
    found = run(table, root, k=7)
    assert found.ids == order_of(expected)[:7]
    assert [hit.scores for hit in found] == [{"cosine": expected[id]} for id in found.ids]
    assert {hit.stage for hit in found} == {"cosine"} and found.order == "cosine" and found.reranked == 0
    assert [hit.rank for hit in found] == list(range(1, 8))
    assert set(found.seconds) == {"embedding", "vectors", "rows"}


def test_hits_say_where_they_come_from(table: MemoryTable, root: Path):
    hit = next(hit for hit in run(table, root, k=36) if hit.id == "row 00")
    assert (hit.source, hit.modality, hit.text, hit.metadata) == ("album0", "image", "", {"colour": "red"})
    assert hit.media == (root / "00.png").resolve()
    assert hit.to_item() == Item.of(image=hit.media, id="row 00")
    about = hit.to_json()
    assert about["media"] == str(hit.media) and "page" not in about and "thumbnail" not in about


def test_by_words_without_the_model(table: MemoryTable, root: Path):
    def never() -> np.ndarray:
        raise AssertionError("the model was asked")

    search = Search(table, Options(mode="words", k=4), BLUE_BOAT, never, lambda row: None, "text")
    found = search.run()
    assert found.ids == [near.id for near in table.words("a blue boat", 4)]
    assert set(found[0].scores) == {"words"} and found.order == "BM25"


def test_hybrid_is_reciprocal_ranks_of_both_lists(table: MemoryTable, root: Path):
    near, words = table.nearest(BLUE_BOAT.vector(BagEncoder())[None], 9)[0], table.words("a blue boat", 9)
    expected = reciprocal_ranks({"vector": near, "words": words}, {"words": 2.0})
    found = run(table, root, mode="hybrid", depth=9, words_weight=2.0, k=9)
    assert [(hit.id, hit.score) for hit in found] == [(one.id, one.score) for one in expected[:9]]
    exact = cosines(table)
    by_words = {one.id: one.score for one in words}
    for hit in found:  # what words alone have found has its cosine, too
        assert hit.scores["cosine"] == pytest.approx(exact[hit.id], abs=1e-6)
        assert hit.scores.get("words") == by_words.get(hit.id)
        assert hit.scores["fused"] == hit.score
    assert {near.id for near in words} - {one.id for one in near}, "no hit came from words alone"


def test_where_and_modalities(table: MemoryTable, root: Path):
    found = run(table, root, k=36, where=Filter.parse(["year>=2020", "colour=blue"]), modalities=("text", "image"))
    assert found.ids
    assert all(hit.metadata["year"] >= 2020 and hit.metadata["colour"] == "blue" and hit.modality in ("text", "image") for hit in found)
    exact = cosines(table)
    assert found.ids == order_of({id: exact[id] for id in found.ids})
    hybrid = run(table, root, k=36, mode="hybrid", where=Filter.parse({"modality": "image,text"}))
    assert {hit.modality for hit in hybrid} == {"image,text"}


CALIBRATION = Calibration(offsets={"text": {"text": -0.5, "image,text": 0.25}})


def test_calibrated_order_is_exact_whatever_k_is(table: MemoryTable, root: Path):
    exact, rows = cosines(table), {row.id: row for row in table.rows(list(cosines(table)))}
    offsets = {"text": -0.5, "image,text": 0.25}
    expected = {id: score + offsets.get(rows[id].modality, 0.0) for id, score in exact.items()}
    for k in (1, 5, 36):
        found = run(table, root, k=k, calibration=CALIBRATION)
        assert found.ids == order_of(expected)[:k]
        assert found[0].scores == {"cosine": exact[found[0].id], "calibrated": expected[found[0].id]}
        assert found[0].stage == "calibrated"
    assert found.ids != order_of(exact)
    image = ask(image=root / "00.png")  # queries of this modality have no offsets
    assert run(table, root, image, calibration=CALIBRATION).ids == run(table, root, image).ids


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "words"},
        {"mode": "hybrid", "depth": 40},
        {"calibration": CALIBRATION},
        {"reranker": BagReranker(), "rerank_depth": 10},
        {"group_by": "source", "per_group": 2},
        {"group_by": "colour", "per_group": 3, "mode": "hybrid", "reranker": BagReranker(), "rerank_depth": 8},
    ],
    ids=lambda options: "-".join(options) or "vector",
)
def test_pages_are_slices_of_one_order(table: MemoryTable, root: Path, options: dict):
    whole = run(table, root, k=36, **options)
    assert len(whole) > 5
    paged = [hit for offset in range(0, 35, 5) for hit in run(table, root, k=5, offset=offset, **options)]
    same = [(hit.id, hit.rank, hit.score, hit.scores) for hit in whole]
    assert [(hit.id, hit.rank, hit.score, hit.scores) for hit in paged] == same[:35]


def test_a_page_beyond_the_last_hit_is_empty(table: MemoryTable, root: Path):
    assert len(run(table, root, offset=36)) == 0


def test_groups_keep_the_best_of_each(table: MemoryTable, root: Path):
    plain = run(table, root, k=36)
    found = run(table, root, k=9, group_by="source")
    seen: dict[str, str] = {}
    for hit in plain:
        seen.setdefault(hit.source, hit.id)
    assert found.ids == list(seen.values()) and len(found) == 9
    assert "at most 1 of each source" in found.order
    years = run(table, root, k=36, group_by="year")  # rows without the field are each on their own
    assert len(years) == 36
    assert len(run(table, root, k=36, group_by="colour", per_group=2)) == 6


def test_groups_are_looked_for_deeper_and_deeper(table: MemoryTable, root: Path):
    run(table, root, k=3, group_by="colour")
    depths = [k for what, k in table.asked if what == "nearest"]
    assert depths[0] == 12 and depths == sorted(depths)


def test_reranking_by_cosine_and_yes(table: MemoryTable, root: Path):
    yes = {id: (place * 37 % 11) / 10 for place, id in enumerate(order_of(cosines(table)))}
    reranker = JudgeReranker(lambda qid, did: yes[did])
    before = run(table, root, k=36)
    found = run(table, root, k=36, reranker=reranker, rerank_depth=12, rerank_weight=0.5)
    first = {hit.id: hit.score + 0.5 * np.float32(yes[hit.id]) for hit in before[:12]}
    assert found.ids == sorted(first, key=lambda id: -first[id]) + before.ids[12:]
    assert found.reranked == 12 and found.order == "the first 12 by cosine + 0.5 P(Yes), then by cosine"
    assert [hit.stage for hit in found] == ["rerank"] * 12 + ["cosine"] * 24
    assert found[0].scores["rerank"] == pytest.approx(yes[found[0].id])
    alone = run(table, root, k=36, mode="hybrid", reranker=reranker, rerank_depth=12)
    assert [hit.score for hit in alone[:12]] == sorted((np.float32(yes[hit.id]) for hit in alone[:12]), reverse=True)


def test_the_reranker_reads_query_instruction_and_the_opened_item(table: MemoryTable, root: Path):
    seen: list[Pair] = []

    class Remembers(BagReranker):
        def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
            seen.extend(pairs)
            return super().score_pairs(pairs)

    run(table, root, ask("a blue boat", minus="red", instruction="Find it"), reranker=Remembers(), rerank_depth=36)
    assert {(pair.query, pair.instruction) for pair in seen} == {(Item.of(text="a blue boat"), "Find it")}
    assert {pair.candidate.modality for pair in seen} == {"text", "image", "image,text"}
    row = next(pair.candidate for pair in seen if pair.candidate.id == "row 06")
    assert row == Item.of(image=(root / "06.png").resolve(), text="a red boat", id="row 06")


def test_a_file_that_is_gone_costs_itself_only(root: Path, tmp_path: Path):
    table = MemoryTable(photo_rows(tmp_path))
    plain = run(table, tmp_path, k=12, modalities=("image",))
    broken, gone = plain.hits[1].media, plain.hits[3].media
    assert broken is not None and gone is not None
    broken.write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    gone.unlink()
    found = run(table, tmp_path, k=12, modalities=("image",), reranker=BagReranker())
    assert set(found.ids) == set(plain.ids) and found.reranked == 10
    assert found.ids[-2:] == [plain.ids[1], plain.ids[3]]
    assert sorted(found.notes) == sorted(found.notes) and len(found.notes) == 2
    assert any(plain.ids[1] in note and "PNG" not in note for note in found.notes)
    assert any(plain.ids[3] in note and "index the folder again" in note for note in found.notes)


def test_rows_that_go_while_a_search_runs_are_left_out(table: MemoryTable, root: Path):
    first = run(table, root, k=3).ids[0]

    class Vanishing(MemoryTable):
        def rows(self, ids, vectors=False):
            self.delete([first])
            return super().rows(ids, vectors)

    found = run(Vanishing(photo_rows(root)), root, k=3)
    assert first not in found.ids and len(found) == 2


def test_media_outside_the_root_are_not_named(root: Path, tmp_path: Path):
    outside = tmp_path / "secret.png"
    outside.write_bytes((root / "00.png").read_bytes())
    (root / "link.png").unlink(missing_ok=True)
    (root / "link.png").symlink_to(outside)
    places = Places(tmp_path / "collection", root)
    rows = photo_rows(root, 1)
    for media in ("../secret.png", "link.png", "", ".", "a\0b", "/../secret.png", "/"):
        assert places.of(type(rows[0])(**{**vars(rows[0]), "media": media})) is None
    assert places.of(rows[0]) == (root / "00.png").resolve()
    own = type(rows[0])(**{**vars(rows[0]), "media": "/media/ab/x.png"})
    assert places.of(own) == (tmp_path / "collection" / "media" / "ab" / "x.png").resolve()
    assert Places(tmp_path, None).of(rows[0]) is None


# --- settings


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"k": 0}, "k must be a whole number of at least 1"),
        ({"k": True}, "k must be a whole number"),
        ({"offset": -1}, "offset must be"),
        ({"offset": 10_000}, r"offset \+ k = 10010 is beyond"),
        ({"mode": "magic"}, "mode must be one of vector, words, hybrid"),
        ({"mode": "hybrid", "offset": 195}, "beyond the depth of 200"),
        ({"depth": 5}, "depth has no effect in mode vector"),
        ({"words_weight": 1.0, "mode": "words"}, "words_weight has no effect"),
        ({"mode": "hybrid", "words_weight": 0}, "words_weight must be above 0"),
        ({"rerank_depth": 5}, "rerank_depth has no effect without a reranker"),
        ({"rerank_seconds": 1.0}, "rerank_seconds has no effect"),
        ({"reranker": BagReranker(), "rerank_seconds": 0}, "rerank_seconds must be above 0"),
        ({"reranker": BagReranker(), "rerank_weight": -1}, "rerank_weight must be 0 or more"),
        ({"reranker": BagReranker(), "rerank_weight": 1, "mode": "words"}, "rerank_weight has no effect in mode words"),
        ({"calibration": CALIBRATION, "mode": "words"}, "calibration has no effect in mode words"),
        ({"per_group": 2}, "per_group has no effect without group_by"),
    ],
)
def test_settings_that_are_refused(options: dict, line: str):
    with pytest.raises(RecipeError, match=line):
        Options(**options)


@pytest.mark.parametrize(
    ("question", "mode", "line"),
    [
        (ask(image=b"\x89PNG"), "hybrid", "mode hybrid looks for words, and the query has none"),
        (ask("a", image=None, minus="b"), "words", "cannot subtract"),
        (ask(text="a", image=b"\x89PNG"), "words", "images and videos have no effect"),
    ],
)
def test_questions_that_do_not_fit_the_mode(question: Question, mode: str, line: str):
    with pytest.raises(RecipeError, match=line):
        Options(mode=mode).check(question)


def test_modalities():
    assert modalities_of(None) is None
    assert modalities_of("image") == ("image",)
    assert modalities_of(["text,image", "video", "image,text"]) == ("image,text", "video")
    assert modalities_of(list(MODALITIES)) == MODALITIES
    for wrong in (["picture"], []):
        with pytest.raises(RecipeError, match="modalit"):
            modalities_of(wrong)
