"""`score` end to end: the lists of recall with the reranker's opinion, killed anywhere, several teachers, and the command line."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import warm
from pipeline.training_data import write_model, write_tree
from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import RecipeError, StoreError
from umr.mining import fill
from umr.mining.queries import training_groups
from umr.mining.recall import recall
from umr.mining.scores import ScoreTable
from umr.mining.scoring import ScoreSettings, parse, score
from umr.progress import quiet
from umr.rendering.pairs import Pair
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder

ALL = ScoreSettings(fraction=1.0, depth=12)


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "LISTS_A_SHARD", 5)
    monkeypatch.setattr(fill, "PAIRS_PER_CALL", 40)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The retriever's vectors, made once."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def straight(tree: Path, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table made without interruption, in small shards."""
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "LISTS_A_SHARD", 5)
        patch.setattr(fill, "PAIRS_PER_CALL", 40)
        return score(BagEncoder(), BagReranker(), tree, tmp_path_factory.mktemp("straight") / "table", ALL, vectors)


def contents(table: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in table.iterdir() if path.name != "lock"}


def test_lists_are_those_of_recall_with_the_reranker_s_opinion(tree: Path, vectors: Path, straight: Path) -> None:
    benchmark, reranker, table = MBeir(tree), BagReranker(), ScoreTable(straight)
    pool = benchmark.train_pool()
    groups = {group.setting: group for group in training_groups(benchmark)}
    expected = {}
    for found in recall(BagEncoder(), benchmark, vectors, depth=12):
        for (qid, dids), cosine_K in zip(found.run.rankings().items(), found.run.scores_QK, strict=True):
            expected[qid, found.setting, found.pool] = dids, cosine_K
    assert len(table) == len(expected) == 70
    for one in table:
        dids, cosine_K = expected.pop((one.qid, one.setting, one.pool))
        assert list(one.dids) == dids and np.array_equal(one.cosine_K, cosine_K)
        query = groups[one.setting].query(groups[one.setting].qids.index(one.qid))
        yes = [reranker.one(Pair(query.item, query.instructions[0], pool.item(did))) for did in dids]
        assert one.yes_K == pytest.approx(np.array(yes, np.float32))
    assert not expected
    assert table.settings == list(groups)


def test_how_many_lists_hold_a_right_answer(tree: Path, straight: Path) -> None:
    table, groups = ScoreTable(straight), {group.setting: group for group in training_groups(MBeir(tree))}
    right = {(name, qid): set(group.query(place).positives) for name, group in groups.items() for place, qid in enumerate(group.qids)}
    for setting, pools in table.counts.items():
        for pool, counted in pools.items():
            lists = [table[int(index)] for index in table.of_setting(setting, [pool])]
            assert counted["lists"] == len(lists) == len(groups[setting].qids)
            assert counted["with_positive"] == sum(bool(right[setting, one.qid] & set(one.dids)) for one in lists)
    assert any(0 < counted["with_positive"] < counted["lists"] for pools in table.counts.values() for counted in pools.values())


def test_each_pair_is_judged_once(tree: Path, vectors: Path, tmp_path: Path) -> None:
    reranker = BagReranker()
    table = ScoreTable(score(BagEncoder(), reranker, tree, tmp_path / "table", ALL, vectors))
    pairs = [pair for call in reranker.asked for pair in call]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(one.qid, did) for one in table for did in one.dids}
    assert len(pairs) < sum(len(one.dids) for one in table)  # local and global lists overlap
    again = BagReranker(fail_at_call=0)
    before = contents(tmp_path / "table")
    score(BagEncoder(), again, tree, tmp_path / "table", ALL, vectors)
    assert contents(tmp_path / "table") == before


def test_stopped_anywhere_it_ends_with_the_same_bytes(
    tree: Path, vectors: Path, straight: Path, tmp_path: Path, small_shards: None
) -> None:
    stops = 0
    while True:
        try:
            score(BagEncoder(), BagReranker(fail_at_call=random.Random(stops).randint(1, 4)), tree, tmp_path / "table", ALL, vectors)
            break
        except RuntimeError:
            stops += 1
    assert stops > 3
    assert contents(tmp_path / "table") == contents(straight)


