"""Mining end to end on a small tree: no positive is ever a negative, interruptions, run files, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import warm
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.mining import recall as recall_module
from umr.mining.content import Digests
from umr.mining.examine import Block, Examined, examine
from umr.mining.filters import KEPT, NONE, REASONS
from umr.mining.mine import mine_run_with, mine_with
from umr.mining.negatives import NegativeTable
from umr.mining.queries import training_groups
from umr.mining.recall import recall
from umr.mining.runs import RunFile
from umr.mining.settings import MineSettings, from_words, parse
from umr.mining.sources import ModelSource, RunSource, Source, in_runs
from umr.progress import quiet
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder
from unit.mining_tree import QUERIES, right, write_tree


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("mining") / "tree")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors that the tests share."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def runs(tree: Path, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the encoder finds, as a TREC run file for each pool."""
    folder, paths = tmp_path_factory.mktemp("runs"), []
    with quiet():
        for pool in ("local", "global"):
            lines = [
                line for found in recall(BagEncoder(), MBeir(tree), vectors, pools=[pool], depth=30) for line in found.run.trec_lines()
            ]
            paths.append(folder / f"{pool}.trec")
            paths[-1].write_text("".join(lines))
    return paths


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


limits = st.none() | st.floats(0.05, 0.95)
chosen = st.fixed_dictionaries(
    {
        "pools": st.sampled_from([("local",), ("global",), ("local", "global")]),
        "depth": st.integers(5, 150),
        "negatives": st.integers(1, 12),
        "select": st.sampled_from(["top", "random"]),
        "max_similarity": limits,
        "max_relative": limits,
        "margin": st.none() | st.floats(0, 0.3),
        "min_rank": st.integers(1, 5),
        "max_rank": st.none() | st.just(5),
        "max_yes": limits,
        "seed": st.integers(0, 3),
    }
)


class Place:
    """A tree that has been opened once."""

    def __init__(self, tree: Path, vectors: Path, runs: list[Path]) -> None:
        self.benchmark, self.vectors = MBeir(tree), vectors
        self.right = right(tree)
        self.groups = training_groups(self.benchmark)
        self.opened = {metric: [RunFile(path, metric) for path in runs] for metric in (None, "cosine")}

    def look(self, source: Source, wanted: MineSettings) -> list[Examined]:
        pool, reranker = self.benchmark.train_pool(), BagReranker() if wanted.reranker else None
        blocks = [Block(number, start, min(start + 7, QUERIES)) for number in range(len(self.groups)) for start in range(0, QUERIES, 7)]
        digests = Digests(pool)
        return [examine(block, self.groups[block.group], source, wanted, pool, digests, reranker) for block in blocks]

    def check(self, found: list[Examined], wanted: MineSettings) -> None:
        """The promises that hold for every path."""
        dids = np.array(self.benchmark.train_pool().ids[:])
        for one in found:
            assert (one.codes_QW < len(REASONS)).sum() + (one.codes_QW == NONE).sum() == one.codes_QW.size
            assert ((one.codes_QW == NONE) == (one.lists.rows_QW < 0)).all()
            kept = one.codes_QW == KEPT
            open_to_draw = kept | (one.codes_QW == REASONS.index("not drawn"))
            for query in range(len(kept)):
                there = one.lists.rows_QW[query][one.lists.rows_QW[query] >= 0]
                assert len(set(there)) == len(there)
                mine = dids[one.lists.rows_QW[query][kept[query]]]
                assert not set(mine) & self.right[one.group.qids[one.start + query]]
                assert len(mine) <= wanted.negatives
                assert len(mine) == wanted.negatives or open_to_draw[query].sum() == len(mine)
            scores, ranks = one.lists.scores_QW[kept], one.lists.ranks_QW[kept]
            positive = np.broadcast_to(one.positive_Q[:, None], kept.shape)[kept]
            if wanted.max_similarity is not None:
                assert (scores <= np.float32(wanted.max_similarity)).all()
            if wanted.max_relative is not None:
                assert (~(scores > positive - np.float32(1 - wanted.max_relative) * abs(positive))).all()
            if wanted.margin is not None:
                assert (~(scores > positive - np.float32(wanted.margin))).all()
            assert (ranks >= wanted.min_rank).all() and (ranks <= (wanted.max_rank or np.inf)).all()
            if wanted.max_yes is not None:
                assert (one.yes_QW[kept] <= np.float32(wanted.max_yes)).all()


