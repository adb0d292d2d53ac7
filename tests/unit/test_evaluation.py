"""Evaluation end to end on a small tree: against a slow and plain computation, repeated, interrupted, and with bad input."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import warm
from umr.data.instructions import choose
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.declarations import main_metric
from umr.progress import quiet
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "M-BEIR")


@pytest.fixture(scope="module")
def result(tree: Path) -> EvaluationResult:
    with quiet():
        return evaluate(BagEncoder(), tree)


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


def as_stored(vector_1D: np.ndarray) -> np.ndarray:
    half_1D = vector_1D.astype(np.float16).astype(np.float32)
    return (half_1D / np.linalg.norm(half_1D, axis=1, keepdims=True))[0].astype(np.float64)


def plain_rankings(tree: Path, setting: str, pool_name: str) -> dict[str, list[str]]:
    """The rankings that one loop over queries and candidates gives, with fp16 vectors as the store has them."""
    benchmark, encoder = MBeir(tree), BagEncoder()
    pool = benchmark.pool(setting, "test") if pool_name == "local" else benchmark.global_pool("test")
    candidates = [as_stored(encoder.encode([item])) for item in pool.items()]
    rankings = {}
    for query in benchmark.queries(setting, "test"):
        vector = as_stored(encoder.encode([query.item], "query", choose(query.instructions, query.qid)))
        scores = [np.float32(vector @ candidate) for candidate in candidates]
        rankings[query.qid] = [pool.ids[row] for row in sorted(range(len(pool)), key=lambda row: (-scores[row], row))]
    return rankings


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("pool_name", ["local", "global"])
def test_scores_are_those_of_a_plain_loop_and_ir_measures(tree: Path, result: EvaluationResult, setting: str, pool_name: str) -> None:
    import ir_measures

    rankings = plain_rankings(tree, setting, pool_name)
    assert result.runs[setting, pool_name].rankings() == {qid: dids[:50] for qid, dids in rankings.items()}
    run = {qid: {did: float(-rank) for rank, did in enumerate(dids[:50])} for qid, dids in rankings.items()}
    qrels = MBeir(tree).qrels(setting, "test")
    found = next(one for one in result.settings if one.setting == setting).pools[pool_name].metrics
    names = {"hit@1": "Success@1", "hit@5": "Success@5", "hit@10": "Success@10", "recall@5": "R@5", "recall@10": "R@10"}
    for ours, theirs in {**names, "ndcg@10": "nDCG@10", "mrr": "RR"}.items():
        per_query = [value.value for value in ir_measures.iter_calc([ir_measures.parse_measure(theirs)], qrels, run)]
        assert found[ours] == pytest.approx(100 * sum(per_query) / 12, abs=1e-7)


def test_what_the_result_says(tree: Path, result: EvaluationResult) -> None:
    content = json.loads(result.to_json())
    assert [one["setting"] for one in content["settings"]] == list(SETTINGS)
    assert content["model"] == {"fingerprint": "bag-of-words:bag", "dimension": BagEncoder.dimension}
    assert content["data"] == {
        "fingerprint": MBeir(tree).fingerprint("test", list(SETTINGS)),
        "split": "test",
        "left_out": {"queries": 0, "local candidates": 0, "global candidates": 0},
    }
    first = content["settings"][0]
    assert (first["task"], first["main_metric"], first["queries"]) == ("text -> image", "hit@5", 12)
    assert (first["pools"]["local"]["size"], first["pools"]["global"]["size"]) == (36, 112)
    mains = [one.pools["global"].metrics[one.main_metric] for one in result.settings]
    assert [one.main_metric for one in result.settings] == ["hit@5", "hit@5", "hit@10"]
    assert result.averages["global"]["main"] == pytest.approx(sum(mains) / 3)
    assert str(tree) not in result.to_json()


def test_chance_counts_positives_in_the_pool_only(result: EvaluationResult) -> None:
    # wiki: 12 queries; 5 has no positive, 3 has one outside the local pool; 4 and 8 have two; 0 has the same one twice.
    wiki = next(one for one in result.settings if one.setting == "wiki_task1")
    two = 1 - (31 * 30) / (36 * 35)  # neither of two positives among five of 36
    assert wiki.pools["local"].chance["hit@5"] == pytest.approx(100 * (8 * 5 / 36 + 2 * two) / 12)
    assert wiki.pools["global"].chance["hit@1"] == pytest.approx(100 * (9 * 1 / 112 + 2 * 2 / 112) / 12)


def test_modality_accuracy_looks_at_the_first_global_result(tree: Path, result: EvaluationResult) -> None:
    pool = MBeir(tree).global_pool("test")
    for one in result.settings:
        wanted = one.task.split(" -> ")[1]
        first = [pool.modality(dids[0]) for dids in result.runs[one.setting, "global"].rankings().values()]
        assert one.pools["global"].metrics["modality_accuracy@1"] == pytest.approx(100 * sum(m == wanted for m in first) / 12)
        assert "modality_accuracy@1" not in one.pools["local"].metrics


def test_the_same_again_without_the_model(tree: Path, result: EvaluationResult, tmp_path: Path) -> None:
    expected = evaluate(BagEncoder(), tree, work_dir=tmp_path).to_json()
    again = evaluate(BagEncoder(fail_at_call=0), tree, work_dir=tmp_path)
    assert again.to_json() == expected == result.to_json()
    other = evaluate(BagEncoder("other"), tree, work_dir=tmp_path)
    assert other.fingerprint != result.fingerprint
    assert other.settings == result.settings


def test_each_candidate_is_embedded_once(tree: Path, tmp_path: Path) -> None:
    encoder = BagEncoder()
    evaluate(encoder, tree, work_dir=tmp_path)
    assert sum(encoder.calls) == 3 * 12 + 112


def test_a_few_tasks_first_then_all(tree: Path, result: EvaluationResult, tmp_path: Path) -> None:
    encoder = BagEncoder()
    part = evaluate(encoder, tree, ("global",), ["wiki_task1"], work_dir=tmp_path)
    assert [one.setting for one in part.settings] == ["wiki_task1"]
    assert part.settings[0].pools == {"global": result.settings[1].pools["global"]}
    assert evaluate(encoder, tree, work_dir=tmp_path).to_json() == result.to_json()
    assert sum(encoder.calls) == 3 * 12 + 112


def test_a_global_pool_alone_is_enough(tree: Path, result: EvaluationResult, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    shutil.rmtree(copy / "cand_pool" / "local")
    found = evaluate(BagEncoder(), copy, ("global",))
    assert [one.pools["global"] for one in found.settings] == [one.pools["global"] for one in result.settings]


def test_stopped_anywhere_it_ends_with_the_same_bytes(tree: Path, result: EvaluationResult, tmp_path: Path) -> None:
    stops = 0
    while True:
        try:
            resumed = evaluate(BagEncoder(fail_at_call=1), tree, work_dir=tmp_path)
            break
        except RuntimeError:
            stops += 1
    assert stops == 6  # 3 query stores, 3 local pools, the rest of the global one: one a run
    assert resumed.to_json() == result.to_json()


def test_killed_by_signal_it_ends_with_the_same_bytes(tree: Path, result: EvaluationResult, tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from unit.mbeir_fixture import BagEncoder
        from umr.evaluation import evaluate
        class Killed(BagEncoder):
            def encode(self, items, side="candidate", instruction=None):
                if len(self.calls) == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode(items, side, instruction)
        evaluate(Killed(), Path(sys.argv[1]), work_dir=Path(sys.argv[2]))
    """
    killed = warm.script(script, tree, tmp_path)
    assert killed.wait() == -signal.SIGKILL, killed.stderr
    encoder = BagEncoder()
    assert evaluate(encoder, tree, work_dir=tmp_path).to_json() == result.to_json()
    assert len(encoder.calls) == 3