def test_killed_anywhere_it_ends_with_the_same_bytes(tree: Path, vectors: Path, straight: Path, tmp_path: Path) -> None:
    """SIGKILL before each n-th file is renamed into place, so also between a shard's two files and before the manifest."""
    script = """
        import os, signal, sys
        from pathlib import Path
        from umr.mining import fill
        from umr.mining.scoring import ScoreSettings, score
        from unit.bag_reranker import BagReranker
        from unit.mbeir_fixture import BagEncoder
        fill.LISTS_A_SHARD, fill.PAIRS_PER_CALL = 5, 40
        tree, vectors, out, left = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
        replace = os.replace
        def counted(source, target, **options):
            global left
            if str(target).startswith(out):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target, **options)
        os.replace = counted
        score(BagEncoder(), BagReranker(), tree, Path(out), ScoreSettings(fraction=1.0, depth=12), vectors)
    """
    for number in (3, 6, 11):
        killed = warm.script(script, tree, vectors, tmp_path / "table", str(number))
        assert killed.wait() == -signal.SIGKILL, killed.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "LISTS_A_SHARD", 5)
        patch.setattr(fill, "PAIRS_PER_CALL", 40)
        score(BagEncoder(), BagReranker(), tree, tmp_path / "table", ALL, vectors)
    assert contents(tmp_path / "table") == contents(straight)


def test_another_teacher_adds_rows(tree: Path, vectors: Path, tmp_path: Path) -> None:
    some = ScoreSettings(fraction=1.0, depth=5, settings=("shapes_task0",))
    out = score(BagEncoder(), BagReranker(), tree, tmp_path / "table", some, vectors)
    alone = ScoreTable(out)
    score(BagEncoder(), BagReranker("second"), tree, out, some, vectors)
    with pytest.raises(StoreError, match="2 teachers"):
        ScoreTable(out)
    first, second = (ScoreTable(out, f"bag-reranker-{name}") for name in ("bag", "second"))
    assert first.fingerprint == alone.fingerprint != second.fingerprint
    assert [one.dids for one in first] == [one.dids for one in second]


def test_another_retriever_asks_only_about_what_is_new(tree: Path, vectors: Path, tmp_path: Path) -> None:
    some = ScoreSettings(fraction=1.0, depth=5, settings=("shapes_task0",))
    out = score(BagEncoder(), BagReranker(), tree, tmp_path / "table", some, vectors)
    score(BagEncoder("other"), BagReranker(fail_at_call=0), tree, out, some, vectors)  # finds the same with other vectors
    with pytest.raises(StoreError, match="2 retrievers"):
        ScoreTable(out)
    assert len(ScoreTable(out, retriever="bag-of-words:other")) == len(ScoreTable(out, retriever="bag-of-words:bag"))


def test_more_queries_are_added_to_those_there(tree: Path, vectors: Path, straight: Path, tmp_path: Path) -> None:
    few = ALL.model_copy(update={"fraction": 0.25})
    out = score(BagEncoder(), BagReranker(), tree, tmp_path / "table", few, vectors)
    before = {(one.qid, one.setting, one.pool): one for one in ScoreTable(out)}
    assert 0 < len(before) < len(ScoreTable(straight))
    score(BagEncoder(), BagReranker(), tree, out, ALL, vectors)
    after = {(one.qid, one.setting, one.pool): one.yes_K.tolist() for one in ScoreTable(out)}
    assert after == {(one.qid, one.setting, one.pool): one.yes_K.tolist() for one in ScoreTable(straight)}
    with pytest.raises(StoreError, match="depth 12, not 6"):
        score(BagEncoder(), BagReranker(), tree, out, ALL.model_copy(update={"depth": 6}), vectors)