@pytest.fixture(scope="module")
def place(tree: Path, vectors: Path, runs: list[Path]) -> Place:
    return Place(tree, vectors, runs)


slow_is_fine = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@slow_is_fine
@given(values=chosen)
def test_no_positive_is_ever_a_negative_of_a_model(place: Place, values: dict[str, Any]) -> None:
    wanted = MineSettings(**values, reranker="bag" if values["max_yes"] else None)
    found = place.look(ModelSource(BagEncoder(), place.benchmark, place.groups, wanted, place.vectors), wanted)
    place.check(found, wanted)


@slow_is_fine
@given(values=chosen, cosine=st.booleans(), which=st.sampled_from([[0], [1], [0, 1]]))
def test_no_positive_is_ever_a_negative_of_a_run(place: Place, values: dict[str, Any], cosine: bool, which: list[int]) -> None:
    left_out = {"pools", "depth"} | (set() if cosine else {"max_similarity", "max_relative", "margin"})
    values = {key: value for key, value in values.items() if key not in left_out}
    metric = "cosine" if cosine else None
    wanted = MineSettings(**values, reranker="bag" if values["max_yes"] else None).for_runs(metric)
    opened = [place.opened[metric][number] for number in which]
    groups, unknown = in_runs(opened, place.groups)
    assert unknown == 0 and [group.qids for group in groups] == [group.qids for group in place.groups]
    place.check(place.look(RunSource(opened, place.benchmark, groups, "first"), wanted), wanted)


def test_files_say_what_happened_to_every_candidate(tree: Path, vectors: Path, tmp_path: Path) -> None:
    wanted = MineSettings(depth=40, max_similarity=0.8)
    out = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", wanted, vectors)
    assert sorted(contents(out)) == ["audit.parquet", "mining.json", "negatives.parquet", "report.html"]
    audit, negatives, about = rows(out, "audit"), rows(out, "negatives"), json.loads((out / "mining.json").read_text())
    assert sum(one["count"] for one in about["counts"]) == len(audit) == len({(one["qid"], one["did"]) for one in audit})
    kept = {qid: [one["did"] for one in audit if (one["qid"], one["reason"]) == (qid, "kept")] for qid in {one["qid"] for one in audit}}
    assert kept == {one["qid"]: one["negatives"] for one in negatives}
    assert [one["qid"] for one in negatives] == [qid for group in training_groups(MBeir(tree)) for qid in group.qids]
    reasons = {one["reason"] for one in audit}
    assert {"kept", "positive by id", "positive by qrels", "positive by content", "too similar", "not drawn"} <= reasons
    assert {one["setting"] for one in audit} == {"facts_task1", "oven_task1", "infoseek_task1"}
    assert about["queries"]["oven_task1"]["all"] == QUERIES
    table = NegativeTable(out)
    assert len(table) == sum(1 for one in negatives if one["negatives"])
    assert all(table.of(one["qid"]) == tuple(one["negatives"]) for one in negatives)
    assert {did.split(":")[0] for did in table.of("2:11")} == {"5", "6"}  # query 11 calls all of its own data set right
    assert table.of("9:9") == table.of("nobody") == ()
    assert (table.metric, table.model) == ("cosine", "bag-of-words:bag")


