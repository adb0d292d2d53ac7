"""Offsets by modality: ranks under them, the search for the best, and what a calibration file may and may not be used for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.errors import DataError, RecipeError
from umr.evaluation import evaluate
from umr.evaluation.calibrating import calibrate
from umr.evaluation.calibration import Calibration
from umr.evaluation.modality import MODALITIES, codes_of
from umr.evaluation.offsets import JudgedLists, best_offsets
from umr.items import Item, Side
from umr.progress import quiet
from umr.protocols import Vectors
from umr.store import ArrayRows
from unit.mbeir_fixture import DIMENSION, SETTINGS, BagEncoder, write_tree
from unit.modal_lists import search_each

GRID = (-0.5, -0.25, 0.0, 0.25, 0.5)


class BiasedEncoder(BagEncoder):
    """Adds a direction to every item that has text, as models do in which a modality has a place of its own."""

    dimension = DIMENSION + 1

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        plain_ND = super().encode(items, side, instruction)
        biased_ND = np.concatenate([plain_ND, [[0.8 if item.text else 0.0] for item in items]], axis=1)
        return np.asarray(biased_ND / np.linalg.norm(biased_ND, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tree with its test split under the name of val, too."""
    root = write_tree(tmp_path_factory.mktemp("tree") / "M-BEIR")
    for setting in SETTINGS:
        for folder, ending in (("query", ".jsonl"), ("qrels", "_qrels.txt")):
            (root / folder / "val").mkdir(exist_ok=True)
            shutil.copy(root / folder / "test" / f"mbeir_{setting}_test{ending}", root / folder / "val" / f"mbeir_{setting}_val{ending}")
    pools = root / "cand_pool" / "global"
    shutil.copy(pools / "mbeir_union_test_cand_pool.jsonl", pools / "mbeir_union_val_cand_pool.jsonl")
    return root


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


