"""Search in a mixed pool by modality: lists by modality and their merging against brute force, and evaluations that use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.calibration import Calibration
from umr.evaluation.modality import MODALITIES, codes_of
from umr.evaluation.rerank import Reranking
from umr.progress import quiet
from umr.store import ArrayRows
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree
from unit.modal_lists import search_each, topk_within

OFFSETS = {"text": {"image": 0.25, "text": -0.125}, "image,text": {"image": -0.5}}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "M-BEIR")


@pytest.fixture(scope="module")
def whole(tree: Path) -> EvaluationResult:
    """A plain search that ranks all 112 candidates."""
    with quiet():
        return evaluate(BagEncoder(), tree, ("global",), depth=112)


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), k=st.integers(1, 12), queries=st.integers(1, 3))
def test_merged_lists_are_the_exact_result(seed: int, n: int, k: int, queries: int):
    """Scores and offsets are quarters, so that shifted scores tie often and exactly."""
    rng = np.random.default_rng(seed)
    candidates_ND, queries_QD = (rng.integers(-4, 5, (rows, 2)).astype(np.float32) / 4 for rows in (n, queries))
    codes_N = rng.integers(0, rng.integers(1, 5), n).astype(np.int8)
    offsets_QM = rng.integers(-4, 5, (queries, len(MODALITIES))) / 4
    wanted = int(rng.choice(codes_N))
    rows_QK, scores_QK = search_each(queries_QD, ArrayRows(candidates_ND), codes_N, k).merged(offsets_QM)
    only_QK, plain_QK = topk_within(queries_QD, ArrayRows(candidates_ND), codes_N, wanted, k)
    for query in range(queries):
        plain = [float(queries_QD[query] @ candidates_ND[row]) for row in range(n)]
        shifted = [plain[row] + offsets_QM[query, codes_N[row]] for row in range(n)]
        expected = sorted(range(n), key=lambda row: (-shifted[row], row))[:k]
        assert rows_QK[query].tolist() == expected
        assert scores_QK[query].tolist() == [np.float32(shifted[row]) for row in expected]
        expected = sorted((row for row in range(n) if codes_N[row] == wanted), key=lambda row: (-plain[row], row))[:k]
        assert only_QK[query].tolist() == expected
        assert plain_QK[query].tolist() == [np.float32(plain[row]) for row in expected]


def test_close_scores_do_not_become_one_by_an_offset():
    """In single precision 1e-4 and the next number are equal once 0.5 is added, and the lower row would come first."""
    close = np.array([[1e-4], [np.nextafter(np.float32(1e-4), np.float32(1))]], np.float32)
    assert np.float32(0.5) + close[0, 0] == np.float32(0.5) + close[1, 0]
    lists = search_each(np.ones((1, 1), np.float32), ArrayRows(close), codes_of(["text", "text"]), 2)
    assert lists.merged(np.full((1, 4), 0.5))[0].tolist() == [[1, 0]]


def test_a_rescored_plain_list_would_not_be_exact():
    """Why lists are kept by modality: an image that an offset brings to the top lies beyond the k best plain results."""
    scores = np.array([[0.9 - 0.01 * row] for row in range(10)] + [[0.5]], np.float32)
    kinds = ["text"] * 10 + ["image"]
    rows_QK, _ = search_each(np.ones((1, 1), np.float32), ArrayRows(scores), codes_of(kinds), 3).merged(np.array([[0, 0.45, 0, 0]]))
    assert rows_QK.tolist() == [[10, 0, 1]]


class TestFilter:
    def test_only_the_wanted_modality_is_ranked(self, tree: Path, whole: EvaluationResult):
        benchmark = MBeir(tree)
        pool = benchmark.global_pool("test")
        found = evaluate(BagEncoder(), tree, modality_filter=True)
        for setting in SETTINGS:
            wanted = benchmark.queries(setting, "test")[0].target_modality
            for qid, dids in whole.runs[setting, "global"].rankings().items():
                expected = [did for did in dids if pool.modality(did) == wanted][:50]
                assert found.runs[setting, "global-filtered"].rankings()[qid] == expected

    def test_it_is_never_called_global(self, tree: Path):
        found = evaluate(BagEncoder(), tree, modality_filter=True)
        content = json.loads(found.to_json())
        assert found.pools == ["local", "global-filtered"] and content["averages"].keys() == {"local", "global-filtered"}
        assert content["search"] == {"global-filtered": {"modality_filter": True}}
        assert all(one["pools"].keys() == {"local", "global-filtered"} for one in content["settings"])
        assert content["averages"]["global-filtered"]["modality_accuracy@1"] == 100
        assert content["averages"]["global-filtered"]["type1"] == 0
        assert "global-" in str(found) and "filtered" in str(found)

    def test_size_and_chance_are_of_what_is_ranked(self, tree: Path):
        found = evaluate(BagEncoder(), tree, ("global",), modality_filter=True)
        shapes, wiki, _ = (one.pools["global-filtered"] for one in found.settings)
        assert (shapes.size, wiki.size) == (72, 40)
        # wiki: a positive of query 3 is an image, so it cannot be found; query 5 has none; 4 and 8 have two, 0 the same one twice.
        assert wiki.chance["hit@1"] == pytest.approx(100 * (8 * 1 / 40 + 2 * 2 / 40) / 12)

    def test_right_answers_of_another_modality_are_lost(self, tree: Path, whole: EvaluationResult):
        found = evaluate(BagEncoder(), tree, ("global",), ["wiki_task1"], modality_filter=True)
        assert "0:3" not in found.runs["wiki_task1", "global-filtered"].rankings()["1:3"]
        assert "0:3" in whole.runs["wiki_task1", "global"].rankings()["1:3"]

    def test_a_pool_without_the_modality(self, tree: Path, tmp_path: Path):
        copy = tmp_path / "copy"
        shutil.copytree(tree, copy)
        everything = copy / "cand_pool" / "global" / "mbeir_union_test_cand_pool.jsonl"
        everything.write_text("".join(line for line in everything.open() if json.loads(line)["modality"] == "text"))
        with pytest.raises(DataError, match="no candidate of the modality 'image' that shapes_task0 looks for"):
            evaluate(BagEncoder(), copy, ("global",), ["shapes_task0"], modality_filter=True)


class TestCalibrated:
    def test_the_ranking_is_that_of_all_scores_shifted(self, tree: Path, whole: EvaluationResult):
        benchmark = MBeir(tree)
        pool = benchmark.global_pool("test")
        found = evaluate(BagEncoder(), tree, ("global",), calibration=Calibration(offsets=OFFSETS))
        changed = 0
        for setting in SETTINGS:
            asked = benchmark.queries(setting, "test")[0].item.modality
            run, plain = found.runs[setting, "global-calibrated"], whole.runs[setting, "global"]
            for place, (qid, dids) in enumerate(plain.rankings().items()):
                scores = {
                    did: float(score) + OFFSETS.get(asked, {}).get(pool.modality(did), 0.0)
                    for did, score in zip(dids, plain.scores_QK[place], strict=True)
                }
                expected = sorted(dids, key=lambda did: (-scores[did], pool.find([did])[0]))[:50]
                assert run.rankings()[qid] == expected
                assert run.scores_QK[place].tolist() == [np.float32(scores[did]) for did in expected]
                changed += expected != dids[:50]
        assert changed

    def test_no_offsets_change_nothing_but_the_name(self, tree: Path):
        plain = evaluate(BagEncoder(), tree, ("global",))
        zero = evaluate(BagEncoder(), tree, ("global",), calibration=Calibration(offsets={}))
        for setting in SETTINGS:
            one, other = plain.runs[setting, "global"], zero.runs[setting, "global-calibrated"]
            assert np.array_equal(one.rows_QK, other.rows_QK) and np.array_equal(one.scores_QK, other.scores_QK)
        assert [one.pools["global"] for one in plain.settings] == [one.pools["global-calibrated"] for one in zero.settings]

    def test_it_is_never_called_global(self, tree: Path):
        calibration = Calibration(offsets=OFFSETS, split="val", retriever="bag-of-words:bag", data="d")
        content = json.loads(evaluate(BagEncoder(), tree, calibration=calibration).to_json())
        assert content["averages"].keys() == {"local", "global-calibrated"}
        chosen = {"split": "val", "retriever": "bag-of-words:bag", "data": "d"}
        assert content["search"] == {"global-calibrated": {"calibration": {"offsets": OFFSETS, "chosen": chosen}}}

    def test_one_of_another_model_is_refused(self, tree: Path):
        calibration = Calibration(offsets=OFFSETS, retriever="bag-of-words:other")
        with pytest.raises(RecipeError, match=r"fitted for the model bag-of-words, and this is .*umr calibrate"):
            evaluate(BagEncoder(fail_at_call=0), tree, calibration=calibration)


class TestReranked:
    def test_each_way_of_searching_has_its_own_probabilities(self, tree: Path, tmp_path: Path):
        def run(again: bool, **how: object) -> EvaluationResult:
            reranker = BagReranker(fail_at_call=0) if again else BagReranker()
            return evaluate(BagEncoder(), tree, ("global",), work_dir=tmp_path, rerank=Reranking(reranker, 10), **how)  # type: ignore[arg-type]

        ways = [{}, {"modality_filter": True}, *({"calibration": Calibration(offsets={"text": {"image": shift}})} for shift in (0.1, 0.4))]
        first = [run(False, **how) for how in ways]
        assert [run(True, **how).to_json() for how in ways] == [one.to_json() for one in first]
        assert len({one.to_json() for one in first}) == len(ways)

    def test_what_is_reranked_is_what_was_searched(self, tree: Path):
        plain = evaluate(BagEncoder(), tree, ("global",), modality_filter=True)
        found = evaluate(BagEncoder(), tree, ("global",), rerank=Reranking(BagReranker(), 10), modality_filter=True)
        for key, run in plain.runs.items():
            for qid, dids in run.rankings().items():
                assert sorted(found.runs[key].rankings()[qid][:10]) == sorted(dids[:10])
        assert found.rerank is not None
        assert found.rerank.recall["wiki_task1"]["global-filtered"] == plain.settings[1].pools["global-filtered"].metrics["hit@5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pools": ("local",), "modality_filter": True}, "modality_filter has no effect without the global pool"),
        ({"pools": ("local",), "calibration": Calibration(offsets={})}, "calibration has no effect without the global pool"),
        ({"modality_filter": True, "calibration": Calibration(offsets={})}, "calibration has no effect with modality_filter"),
    ],
)
def test_options_without_effect(tree: Path, arguments: dict[str, object], words: str):
    with pytest.raises(RecipeError, match=words):
        evaluate(BagEncoder(), tree, **arguments)  # type: ignore[arg-type]
