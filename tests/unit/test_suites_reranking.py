"""Reranking on zero-shot suites: the order of cosine + weight * P(Yes), kept probabilities, and what stays as it was."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from umr.errors import RecipeError
from umr.evaluation.suites import SuiteReranking, evaluate_suite, open_suite
from umr.progress import quiet
from unit import suite_folders as folders
from unit.bag_reranker import BagReranker, JudgeReranker
from unit.suite_folders import SceneEncoder


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


def opinion(qid: str, did: str) -> float:
    """A reranker's, which has nothing to do with the cosine."""
    return zlib.crc32(f"{qid} {did}".encode()) % 1000 / 1000


def test_the_first_results_are_in_the_order_of_the_sum(tmp_path: Path):
    root, work = folders.sharegpt4v(tmp_path / "data"), tmp_path / "work"
    plain = evaluate_suite(SceneEncoder(), "sharegpt4v", root, work)
    result = evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(JudgeReranker(opinion), depth=4, weight=0.7))
    for task, before, after in zip(open_suite("sharegpt4v", root).tasks, plain.tasks, result.tasks, strict=True):
        for qid, dids in before.ranked.dids.items():
            cosines = dict(zip(dids, before.ranked.scores[qid], strict=True))
            fused = {did: cosines[did] + 0.7 * np.float32(opinion(qid, did)) for did in dids[:4]}
            assert after.ranked.dids[qid] == [*sorted(fused, key=lambda did: -fused[did]), *dids[4:]]
        assert after.searched == before.metrics
        firsts = [dids[0] in task.protocol.right[qid] for qid, dids in after.ranked.dids.items()]
        assert after.metrics["hit@1"] == pytest.approx(100 * np.mean(firsts))
    assert any(one.metrics != one.searched for one in result.tasks)
    content = json.loads(result.to_json())
    assert content["rerank"] == {"fingerprint": "judge", "depth": 4, "weight": 0.7} and "searched" in content["tasks"][0]
    assert (
        "search alone" in str(result)
        and "rerank" not in json.loads(plain.to_json())
        and "searched" not in json.loads(plain.to_json())["tasks"][0]
    )


def test_probabilities_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("umr.evaluation.suites.reranking.QUERIES", 4)
    root, work = folders.sharegpt4v(tmp_path / "data"), tmp_path / "work"
    with pytest.raises(RuntimeError):
        evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(BagReranker(fail_at_call=4)))
    reranker = BagReranker()
    result = evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(reranker))
    assert len(reranker.asked) == 2, "four of six parts were there"
    again = BagReranker()
    assert evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(again)).to_json() == result.to_json()
    evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(again, weight=2.0))
    assert again.asked == []
    for path in work.rglob("yes/*.npy"):
        path.write_bytes(path.read_bytes()[:-3])
    evaluate_suite(SceneEncoder(), "sharegpt4v", root, work, rerank=SuiteReranking(again, depth=9))
    assert len(again.asked) == 6, "damaged files are made again"


def test_pairs_of_captions(tmp_path: Path):
    root = folders.ccneg(tmp_path)
    knows = SuiteReranking(JudgeReranker(lambda qid, did: float(did.startswith("right"))), weight=9.0)
    assert evaluate_suite(SceneEncoder(), "ccneg", root, rerank=knows).tasks[0].metrics == {"accuracy": 100}
    same = SuiteReranking(JudgeReranker(lambda qid, did: 0.5))
    (one,) = evaluate_suite(SceneEncoder(), "ccneg", root, rerank=same).tasks
    assert one.metrics == one.searched


@pytest.mark.parametrize("settings", [{"depth": 0}, {"depth": 51}, {"weight": -1.0}, {"weight": float("nan")}])
def test_settings_without_meaning(settings):
    with pytest.raises(RecipeError, match="rerank"):
        SuiteReranking(BagReranker(), **settings)
