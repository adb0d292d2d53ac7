"""Modality-aware mining end to end on a pool of several modalities: every path keeps its promises, resumes, and is reported."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from umr.data.benchmark import open_benchmark
from umr.data.mbeir import MBeir
from umr.data.mbeir_records import TASKS
from umr.errors import RecipeError
from umr.mining import recall as recall_module
from umr.mining.content import Digests
from umr.mining.examine import Block, examine
from umr.mining.mine import mine_run_with, mine_with
from umr.mining.negatives import NegativeTable
from umr.mining.queries import training_groups
from umr.mining.recall import recall
from umr.mining.runs import RunFile
from umr.mining.settings import MineSettings
from umr.mining.sources import ModelSource, RunSource, Source
from umr.progress import quiet
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder
from unit.mixed_tree import QUERIES, right, write_tree

PAPER: dict[str, Any] = {"depth": 50, "negatives": 1, "select": "random", "modality_aware": {}}


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


class Place:
    """A tree that has been opened once, and what the encoder finds in its pool."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.vectors = write_tree(folder / "tree"), folder / "vectors"
        self.benchmark, self.right = MBeir(self.tree), right(self.tree)
        self.groups, self.pool = training_groups(self.benchmark), self.benchmark.train_pool()
        ids = list(self.pool.ids)
        self.labelled = {
            qid: {ids[row] for row in (*group.positives[number], *group.judged[number])}
            for group in self.groups
            for number, qid in enumerate(group.qids)
        }
        self.modality = {did: self.pool.modality(did) for did in self.pool.ids}
        self.ranking: dict[str, list[str]] = {}
        self.run = folder / "global.trec"
        lines: list[str] = []
        for found in recall(BagEncoder(), self.benchmark, self.vectors, pools=["global"], depth=len(self.pool)):
            self.ranking |= found.run.rankings()
            lines += found.run.trec_lines()
        self.run.write_text("".join(lines))
        self.opened = {metric: RunFile(self.run, metric) for metric in (None, "cosine")}

    def model(self, wanted: MineSettings) -> Source:
        return ModelSource(BagEncoder(), self.benchmark, self.groups, wanted, self.vectors)

    def audit(self, source: Source, wanted: MineSettings) -> list[dict[str, Any]]:
        digests, reranker = Digests(self.pool), BagReranker() if wanted.reranker else None
        rows: list[dict[str, Any]] = []
        for number, group in enumerate(self.groups):
            for start in range(0, QUERIES, 5):
                block = Block(number, start, min(start + 5, QUERIES))
                found = examine(block, group, source, wanted, self.pool, digests, reranker)
                own = found.audit(source.columns).to_pylist()
                rows += own
                kept = [one["did"] for one in own if one["reason"] == "kept"]
                assert kept == [did for dids in found.negatives(source.columns)["negatives"].to_pylist() for did in dids]
        return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with quiet():
        return Place(tmp_path_factory.mktemp("mixed"))