def judged_of(rng: np.random.Generator, k: int) -> tuple[JudgedLists, np.ndarray, np.ndarray, list[set[int]]]:
    """Queries over a pool with scores in quarters, which tie often, judged; also scores, modalities and right answers plainly."""
    n, queries = int(rng.integers(2, 16)), int(rng.integers(1, 4))
    scores_QN = rng.integers(-4, 5, (queries, n)) / 4
    codes_N = rng.integers(0, 4, n).astype(np.int8)
    right = [set(rng.choice(n, rng.integers(0, min(4, n + 1)), replace=False).tolist()) for _ in range(queries)]
    lists = search_each(np.eye(queries, dtype=np.float32), ArrayRows(scores_QN.T.astype(np.float32)), codes_N, k)
    wanted_Q = rng.integers(0, 4, queries).astype(np.int8)
    return JudgedLists.of(lists, [np.array(sorted(rows), np.int64) for rows in right], wanted_Q, 2), scores_QN, codes_N, right


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 6))
def test_ranks_are_those_of_a_full_ranking(seed: int, k: int):
    rng = np.random.default_rng(seed)
    judged, scores_QN, codes_N, right = judged_of(rng, k)
    offsets_M = rng.integers(-4, 5, len(MODALITIES)) / 4
    ranks = judged.ranks(offsets_M)
    first_kinds = []
    for query, row in enumerate(scores_QN):
        shifted = row + offsets_M[codes_N]
        order = sorted(range(len(row)), key=lambda place: (-shifted[place], place))
        expected = next((rank for rank, place in enumerate(order, 1) if place in right[query]), np.inf)
        assert ranks[query] == expected if expected <= k else ranks[query] > k
        first_kinds.append(codes_N[order[0]])
    assert judged.accuracy(offsets_M) == pytest.approx(100 * np.mean(np.array(first_kinds) == judged.wanted_Q))
    if k >= 2:
        assert judged.main(ranks) == 100 * np.mean(ranks <= 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_single_change_would_be_better(seed: int):
    judged = judged_of(np.random.default_rng(seed), 4)[0]
    present = sorted({int(kind) for kind in np.flatnonzero(np.isfinite(judged.lists.scores_QMK[0, :, 0]))})
    found_M = best_offsets([judged], present, GRID)
    assert np.array_equal(found_M, best_offsets([judged], present, GRID))

    def score(offsets_M: np.ndarray) -> tuple[float, float, float]:
        ranks_Q = judged.ranks(offsets_M)
        return round(judged.main(ranks_Q), 6), round(judged.mrr(ranks_Q), 6), -float(np.abs(offsets_M).sum())

    assert score(found_M) >= score(np.zeros(4))
    for modality in present:
        for value in GRID:
            other_M = found_M.copy()
            other_M[modality] = value
            assert score(other_M) <= score(found_M)


class TestFit:
    @pytest.fixture(scope="class")
    def fitted(self, tree: Path) -> Calibration:
        with quiet():
            return calibrate(BiasedEncoder(), tree)

    def test_it_mends_a_biased_model(self, tree: Path, fitted: Calibration):
        before = evaluate(BiasedEncoder(), tree, ("global",), split="val")
        after = evaluate(BiasedEncoder(), tree, ("global",), split="val", calibration=fitted)
        plain, shifted = before.averages["global"], after.averages["global-calibrated"]
        assert shifted["modality_accuracy@1"] > plain["modality_accuracy@1"] + 10
        assert shifted["main"] > plain["main"]
        assert fitted.offsets["text"]["image"] > fitted.offsets["text"]["text"]

    def test_the_scores_it_names_are_those_of_evaluations(self, tree: Path, fitted: Calibration):
        for calibration, named, pool in ((None, fitted.before, "global"), (fitted, fitted.after, "global-calibrated")):
            found = evaluate(BiasedEncoder(), tree, ("global",), split="val", calibration=calibration)
            for kind, names in (("text", ("shapes_task0", "wiki_task1")), ("image,text", ("fashioniq_task7",))):
                pools = [(one.main_metric, one.pools[pool].metrics) for one in found.settings if one.setting in names]
                assert named[kind].main == pytest.approx(np.mean([scores[main] for main, scores in pools]))
                assert named[kind].mrr == pytest.approx(np.mean([scores["mrr"] for _, scores in pools]))
                assert named[kind].accuracy == pytest.approx(np.mean([scores["modality_accuracy@1"] for _, scores in pools]))

    def test_the_same_again_and_from_the_same_vectors(self, tree: Path, fitted: Calibration, tmp_path: Path):
        evaluate(BiasedEncoder(), tree, split="val", work_dir=tmp_path)
        again = calibrate(BiasedEncoder(fail_at_call=0), tree, work_dir=tmp_path)
        assert again == fitted

    def test_saved_and_loaded(self, fitted: Calibration, tmp_path: Path):
        fitted.save(tmp_path / "calibration.json")
        assert Calibration.load(tmp_path / "calibration.json") == fitted
        content = json.loads((tmp_path / "calibration.json").read_text())
        assert (content["split"], content["retriever"], content["instruction"]) == ("val", "bag-of-words:bag", "first")
        assert content["tasks"] == list(SETTINGS) and content["offsets"].keys() == {"text", "image,text"}
        assert content["offsets"]["text"].keys() == {"text", "image"}  # what the pool has

    def test_a_model_without_bias_needs_nothing(self, tree: Path):
        """Nothing beats 0 where the only task already scores all it can."""
        found = calibrate(BagEncoder(), tree, tasks=["fashioniq_task7"], grid=(0.0,))
        assert found.offsets == {"image,text": {"text": 0.0, "image": 0.0}}
        assert found.before == found.after

    def test_never_on_test(self, tree: Path):
        with pytest.raises(RecipeError, match="fit them on val"):
            calibrate(BagEncoder(), tree, "test")
        with pytest.raises(DataError, match="no queries of split 'dev'"):
            calibrate(BagEncoder(), tree, "dev")
        with pytest.raises(RecipeError, match="0 among them"):
            calibrate(BagEncoder(), tree, grid=(0.1, 0.2))

    def test_a_pool_of_one_modality(self, tree: Path, tmp_path: Path):
        copy = tmp_path / "copy"
        shutil.copytree(tree, copy)
        everything = copy / "cand_pool" / "global" / "mbeir_union_val_cand_pool.jsonl"
        everything.write_text("".join(line for line in everything.open() if json.loads(line)["modality"] == "text"))
        with pytest.raises(RecipeError, match="holds text alone"):
            calibrate(BagEncoder(), copy, tasks=["wiki_task1"])


class TestFile:
    def test_by_hand(self, tmp_path: Path):
        path = tmp_path / "calibration.json"
        path.write_text('{"offsets": {"text": {"image": 0.1, "video": -0.2}}}')
        calibration = Calibration.load(path)
        assert calibration.offsets_of(codes_of(["image", "text"])).tolist() == [[0, 0, 0, 0], [0, 0.1, 0, -0.2]]
        calibration.check("any model")
        assert calibration.origin == {}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"offsets": {"text": {"picture": 0.1}}}', "offsets.text.picture"),
            ('{"offsets": {"text": {"image": NaN}}}', "offsets.text.image: .*finite"),
            ('{"offsets": {}, "split": "test"}', "split: .*fit them on val"),
            ('{"offset": {}}', "offset"),
            ('{"offsets": {}, "format": 2}', "format: "),
            ("nonsense", "is no calibration file"),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, text: str, words: str):
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(RecipeError, match=rf"calibration\.json: .*{words}"):
            Calibration.load(tmp_path / "calibration.json")
        with pytest.raises(RecipeError, match=r"cannot be read.*umr calibrate"):
            Calibration.load(tmp_path / "missing.json")
