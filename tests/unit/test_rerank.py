"""Reranking in evaluation: fusion against a plain loop, what is kept between runs, and weights chosen on validation queries."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError, StoreError
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.choosing import choose_weights
from umr.evaluation.rerank import Reranked, Reranking, fuse
from umr.evaluation.result import Run
from umr.evaluation.weights import Weights
from umr.progress import quiet
from umr.rendering.pairs import Pair
from unit.bag_reranker import BagReranker, JudgeReranker
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree


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


@pytest.fixture(scope="module")
def plain(tree: Path) -> EvaluationResult:
    with quiet():
        return evaluate(BagEncoder(), tree)


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


def run_of(scores: list[list[float]]) -> Run:
    scores_QK = -np.sort(-np.array(scores, np.float32), axis=1)
    queries, depth = scores_QK.shape
    rows_QK = np.stack([np.random.default_rng(query).permutation(depth) for query in range(queries)])
    return Run(tuple(map(str, range(queries))), rows_QK, scores_QK, pa.chunked_array([pa.array([f"d{row}" for row in range(depth)])]))


QUARTERS = st.integers(-4, 4).map(lambda value: value / 4)  # so that sums tie often and exactly


@settings(max_examples=200, deadline=None)
@given(
    scores=st.integers(1, 7).flatmap(lambda k: st.lists(st.lists(QUARTERS, min_size=k, max_size=k), min_size=1, max_size=4)),
    data=st.data(),
    weight=st.sampled_from([0.0, 0.25, 1.0, 1.5]),
)
def test_fusion_is_that_of_a_plain_loop(scores: list[list[float]], data: st.DataObject, weight: float) -> None:
    recall = run_of(scores)
    queries, width = recall.rows_QK.shape
    depth = data.draw(st.integers(1, width))
    yes = [[data.draw(st.integers(0, 4)) / 4 for _ in range(depth)] for _ in range(queries)]
    fused = Reranked(recall, np.array(yes, np.float32)).fused(weight)
    for query in range(queries):
        cosine, rows = recall.scores_QK[query].tolist(), recall.rows_QK[query].tolist()
        first = sorted((-(cosine[k] + weight * yes[query][k]), k) for k in range(depth))
        places = [k for _, k in first] + list(range(depth, width))
        assert fused.rows_QK[query].tolist() == [rows[k] for k in places]
        assert fused.scores_QK[query].tolist() == [-score for score, _ in first] + cosine[depth:]
    assert (np.diff(fused.scores_QK, axis=1) <= 0).all()
    assert fused.qids == recall.qids
    if weight == 0:
        assert np.array_equal(fused.rows_QK, recall.rows_QK)


def test_equal_scores_keep_their_order() -> None:
    recall = run_of([[0.5] * 300] * 3)
    yes_QK = np.tile(np.repeat(np.array([0.25, 0.75], np.float32), 50), (3, 1))
    fused = Reranked(recall, yes_QK).fused(1.0)
    assert np.array_equal(fused.rows_QK, recall.rows_QK[:, [*range(50, 100), *range(50), *range(100, 300)]])


def test_fuse_is_float32_of_any_shape() -> None:
    fused = fuse(np.array([[0.5, 0.25]], np.float32), np.array([[0.0, 1.0]], np.float32), 0.1)
    assert fused.dtype == np.float32 and fused.shape == (1, 2)
    assert fused == pytest.approx(np.array([[0.5, 0.35]]))


def plain_fusion(tree: Path, result: EvaluationResult, key: tuple[str, str], weight: float, depth: int) -> dict[str, list[str]]:
    """The rankings of a loop over queries and candidates that asks the reranker about one pair at a time."""
    benchmark, reranker, run = MBeir(tree), BagReranker(), result.runs[key]
    pool = benchmark.global_pool("test")
    found = {}
    for (qid, dids), cosines in zip(run.rankings().items(), run.scores_QK, strict=True):
        query = benchmark.queries(key[0], "test").get(qid)
        pairs = [Pair(query.item, query.instructions[0], pool.item(did)) for did in dids[:depth]]
        scores = [cosine + np.float32(weight) * np.float32(reranker.one(pair)) for cosine, pair in zip(cosines, pairs, strict=False)]
        found[qid] = [dids[k] for k in sorted(range(len(pairs)), key=lambda k: (-scores[k], k))] + dids[depth:]
    return found


@pytest.mark.parametrize(("weight", "depth"), [(0.7, 12), (1.0, 50)])
def test_rankings_are_those_of_a_plain_loop(tree: Path, plain: EvaluationResult, weight: float, depth: int) -> None:
    result = evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), depth, weight))
    changed = 0
    for key in plain.runs:
        assert result.runs[key].rankings() == plain_fusion(tree, plain, key, weight, depth)
        changed += result.runs[key].rankings() != plain.runs[key].rankings()
    assert changed  # the reranker has a say
    assert result.settings != plain.settings


def test_weight_zero_is_no_reranker(tree: Path, plain: EvaluationResult) -> None:
    result = evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), 20, 0.0))
    assert result.settings == plain.settings and result.averages == plain.averages
    for key, run in plain.runs.items():
        assert np.array_equal(result.runs[key].rows_QK, run.rows_QK)
        assert np.array_equal(result.runs[key].scores_QK, run.scores_QK)
    without = json.loads(result.to_json())
    assert without.pop("rerank")["fingerprint"] == "bag-reranker-bag"
    assert without == json.loads(plain.to_json())


def test_a_right_reranker_alone_scores_what_recall_allows(tree: Path, plain: EvaluationResult) -> None:
    qrels = {qid: dids for setting in SETTINGS for qid, dids in MBeir(tree).qrels(setting, "test").items()}
    oracle = JudgeReranker(lambda qid, did: float(did in qrels.get(qid, ())))
    result = evaluate(BagEncoder(), tree, rerank=Reranking(oracle, 10, 2.0))
    assert result.rerank is not None
    for one in plain.settings:
        for pool, found in one.pools.items():
            assert result.rerank.recall[one.setting][pool] == pytest.approx(found.metrics[one.main_metric])
            assert result.rerank.alone[one.setting][pool] == pytest.approx(found.metrics["hit@10"])
    assert result.averages["local"]["main"] >= plain.averages["local"]["main"]


def test_each_pair_is_judged_once_and_then_remembered(tree: Path, tmp_path: Path) -> None:
    reranker = BagReranker()
    first = evaluate(BagEncoder(), tree, work_dir=tmp_path, rerank=Reranking(reranker, 20))
    pairs = [pair for call in reranker.asked for pair in call]
    assert first.rerank is not None
    wanted = {(qid, did) for one in first.rerank.searches.values() for qid, dids in one.recall.rankings().items() for did in dids[:20]}
    assert len(pairs) == len(set(pairs)) and set(pairs) == wanted
    again = BagReranker(fail_at_call=0)
    same = evaluate(BagEncoder(), tree, work_dir=tmp_path, rerank=Reranking(again, 20))
    assert same.to_json() == first.to_json()
    other = evaluate(BagEncoder(), tree, work_dir=tmp_path, rerank=Reranking(again, 20, 0.3))
    assert other.to_json() == evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), 20, 0.3)).to_json()
    with pytest.raises(RuntimeError):  # another reranker's opinion is not taken from there
        evaluate(BagEncoder(), tree, work_dir=tmp_path, rerank=Reranking(BagReranker("other", fail_at_call=0), 20))


def test_stopped_anywhere_it_ends_with_the_same_bytes(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from umr.mining import fill

    monkeypatch.setattr(fill, "LISTS_A_SHARD", 5)
    monkeypatch.setattr(fill, "PAIRS_PER_CALL", 64)
    expected = evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), 20)).to_json()
    stops = 0
    while True:
        try:
            resumed = evaluate(BagEncoder(), tree, work_dir=tmp_path, rerank=Reranking(BagReranker(fail_at_call=2), 20))
            break
        except RuntimeError:
            stops += 1
    assert stops > 5
    assert resumed.to_json() == expected


def test_retriever_and_reranker_see_the_same_instruction(tree: Path) -> None:
    first, seeded = BagReranker(), BagReranker()
    evaluate(BagEncoder(), tree, ("local",), ["wiki_task1"], rerank=Reranking(first))
    evaluate(BagEncoder(), tree, ("local",), ["wiki_task1"], instruction="seeded", rerank=Reranking(seeded))
    assert first.instructions == {"Find a text."}
    assert seeded.instructions == {"Find a text.", "Which text matches."}


def test_each_model_sees_queries_cleaned_in_its_own_way(tree: Path) -> None:
    encoder, plain, joined = BagEncoder(), BagReranker(), BagReranker("joined")
    encoder.query_text = joined.query_text = "joined"  # type: ignore[attr-defined]
    for reranker in (plain, joined):
        evaluate(encoder, tree, ("local",), ["wiki_task1"], rerank=Reranking(reranker, 2))
    assert "Red circle." in plain.texts
    assert "red circle." in joined.texts
    assert not plain.texts & joined.texts


def test_changed_pictures_are_judged_anew(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    options = {"pools": ("local",), "tasks": ["shapes_task0"], "work_dir": tmp_path / "work"}
    evaluate(BagEncoder(), copy, rerank=Reranking(BagReranker(), 10), **options)  # type: ignore[arg-type]
    for number in range(36):
        target = copy / "mbeir_images" / f"0-{number}.png"
        target.unlink()
        shutil.copy(copy / "mbeir_images" / "7-11.png", target)
    with pytest.raises(RuntimeError):
        evaluate(BagEncoder(), copy, rerank=Reranking(BagReranker(fail_at_call=0), 10), **options)  # type: ignore[arg-type]


def test_what_the_result_says(tree: Path) -> None:
    weights = Weights(default=0.2, weights={"wiki_task1": 1.5}, split="val", reranker="bag-reranker-bag")
    result = evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), 15, weights))
    content = json.loads(result.to_json())["rerank"]
    assert sorted(content) == ["alone", "chosen", "depth", "fingerprint", "recall", "weights"]
    assert content["weights"] == {"shapes_task0": 0.2, "wiki_task1": 1.5, "fashioniq_task7": 0.2}
    assert (content["depth"], content["chosen"]) == (15, {"split": "val", "reranker": "bag-reranker-bag"})
    text = str(result)
    assert "reranked by bag-reranker" in text and "The first 15 results" in " ".join(text.split())
    assert "1.5" in next(line for line in text.splitlines() if line.strip().startswith("wiki_task1"))
    drawn = Console(width=80, file=StringIO())
    drawn.print(result.table())
    assert all(setting in drawn.file.getvalue() for setting in SETTINGS)  # type: ignore[attr-defined]
    by_number = evaluate(BagEncoder(), tree, tasks=["wiki_task1"], rerank=Reranking(BagReranker(), 15, 1.5))
    assert by_number.settings[0] == result.settings[1]


class TestWeightsOfAnotherModel:
    @pytest.mark.parametrize("chosen_for", [{"retriever": "another"}, {"retriever": "bag-of-words:bag", "reranker": "another"}])
    def test_they_are_refused_before_anything_is_embedded(self, tree: Path, chosen_for: dict[str, str]) -> None:
        weights = Weights(default=0.5, **chosen_for)
        with pytest.raises(RecipeError, match=r"chosen for the re(triever|ranker) another, and this is bag-.*weights_of_another_model"):
            evaluate(BagEncoder(fail_at_call=0), tree, rerank=Reranking(BagReranker(), 10, weights))

    def test_they_are_taken_on_demand_and_the_result_says_whose_they_are(self, tree: Path) -> None:
        plan = Reranking(BagReranker(), 10, Weights(default=0.5, retriever="another"), weights_of_another_model=True)
        found = evaluate(BagEncoder(), tree, ("local",), ["wiki_task1"], rerank=plan)
        assert json.loads(found.to_json())["rerank"]["chosen"] == {"retriever": "another"}

    @pytest.mark.parametrize("weights", [1.0, Weights(default=0.5)])
    def test_a_word_without_effect(self, weights: float | Weights) -> None:
        with pytest.raises(RecipeError, match="weights_of_another_model has no effect"):
            Reranking(BagReranker(), 10, weights, weights_of_another_model=True)


@pytest.mark.parametrize(
    ("plan", "words"),
    [({"depth": 0}, "depth must be at least 1"), ({"weights": -0.1}, "0 or more"), ({"weights": float("nan")}, "0 or more")],
)
def test_bad_plans(plan: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Reranking(BagReranker(), **plan)  # type: ignore[arg-type]


def test_reranking_deeper_than_searching_is_refused(tree: Path) -> None:
    with pytest.raises(RecipeError, match="rerank depth 51 is above the 50 results"):
        evaluate(BagEncoder(), tree, rerank=Reranking(BagReranker(), 51))


def test_a_reranker_that_gives_no_probability_is_named(tree: Path) -> None:
    with pytest.raises(StoreError, match=r"query 0:0.*P\(Yes\) is no probability"):
        evaluate(BagEncoder(), tree, rerank=Reranking(JudgeReranker(lambda qid, did: 3.0)))


class TestChoosing:
    def test_the_curve_is_that_of_evaluations(self, tree: Path, tmp_path: Path) -> None:
        grid = (0.0, 0.4, 2.0)
        chosen = choose_weights(BagEncoder(), BagReranker(), tree, "val", grid, depth=20, work_dir=tmp_path)
        for place, weight in enumerate(grid):
            result = evaluate(BagEncoder(), tree, split="val", work_dir=tmp_path, rerank=Reranking(BagReranker(), 20, weight))
            for one in result.settings:
                point = chosen.curve[one.setting][place]
                assert point.weight == weight
                assert point.main == pytest.approx(np.mean([pool.metrics[one.main_metric] for pool in one.pools.values()]))
                assert point.mrr == pytest.approx(np.mean([pool.metrics["mrr"] for pool in one.pools.values()]))
            assert chosen.common[place].main == pytest.approx(np.mean([result.averages[pool]["main"] for pool in result.pools]))
        for setting, points in chosen.curve.items():
            best = max((round(point.main, 9), round(point.mrr, 9)) for point in points)
            taken = next(point for point in points if point.weight == chosen.of(setting))
            assert (round(taken.main, 9), round(taken.mrr, 9)) == best

    def test_it_trusts_a_reranker_where_it_is_right(self, tree: Path) -> None:
        """Right on shapes, wrong on a few queries of wiki, without an opinion on fashioniq."""
        qrels = {qid: dids for setting in SETTINGS for qid, dids in MBeir(tree).qrels(setting, "val").items()}

        def judge(qid: str, did: str) -> float:
            right = did in qrels.get(qid, ())
            return {"0": float(right), "1": float(not right) if qid in ("1:0", "1:1") else 0.5}.get(qid.split(":")[0], 0.5)

        chosen = choose_weights(BagEncoder(), JudgeReranker(judge), tree, depth=20)
        assert chosen.of("shapes_task0") > 0
        assert chosen.of("wiki_task1") == 0
        assert chosen.default > 0
        assert chosen.of("fashioniq_task7") == chosen.default == chosen.of("unknown_task0")
        assert (chosen.split, chosen.retriever, chosen.reranker, chosen.depth) == ("val", "bag-of-words:bag", "judge", 20)
        best = max((round(point.main, 9), round(point.mrr, 9)) for point in chosen.common)
        assert chosen.default == next(one.weight for one in chosen.common if (round(one.main, 9), round(one.mrr, 9)) == best)

    def test_without_any_difference_the_reranker_has_no_say(self, tree: Path) -> None:
        chosen = choose_weights(BagEncoder(), JudgeReranker(lambda qid, did: 0.5), tree, depth=20)
        assert chosen.default == 0 and set(chosen.weights.values()) == {0.0}

    def test_never_on_test(self, tree: Path) -> None:
        with pytest.raises(RecipeError, match="choose them on val"):
            choose_weights(BagEncoder(), BagReranker(), tree, "test")
        with pytest.raises(RecipeError, match="grid must be weights"):
            choose_weights(BagEncoder(), BagReranker(), tree, grid=(-1.0, 0.0))
        with pytest.raises(DataError, match="no queries of split 'dev'"):
            choose_weights(BagEncoder(), BagReranker(), tree, "dev")

    def test_saved_and_loaded(self, tree: Path, tmp_path: Path) -> None:
        chosen = choose_weights(BagEncoder(), BagReranker(), tree, grid=(0.0, 1.0), depth=10, tasks=["wiki_task1"])
        chosen.save(tmp_path / "weights.json")
        assert Weights.load(tmp_path / "weights.json") == chosen
        content = json.loads((tmp_path / "weights.json").read_text())
        assert (content["format"], content["split"], content["pools"]) == (1, "val", ["local", "global"])

    def test_a_file_by_hand(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.json"
        path.write_text('{"default": 1.0, "weights": {"mscoco_task0": 0.5, "mscoco_task3": 0.1}}')
        weights = Weights.load(path)
        assert [weights.of(name) for name in ("mscoco_task0", "mscoco_task3", "cirr_task7")] == [0.5, 0.1, 1.0]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"default": -1}', "default: .*greater than or equal to 0"),
            ('{"weight": {}}', "weight: Extra inputs"),
            ('{"split": "test"}', "split: .*choose them on val"),
            ('{"format": 2}', "format: "),
            ("nonsense", "is no weights file"),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "weights.json").write_text(text)
        with pytest.raises(RecipeError, match=rf"weights\.json: .*{words}"):
            Weights.load(tmp_path / "weights.json")
        with pytest.raises(RecipeError, match="cannot be read"):
            Weights.load(tmp_path / "missing.json")