def test_seeded_wordings(tree: Path, tmp_path: Path) -> None:
    reranker, settings = BagReranker(), ScoreSettings(fraction=1.0, depth=3, instruction="seeded", settings=("shapes_task0",))
    score(BagEncoder(), reranker, tree, tmp_path / "table", settings)
    assert len(reranker.instructions) > 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dept": 3}, "unknown key 'dept'"),
        ({"pools": ["local", "local"]}, "pools names a pool twice"),
        ({"pools": []}, "pools: "),
        ({"fraction": 0}, "fraction: "),
        ({"split": "dev"}, "split: "),
    ],
)
def test_bad_settings(values: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=f"scoring: {words}"):
        parse(values)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny retriever and a tiny reranker with random weights."""
    from umr.models.reranker import Reranker

    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "retriever")
    Reranker.load(folder / "retriever").save(folder / "reranker")
    return folder / "retriever", folder / "reranker"


def test_the_command_with_real_models(tree: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from umr.models.reranker import Reranker

    retriever, reranker = models
    command = ["score", "--model", str(retriever), "--reranker", str(reranker), "--benchmark", str(tree), "--out", str(tmp_path / "t")]
    command += ["--tasks", "shapes_task7", "--fraction", "0.5", "--depth", "3", "--work", str(tmp_path / "work")]
    assert main(command) == 0
    assert "shapes_task7" in capsys.readouterr().out
    table, benchmark = ScoreTable(tmp_path / "t"), MBeir(tree)
    loaded = Reranker.load(reranker)
    assert (table.revision, len(table)) == (loaded.fingerprint, 16)
    for one in (table[0], table[-1]):
        query = benchmark.train_queries(["shapes_task7"]).get(one.qid)
        yes_K = loaded.score(query.item, [benchmark.train_pool().item(did) for did in one.dids], query.instructions[0])
        assert one.yes_K == pytest.approx(yes_K, abs=1e-5)
    before = contents(tmp_path / "t")
    assert main(command) == 0
    assert contents(tmp_path / "t") == before
    assert main([*command, "--fraction", "2"]) == 1
    assert "umr score: fraction" in capsys.readouterr().err


def test_evaluation_with_real_models(models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retriever, reranker = map(str, models)
    benchmark, task = write_two_splits(tmp_path / "tree"), "wiki_task1"
    command = ["eval", "--model", retriever, "--benchmark", str(benchmark), "--tasks", task, "--work", str(tmp_path / "work")]
    reranked = [*command, "--pool", "local", "--rerank", reranker, "--rerank-depth", "3"]
    assert main([*reranked, "--split", "val", "--choose-weights", str(tmp_path / "weights.json")]) == 0
    chosen = json.loads((tmp_path / "weights.json").read_text())
    assert (chosen["split"], chosen["depth"], list(chosen["weights"])) == ("val", 3, [task])
    assert main([*reranked, "--weights", str(tmp_path / "weights.json"), "--json", str(tmp_path / "one.json")]) == 0
    assert "reranked by" in capsys.readouterr().out
    content = json.loads((tmp_path / "one.json").read_text())
    assert (content["rerank"]["weights"], content["rerank"]["chosen"]["split"]) == (chosen["weights"], "val")
    number = str(chosen["weights"][task])
    assert main([*reranked, "--weight", number, "--json", str(tmp_path / "two.json")]) == 0
    assert json.loads((tmp_path / "two.json").read_text())["settings"] == content["settings"]
    assert main([*reranked, "--choose-weights", str(tmp_path / "w.json")]) == 1
    assert "choose them on val" in capsys.readouterr().err


def write_two_splits(root: Path) -> Path:
    """The small evaluation tree, its test split under the name of val, too."""
    from unit import mbeir_fixture

    mbeir_fixture.write_tree(root)
    for path in [*root.glob("q*/test/*"), *root.glob("cand_pool/global/*_test_*")]:
        copy = Path(str(path.relative_to(root)).replace("test", "val"))
        (root / copy.parent).mkdir(exist_ok=True)
        shutil.copy(path, root / copy)
    return root


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weight", "1"], "--weight has no effect without --rerank"),
        (["--rerank-depth", "9"], "--rerank-depth has no effect without --rerank"),
        (["--rerank", "r", "--weight", "1", "--weights", "w"], "--weight and --weights each say"),
        (["--rerank", "r", "--weights", "w", "--choose-weights", "o"], "--weights and --choose-weights each say"),
    ],
)
def test_options_without_effect(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--model", "m", "--benchmark", "b", *options]) == 1
    assert words in capsys.readouterr().err