def test_changed_pictures_are_not_taken_from_the_store(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    before = evaluate(BagEncoder(), copy, ("local",), ["shapes_task0"], work_dir=tmp_path / "work")
    (copy / "mbeir_images" / "0-0.png").rename(copy / "kept.png")
    for number in range(36):
        shutil.copy(copy / "kept.png", copy / "mbeir_images" / f"0-{number}.png")
    after = evaluate(BagEncoder(), copy, ("local",), ["shapes_task0"], work_dir=tmp_path / "work")
    assert after.settings[0].pools["local"].metrics != before.settings[0].pools["local"].metrics


def test_seeded_wordings_differ_from_the_first_and_repeat(tree: Path, result: EvaluationResult) -> None:
    seeded = [evaluate(BagEncoder(), tree, ("local",), instruction="seeded") for _ in range(2)]
    assert seeded[0].to_json() == seeded[1].to_json()
    scores = [one.runs["wiki_task1", "local"].scores_QK for one in (seeded[0], result)]
    assert not np.array_equal(*scores)


def test_what_is_left_out_is_counted(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / "mbeir_images" / "0-7.png").unlink()
    (copy / "mbeir_images" / "q7-3.png").unlink()
    found = evaluate(BagEncoder(), MBeir(copy, on_error="skip"))
    assert found.left_out == {"queries": 1, "local candidates": 1, "global candidates": 1}
    assert [one.queries for one in found.settings] == [12, 12, 11]
    assert found.settings[0].pools["local"].size == 35


def test_tables_and_run_files(result: EvaluationResult, tmp_path: Path) -> None:
    text = str(result)
    rows = [line for line in text.splitlines() if "_task" in line]
    assert len(rows) == 3
    for one, row in zip(result.settings, rows, strict=True):
        for pool in ("local", "global"):
            assert f"{one.pools[pool].metrics[one.main_metric]:.1f}" in row
    assert f"{result.averages['local']['main']:.1f}" in text
    paths = result.write_run_trec(tmp_path)
    assert len(paths) == 6
    lines = (tmp_path / "shapes_task0_local.trec").read_text().splitlines()
    assert len(lines) == 12 * 36
    qid, q0, did, rank, score, name = lines[0].split()
    assert (qid, q0, rank, name) == ("0:0", "Q0", "1", "umr")
    assert did == result.runs["shapes_task0", "local"].rankings()["0:0"][0]
    assert np.float32(score) == result.runs["shapes_task0", "local"].scores_QK[0, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"pools": ()}, RecipeError, "pools must be some of local, global"),
        ({"pools": ("union",)}, RecipeError, "not union"),
        ({"depth": 9}, RecipeError, "at least 10"),
        ({"instruction": "random"}, RecipeError, "one of first, seeded, none"),
        ({"tasks": []}, RecipeError, "tasks is empty"),
        ({"tasks": ["cirr_task7"]}, DataError, "no task 'cirr_task7'.*shapes_task0"),
        ({"split": "val"}, DataError, "no queries of split 'val'"),
        ({"benchmark": Path("/nowhere")}, DataError, "not an M-BEIR folder"),
    ],
)
def test_bad_arguments(tree: Path, arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        evaluate(BagEncoder(), **{"benchmark": tree, **arguments})  # type: ignore[arg-type]


def test_empty_files(tree: Path, tmp_path: Path) -> None:
    for folder in ("query/test/mbeir_wiki_task1_test.jsonl", "cand_pool/local/mbeir_wiki_task1_cand_pool.jsonl"):
        copy = tmp_path / Path(folder).name
        shutil.copytree(tree, copy)
        (copy / folder).write_text("")
        with pytest.raises(DataError, match=rf"{Path(folder).name}: has no usable"):
            evaluate(BagEncoder(), copy, tasks=["wiki_task1"])


def test_main_metric_follows_m_beir() -> None:
    assert [main_metric(name) for name in ("mscoco_task0", "fashion200k_task3", "fashioniq_task7", "cirr_task7")] == [
        "hit@5",
        "hit@10",
        "hit@10",
        "hit@5",
    ]