def test_local_pools_are_the_data_set_and_oven_shares_with_infoseek(tree: Path, vectors: Path) -> None:
    found = {one.setting: one for one in recall(BagEncoder(), MBeir(tree), vectors, pools=["local"], depth=200)}
    heads = {name: {did.split(":")[0] for did in one.run.dids.to_pylist()} for name, one in found.items()}
    assert heads == {"facts_task1": {"2"}, "oven_task1": {"5", "6"}, "infoseek_task1": {"5", "6"}}
    assert found["facts_task1"].run.rows_QK.shape == (QUERIES, 48)
    assert set(found["oven_task1"].run.qids) == {f"5:{number}" for number in range(QUERIES)}


def test_recall_comes_in_blocks_and_a_share_of_the_queries(tree: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {(one.setting, one.pool): one.run.rankings() for one in recall(BagEncoder(), MBeir(tree), vectors, depth=10)}
    monkeypatch.setattr(recall_module, "BLOCK", 5)
    parts: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in recall(BagEncoder(), MBeir(tree), vectors, depth=10):
        assert len(one.run.qids) <= 5
        parts.setdefault((one.setting, one.pool), {}).update(one.run.rankings())
    assert parts == whole
    some = [qid for one in recall(BagEncoder(), MBeir(tree), vectors, pools=["global"], fraction=0.5, depth=1) for qid in one.run.qids]
    assert len(some) == 3 * QUERIES // 2 and set(some) <= set().union(*whole.values())


def test_a_union_file_alone_is_grouped_by_data_set(tree: Path, tmp_path: Path) -> None:
    whole = tmp_path / "tree"
    for path in ("cand_pool/global", "instructions"):
        (whole / path).parent.mkdir(parents=True, exist_ok=True)
        (whole / path).symlink_to(tree / path)
    lines = [line for path in sorted((tree / "query" / "train").iterdir()) for line in path.read_text().splitlines()]
    union = whole / "query" / "union_train" / "mbeir_union_up_train.jsonl"
    union.parent.mkdir(parents=True)
    union.write_text("\n".join([*lines, lines[0]]))
    groups = training_groups(MBeir(whole))
    assert {group.setting: len(group.qids) for group in groups} == {"webqa_task1": 12, "oven_task1": 12, "infoseek_task1": 12}
    assert groups[0].datasets in ({2}, {5, 6})


def test_evaluation_splits_use_their_own_pools(tmp_path: Path, vectors: Path) -> None:
    from umr.evaluation import evaluate
    from unit.mbeir_fixture import write_tree as write_evaluation_tree

    benchmark = MBeir(write_evaluation_tree(tmp_path / "M-BEIR"))
    expected = evaluate(BagEncoder(), benchmark, depth=20, work_dir=tmp_path / "work").runs
    found = {(one.setting, one.pool): one.run for one in recall(BagEncoder(), benchmark, tmp_path / "work", split="test", depth=20)}
    assert {key: run.rankings() for key, run in found.items()} == {key: run.rankings() for key, run in expected.items()}
    with pytest.raises(DataError, match="no task 'cirr_task7'"):
        list(recall(BagEncoder(), benchmark, tmp_path / "work", split="test", settings=["cirr_task7"]))


def test_stopped_in_the_middle_and_resumed_gives_the_same_bytes(
    tree: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_module, "BLOCK", 5)
    wanted = MineSettings(depth=60, negatives=3, select="random", max_similarity=0.8, reranker="bag", max_yes=0.5)
    straight = mine_with(BagEncoder(), MBeir(tree), tmp_path / "straight", wanted, vectors, reranker=BagReranker())
    for calls in (0, 2, 5):
        with pytest.raises(RuntimeError, match="stopped"):
            mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", wanted, vectors, reranker=BagReranker(fail_at_call=calls))
        assert not (tmp_path / "out" / "mining.json").exists()
        with pytest.raises(DataError, match="no finished mining"):
            NegativeTable(tmp_path / "out")
    assert any((tmp_path / "out" / "parts").glob("*.negatives.parquet"))
    again = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", wanted, vectors, reranker=BagReranker())
    assert contents(again) == contents(straight) and not (again / "parts").exists()


def test_killed_in_the_middle_and_resumed_gives_the_same_bytes(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from umr.data.mbeir import MBeir
        from umr.mining import mine, recall
        from umr.mining.settings import MineSettings
        from unit.mbeir_fixture import BagEncoder

        recall.BLOCK = 5
        tree, out = Path(sys.argv[1]), Path(sys.argv[2])
        write, count = mine.write_part, 0

        def write_or_die(path, table):
            global count
            count += 1
            if count == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, table)

        mine.write_part = write_or_die
        mine.mine_with(BagEncoder(), MBeir(tree), out, MineSettings(depth=50, max_similarity=0.8))
    """
    killed = warm.script(script, tree, tmp_path / "out")
    assert killed.wait() == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "out" / "parts").glob("*.negatives.parquet"))) == 2
    monkeypatch.setattr(recall_module, "BLOCK", 5)
    wanted = MineSettings(depth=50, max_similarity=0.8)
    for name in ("out", "straight"):
        mine_with(BagEncoder(), MBeir(tree), tmp_path / name, wanted)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_start_that_failed_does_not_claim_the_folder(tree: Path, vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training setting"):
        mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", MineSettings(settings=("cirr",)), vectors)
    out = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", MineSettings(settings=("oven",)), vectors)
    assert {one["setting"] for one in rows(out, "negatives")} == {"oven_task1"}


def test_a_finished_folder_is_left_alone_and_another_ones_refused(tree: Path, vectors: Path, tmp_path: Path) -> None:
    out = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", MineSettings(depth=20), vectors)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    mine_with(BagEncoder(), MBeir(tree), out, MineSettings(depth=20), vectors)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(RecipeError, match="mining with depth 20, not 30; choose another folder, or restart"):
        mine_with(BagEncoder(), MBeir(tree), out, MineSettings(depth=30), vectors)
    with pytest.raises(RecipeError, match="mining with model 'bag-of-words:bag', not 'bag-of-words:other'"):
        mine_with(BagEncoder("other"), MBeir(tree), out, MineSettings(depth=20), vectors)
    mine_with(BagEncoder(), MBeir(tree), out, MineSettings(depth=30), vectors, restart=True)
    assert json.loads((out / "mining.json").read_text())["settings"]["depth"] == 30


def test_runs_of_the_same_rankings_give_the_same_negatives(tree: Path, vectors: Path, runs: list[Path], tmp_path: Path) -> None:
    ours = mine_with(BagEncoder(), MBeir(tree), tmp_path / "ours", MineSettings(depth=30, max_relative=0.95), vectors)
    theirs = mine_run_with(runs, MBeir(tree), tmp_path / "theirs", MineSettings(max_relative=0.95), metric="cosine")
    found = [
        sorted((one["qid"], tuple(one["negatives"])) for one in rows(folder, "negatives") if one["positive_score"])
        for folder in (ours, theirs)
    ]
    assert len(found[1]) > QUERIES and set(found[1]) <= set(found[0])
    ranked = mine_run_with(runs[:1], MBeir(tree), tmp_path / "ranked", MineSettings(min_rank=3, max_rank=20))
    assert NegativeTable(ranked).metric == "rank"
    assert {one["pool"] for one in rows(ranked, "audit")} == {"run"}
    assert all(3 <= one["rank"] <= 20 for one in rows(ranked, "audit") if one["reason"] == "kept")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2:0 Q0 2:1 1 0.5", "run.trec:1: needs 6 columns"),
        ("2:0 Q0 77:1 1 0.5 x", "query '2:0': candidate '77:1' is not in"),
        ("2:0 Q0 2:1 one 0.5 x", "rank and score must be numbers"),
        ("2:0 Q0 2:1 1 0.5 x\n2:1 Q0 2:1 1 0.5 x\n2:0 Q0 2:2 2 0.4 x", "run.trec:3: query '2:0' was there before"),
        ("2:0 Q0 2:1 1 0.5 x\n2:0 Q0 2:1 2 0.4 x", "has a candidate twice"),
        ("2:0 Q0 2:1 1 nan x", "not finite"),
        ("2:0 Q0 2:1 1 7.5 x", "no cosines"),
        ("2:0 Q0 2:1 1 0.2 x\n2:0 Q0 2:2 2 0.4 x", "no cosines"),
        ("99:0 Q0 2:1 1 0.5 x", "none of its queries is a training query"),
        ("", "has no lines"),
    ],
)
def test_a_bad_run_file_is_refused(tree: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "run.trec").write_text(line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        mine_run_with([tmp_path / "run.trec"], MBeir(tree), tmp_path / "out", MineSettings(), metric="cosine")
    assert "\n" not in str(caught.value)


def test_filters_on_scores_need_a_metric() -> None:
    for values in ({"max_similarity": 0.7}, {"max_relative": 0.95}, {"margin": 0.1}):
        with pytest.raises(RecipeError, match="needs scores that are cosines"):
            MineSettings(**values).for_runs(None)
        assert MineSettings(**values).for_runs("cosine") == MineSettings(**values)
    assert MineSettings().for_runs(None).max_similarity is None
    with pytest.raises(RecipeError, match="depth has no effect with run files"):
        MineSettings(depth=10).for_runs("cosine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["max_similarty=0.7"], "unknown key 'max_similarty'"),
        (["max_rank=200"], "max_rank=200 has no effect with depth=100"),
        (["min_rank=5", "max_rank=4"], "nothing lies between"),
        (["reranker=somewhere"], "no effect without each other"),
        (["max_yes=0.5"], "no effect without each other"),
        (["pools=[local, local]"], "names a pool twice"),
        (["pools=[]"], "pools"),
        (["negatives=0"], "negatives"),
        (["depth"], "written key=value"),
        (["depth=[1"], "not valid YAML"),
    ],
)
def test_settings_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        from_words(words)


def test_settings_have_the_paper_s_defaults() -> None:
    assert parse({}) == MineSettings(pools=("local", "global"), depth=100, negatives=5, select="top", max_similarity=0.7)


def test_a_table_without_a_declared_metric_is_refused(tree: Path, vectors: Path, tmp_path: Path) -> None:
    out = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", MineSettings(depth=10), vectors)
    file = out / "negatives.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"metric": b"l2"}), file)
    with pytest.raises(DataError, match="does not declare its metric"):
        NegativeTable(out)
    pq.write_table(table.replace_schema_metadata({b"metric": b"cosine", b"format": b"99"}), file)
    with pytest.raises(DataError, match="format 99"):
        NegativeTable(out)
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        NegativeTable(out)


def test_an_unknown_setting_is_refused(tree: Path) -> None:
    with pytest.raises(DataError, match="no training setting 'cirr'; it has facts_task1"):
        training_groups(MBeir(tree), ["cirr"])
    assert [group.setting for group in training_groups(MBeir(tree), ["oven"])] == ["oven_task1"]


def test_the_report_shows_the_likeliest_false_negatives(tree: Path, vectors: Path, tmp_path: Path) -> None:
    out = mine_with(BagEncoder(), MBeir(tree), tmp_path / "out", MineSettings(max_similarity=None), vectors)
    page = (out / "report.html").read_text()
    kept = [one for one in rows(out, "audit") if one["reason"] == "kept" and one["positive_score"] is not None]
    worst = max(kept, key=lambda one: one["score"] - one["positive_score"])
    assert f"score {worst['score']:.3f}, best positive {worst['positive_score']:.3f}" in page
    assert page.index("likeliest") < page.index(f"query {worst['qid']}<") < page.index(f"kept: {worst['did']}<")
    assert "http" not in page and "src='data:image/png" in page