def by_query(audit: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in audit:
        found.setdefault(one["qid"], []).append(one)
    return found


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


limits = st.none() | st.floats(0.2, 0.95)
chosen = st.fixed_dictionaries(
    {
        "depth": st.integers(6, 90),
        "negatives": st.integers(1, 9),
        "select": st.sampled_from(["top", "random"]),
        "max_similarity": limits | st.fixed_dictionaries({"text->image": limits, "image->text": limits}),
        "max_relative": limits,
        "margin": st.none() | st.floats(0, 0.3),
        "max_yes": st.none() | st.floats(0.2, 0.9),
        "seed": st.integers(0, 3),
        "share": st.sampled_from([0.0, 0.5, 1.0]),
        "cut": st.none() | st.integers(1, 5),
    }
)


everything: dict[str, Any] = {  # short lists and many negatives, so that all of the pool is drawn
    **dict.fromkeys(("max_similarity", "max_relative", "margin", "max_yes", "cut")),
    **{"depth": 6, "negatives": 40, "select": "random", "seed": 0, "share": 0.5},
}


def settings_of(values: dict[str, Any], leave_out: set[str] = frozenset()) -> MineSettings:  # type: ignore[assignment]
    rest = {key: value for key, value in values.items() if key not in leave_out | {"share", "cut"}}
    aware = {"wrong_modality_share": values["share"], "right_after_rank": values["cut"]}
    return MineSettings(**rest, modality_aware=aware, reranker="bag" if values["max_yes"] else None)


def check(place: Place, audit: list[dict[str, Any]], wanted: MineSettings, depth: int, scored: bool) -> None:
    """The promises of modality-aware mining, in terms of ids and whole rankings."""
    cut = wanted.modality_aware.right_after_rank or 0 if wanted.modality_aware else 0
    assert set(by_query(audit)) == {qid for group in place.groups for qid in group.qids}
    for qid, own in by_query(audit).items():
        asking, target = TASKS[int(qid[0])]
        ranking, labelled = place.ranking[qid][:depth], place.right[qid]
        found, drawn = [one for one in own if one["set"] != "fallback"], [one for one in own if one["set"] == "fallback"]
        kept = [one["did"] for one in own if one["reason"] == "kept"]
        assert [one["did"] for one in found] == ranking and len({one["did"] for one in own}) == len(own)
        assert not set(kept) & labelled and len(kept) <= wanted.negatives and qid not in {one["did"] for one in drawn}
        assert {one["query_modality"] for one in own} == {asking}
        marked = {one["did"] for one in own if one["reason"] in ("positive by id", "positive by qrels")}
        first = min((ranking.index(did) for did in marked), default=len(ranking))
        for rank, one in enumerate(found, 1):
            wrong, right_place = place.modality[one["did"]] != target, rank > cut
            assert one["modality"] == place.modality[one["did"]] and one["rank"] == rank
            if one["did"] in marked:
                assert one["set"] is None
            elif wrong:
                assert (one["set"] == "C1") == (rank - 1 < first) and (one["set"] or one["reason"] == "wrong modality below the positive")
            elif not right_place:
                assert (one["set"], one["reason"]) == (None, "right modality ranked early")
            else:
                assert (one["set"] == "C2") == (one["reason"] not in ("too similar", "near the positive", "within margin"))
        if drawn:
            assert {one["reason"] for one in found if one["set"]} <= {"kept", "positive by content", "reranker agrees"}
            assert all((one["rank"], one["modality"]) == (None, target) and one["did"] not in ranking for one in drawn)
            assert not place.labelled[qid] & {one["did"] for one in drawn} and all((one["score"] is not None) == scored for one in drawn)
        if len(kept) < wanted.negatives:  # only where the pool has no more: every one of its candidates was looked at
            others = {did for did, modality in place.modality.items() if modality == target} - set(ranking) - {qid}
            assert others - {one["did"] for one in drawn} <= labelled
        limit = wanted.max_similarity
        limit = limit.get(f"{asking}->{target}") if isinstance(limit, dict) else limit
        if limit is not None and scored:
            assert all(one["score"] <= np.float32(limit) for one in own if one["reason"] == "kept" and one["set"] != "C1")


quick = (Phase.explicit, Phase.reuse, Phase.generate)  # without shrinking: an example here is a tree searched, and is read easily
some = settings(
    max_examples=15, deadline=None, phases=quick, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@some
@given(values=chosen)
@example(values=everything)
def test_sets_and_negatives_of_a_model_are_those_of_the_definition(place: Place, values: dict[str, Any]) -> None:
    wanted = settings_of(values)
    check(place, place.audit(place.model(wanted), wanted), wanted, values["depth"], scored=True)


@some
@given(values=chosen)
def test_sets_and_negatives_of_a_run_are_those_of_the_definition(place: Place, values: dict[str, Any]) -> None:
    wanted = settings_of(values, {"depth", "max_similarity", "max_relative", "margin"}).for_runs(None)
    check(place, place.audit(RunSource([place.opened[None]], place.benchmark, place.groups, "first"), wanted), wanted, 999, scored=False)


@some
@given(quotas=st.dictionaries(st.sampled_from(["text", "image", "image,text"]), st.integers(1, 3), min_size=1), values=chosen)
def test_quotas_hold_and_no_positive_is_kept(place: Place, quotas: dict[str, int], values: dict[str, Any]) -> None:
    rest = {key: value for key, value in values.items() if key not in ("negatives", "share", "cut", "max_yes")}
    wanted = MineSettings(**rest, quotas=quotas)
    for qid, own in by_query(place.audit(place.model(wanted), wanted)).items():
        kept = [one for one in own if one["reason"] == "kept"]
        assert not {one["did"] for one in kept} & place.right[qid] and {one["set"] for one in own} == {None}
        for modality in ("text", "image", "image,text"):
            count = sum(one["modality"] == modality for one in kept)
            assert count <= quotas.get(modality, 0)
            over = [one for one in own if one["modality"] == modality and one["reason"] == "not drawn"]
            assert not over or count == quotas[modality]
            dropped = {one["reason"] for one in own if one["modality"] == modality}
            assert ("modality without quota" in dropped) <= (modality not in quotas)


def test_the_paper_s_settings_draw_both_sets(place: Place, tmp_path: Path) -> None:
    values = {**PAPER, "negatives": 4}
    out = mine_with(BagEncoder(), place.benchmark, tmp_path / "out", MineSettings(**values), place.vectors)
    audit, about = rows(out, "audit"), json.loads((out / "mining.json").read_text())
    assert {one["set"] for one in audit if one["reason"] == "kept"} == {"C1", "C2", "fallback"}
    assert all(len(one["negatives"]) == 4 for one in rows(out, "negatives"))
    assert sum(one["count"] for one in about["counts"]) == len(audit)
    assert {one["set"] for one in about["counts"]} == {"C1", "C2", "fallback", None}
    assert about["settings"]["modality_aware"] == {"right_after_rank": 45, "wrong_modality_share": 0.5}
    page, kept = (out / "report.html").read_text(), [one for one in audit if one["reason"] == "kept"]
    count = {name: sum(one["set"] == name for one in kept) for name in ("C1", "C2", "fallback")}
    cells = "".join(f"<td>{number} ({100 * number / len(kept):.1f})</td>" for number in (*count.values(), len(kept)))
    assert f"<tr><td>all</td>{cells}</tr>" in page
    for pair in {(one["query_modality"], one["modality"]) for one in kept}:
        assert f"<tr><td>{'-&gt;'.join(pair)}</td>" in page


def test_a_seed_decides_everything(place: Place, tmp_path: Path) -> None:
    def mined(name: str) -> Path:
        return mine_with(BagEncoder(), place.benchmark, tmp_path / name, MineSettings(**PAPER, seed=1), place.vectors)

    first = mined("first")
    assert contents(mined("again")) == contents(first)
    same, other = (MineSettings(**PAPER, seed=seed) for seed in (1, 2))
    assert place.audit(place.model(same), same) == rows(first, "audit")  # looked at in smaller blocks
    assert place.audit(place.model(other), other) != rows(first, "audit")


def test_stopped_in_the_middle_and_resumed_gives_the_same_bytes(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_module, "BLOCK", 3)
    values = {**PAPER, "negatives": 4, "modality_aware": {"right_after_rank": 40}, "reranker": "bag", "max_yes": 0.5}
    wanted = MineSettings(**values)
    straight = mine_with(BagEncoder(), place.benchmark, tmp_path / "straight", wanted, place.vectors, reranker=BagReranker())
    assert {one["set"] for one in rows(straight, "audit") if one["reason"] == "kept"} >= {"C1", "fallback"}
    for calls in (1, 12):
        with pytest.raises(RuntimeError, match="stopped"):
            mine_with(BagEncoder(), place.benchmark, tmp_path / "out", wanted, place.vectors, reranker=BagReranker(fail_at_call=calls))
    assert any((tmp_path / "out" / "parts").glob("*.negatives.parquet"))
    again = mine_with(BagEncoder(), place.benchmark, tmp_path / "out", wanted, place.vectors, reranker=BagReranker())
    assert contents(again) == contents(straight)


def test_a_run_of_the_model_s_rankings_gives_the_model_s_negatives(place: Place, tmp_path: Path) -> None:
    values = {**PAPER, "depth": 100, "negatives": 3}
    ours = mine_with(BagEncoder(), place.benchmark, tmp_path / "ours", MineSettings(**values), place.vectors)
    del values["depth"]
    theirs = mine_run_with([place.run], place.benchmark, tmp_path / "theirs", MineSettings(**values))
    assert {one["qid"]: one["negatives"] for one in rows(ours, "negatives")} == {
        one["qid"]: one["negatives"] for one in rows(theirs, "negatives")
    }
    assert NegativeTable(theirs).metric == "rank"
    shallow = mine_run_with([place.run], place.benchmark, tmp_path / "shallow", MineSettings(**values, max_rank=50))
    assert all(one["reason"] != "kept" or one["rank"] <= 50 for one in rows(shallow, "audit") if one["set"] != "fallback")
    with pytest.raises(RecipeError, match="needs one ranking; give one run file"):
        mine_run_with([place.run, place.run], place.benchmark, tmp_path / "two", MineSettings(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"max_similarity": {"image,text->text": 0.5}},
            "max_similarity: image,text->text has no effect: no query mined for is of modality",
        ),
        ({"margin": {"text->video": 0.5}}, "has no candidate of modality video"),
        ({"max_relative": {"image->image": 0.9}, "pools": ["local"]}, "no query of modality image looks for image, and local pools have"),
        ({"max_relative": {"image->image": 0.9}, "modality_aware": {}}, "looks for image, and modality_aware filters only it"),
        ({"quotas": {"text": 1, "video": 1}}, "has no candidate of modality video"),
    ],
)
def test_what_the_data_leaves_without_effect_is_refused_before_anything_is_embedded(
    place: Place, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    encoder = BagEncoder()
    with pytest.raises(RecipeError, match=message):
        mine_with(encoder, place.benchmark, tmp_path / "out", MineSettings(**values))
    assert encoder.calls == []


def test_a_pool_of_one_modality_has_no_wrong_one(tmp_path: Path) -> None:
    from unit.mining_tree import write_tree as write_texts

    benchmark = MBeir(write_texts(tmp_path / "tree"))
    with pytest.raises(RecipeError, match="all candidates are of one modality; modality_aware needs others"):
        mine_with(BagEncoder(), benchmark, tmp_path / "out", MineSettings(**PAPER))
    values = {**PAPER, "modality_aware": {"wrong_modality_share": 0}}
    out = mine_with(BagEncoder(), benchmark, tmp_path / "out", MineSettings(**values))
    assert {one["set"] for one in rows(out, "audit") if one["reason"] == "kept"} == {"C2"}


def test_a_query_that_is_a_document_is_no_negative_of_itself(tmp_path: Path) -> None:
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{number}", "text": f"thing n{number}"} for number in range(9)]
    for name in ("corpus", "queries"):
        (tmp_path / "set" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (tmp_path / "set" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nd0\td1\t1\nd3\td2\t1\n")
    ranked = {"d0": [0, 1, 2, 3], "d3": [2, 3, 4, 5]}
    run = [f"{qid} Q0 d{number} {rank} 0 x\n" for qid, numbers in ranked.items() for rank, number in enumerate(numbers, 1)]
    (tmp_path / "run.trec").write_text("".join(run))
    out = mine_run_with([tmp_path / "run.trec"], open_benchmark(tmp_path / "set"), tmp_path / "out", MineSettings(min_rank=2))
    assert {one["qid"]: one["negatives"] for one in rows(out, "negatives")} == {"d0": ["d2", "d3"], "d3": ["d4", "d5"]}
    aware = MineSettings(negatives=20, modality_aware={"wrong_modality_share": 0, "right_after_rank": None})
    out = mine_run_with([tmp_path / "run.trec"], open_benchmark(tmp_path / "set"), tmp_path / "filled", aware)
    everything = {f"d{number}" for number in range(9)}
    assert {one["qid"]: set(one["negatives"]) for one in rows(out, "negatives")} == {
        "d0": everything - {"d0", "d1"},
        "d3": everything - {"d2", "d3"},
    }
