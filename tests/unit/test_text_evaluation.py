"""Evaluation of text retrieval: nDCG@10 with grades, as ir-measures computes it, and queries that are documents themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data.mbeir_records import is_text_retrieval
from umr.errors import RecipeError
from umr.evaluation import evaluate
from umr.evaluation.declarations import main_metric, metrics_of
from umr.evaluation.metrics import expected_ndcg_at, judge
from umr.progress import quiet
from unit.mbeir_fixture import BagEncoder
from unit.text_set import add_line, write_set

NAMES = {
    "hit@1": "Success@1",
    "hit@10": "Success@10",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "recall@20": "R@20",
    "ndcg@10": "nDCG@10",
    "mrr@10": "RR@10",
}


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


def of_ir_measures(run, qrels):
    import ir_measures

    ranked = {qid: {did: float(-rank) for rank, did in enumerate(dids)} for qid, dids in run.rankings().items()}
    found = {}
    for ours, theirs in NAMES.items():
        values = [one.value for one in ir_measures.iter_calc([ir_measures.parse_measure(theirs)], qrels, ranked)]
        found[ours] = 100 * sum(values) / len(run.qids)
    return found


def test_scores_are_those_of_ir_measures(tmp_path):
    root = write_set(tmp_path / "s")
    add_line(root / "qrels" / "test.tsv", "q/8\tgone\t2")  # as some real sets have it
    add_line(root / "queries.jsonl", {"_id": "unanswered", "text": "red fish"})
    add_line(root / "qrels" / "test.tsv", "unanswered\tdoc 1\t0")
    result = evaluate(BagEncoder(), root)
    assert result.pools == ["local"] and result.mixed_pool is None
    (one,) = result.settings
    assert (one.setting, one.task, one.main_metric, one.queries) == ("s_task10", "text -> text", "ndcg@10", 5)
    qrels = {"unanswered": {"doc 1": 0}}
    for line in (root / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        qid, did, grade = line.split("\t")
        qrels.setdefault(qid, {})[did] = int(grade)
    found = one.pools["local"].metrics
    expected = of_ir_measures(result.runs["s_task10", "local"], qrels)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert 0 < found["ndcg@10"] < 100
    assert result.averages["local"]["main"] == found["ndcg@10"]
    assert json.loads(result.to_json())["settings"][0]["pools"]["local"]["metrics"]["mrr@10"] == found["mrr@10"]
    assert "ndcg@10" in str(result) and "recall@100" not in found and "recall@50" in found


def test_either_pool_is_the_whole_corpus(tmp_path):
    root = write_set(tmp_path / "s")
    local, everything = evaluate(BagEncoder(), root), evaluate(BagEncoder(), root, pools=["global"])
    assert everything.pools == ["local"] and everything == local
    with pytest.raises(RecipeError, match="one pool of texts"):
        evaluate(BagEncoder(), root, modality_filter=True)


def test_a_query_is_no_answer_to_itself(tmp_path):
    root = write_set(tmp_path / "s")
    plain = evaluate(BagEncoder(), root)
    for line in (root / "queries.jsonl").read_text().splitlines()[8:10]:
        add_line(root / "corpus.jsonl", json.loads(line))
    found = evaluate(BagEncoder(), root)
    rankings = found.runs["s_task10", "local"].rankings()
    assert all(qid not in dids for qid, dids in rankings.items())
    assert {len(dids) for dids in rankings.values()} == {25}
    before = plain.runs["s_task10", "local"].rankings()
    for qid, dids in rankings.items():
        assert [did for did in dids if did.startswith("doc")][:20] == before[qid][:20]


def test_the_first_results_are_searched_one_deeper_where_a_query_is_among_them(tmp_path):
    root = write_set(tmp_path / "s")
    add_line(root / "corpus.jsonl", {"_id": "q/8", "title": "", "text": "blue circle n8"})
    result = evaluate(BagEncoder(), root, depth=10)
    run = result.runs["s_task10", "local"]
    assert run.rows_QK.shape == (4, 10) and (np.diff(run.scores_QK) <= 0).all()


def test_an_interrupted_evaluation_goes_on_and_other_judgements_are_other_queries(tmp_path):
    root, work = write_set(tmp_path / "s"), tmp_path / "work"
    first = evaluate(BagEncoder(), root, work_dir=work)
    encoder = BagEncoder()
    assert evaluate(encoder, root, work_dir=work) == first and encoder.calls == []
    path = root / "qrels" / "test.tsv"
    path.write_text(path.read_text().replace("q/8", "q/0"))
    assert evaluate(encoder, root, work_dir=work).runs["s_task10", "local"].qids[0] == "q/0" and encoder.calls


def test_names():
    assert is_text_retrieval("a_task1_task10") and not is_text_retrieval("facts_task1")
    assert main_metric("x_task10") == "ndcg@10" and main_metric("facts_task1") == "hit@5" and main_metric("fashioniq_task7") == "hit@10"
    assert "mrr@10" not in metrics_of("facts_task1", 50) and "recall@100" in metrics_of("x_task10", 100)
    assert {"mrr", "recall@10"} <= metrics_of("x_task10", 10).keys() and "recall@20" not in metrics_of("x_task10", 10)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=14), st.integers(0, 2**32 - 1))
def test_chance_is_the_mean_over_all_orders(grades, seed):
    dids = [f"d{n}" for n in range(len(grades))]
    qrels = {"q": {did: grade for did, grade in zip(dids, grades, strict=True) if grade}}
    judged = judge(["q"], {}, qrels, 10)
    chance = expected_ndcg_at(judged, np.array([float(sum(grades))]), len(dids), 10)[0]
    # By the linearity of the mean: every document is as often in each place.
    places = range(min(10, len(dids)))
    ideal = sum(g / np.log2(k + 2) for k, g in enumerate(sorted(grades, reverse=True)[:10]))
    plain = sum(grades) / len(dids) * sum(1 / np.log2(k + 2) for k in places) / ideal if ideal else 0
    assert chance == pytest.approx(plain)
    assert 0 <= chance <= 1 + 1e-9


def test_trec_runs(tmp_path):
    root = write_set(tmp_path / "s")
    for path in root.rglob("*.*"):
        path.write_text(path.read_text().replace("doc ", "doc-"))
    result = evaluate(BagEncoder(), root)
    (path,) = result.write_run_trec(tmp_path / "runs")
    assert Path(path).name == "s_task10_local.trec"
    first = path.read_text().splitlines()[0].split()
    assert len(first) == 6 and first[0] == "q/8" and first[3] == "1"
