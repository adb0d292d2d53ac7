"""Mining and scoring with workers: the files that one process makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from umr.bulk.crew import Crew
from umr.bulk.local import local_team
from umr.bulk.staff import Staff
from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import ModelError, RecipeError
from umr.evaluation import embeddings, evaluate
from umr.evaluation.questions import candidates
from umr.mining import fill, scoring
from umr.mining.mine import mine_with
from umr.mining.panel import Judging
from umr.mining.queries import training_data
from umr.mining.recall import recall
from umr.mining.scores_writer import Origin, ScoreWriter
from umr.mining.scoring import ScoreSettings, score
from umr.mining.settings import MineSettings
from umr.progress import progress, quiet
from unit import mbeir_fixture
from unit.bag_reranker import BagReranker
from unit.bulk.bags import Bag, contents
from unit.bulk.judges import Judge
from unit.mbeir_fixture import BagEncoder
from unit.mining_tree import write_tree

CREW = Crew(workers=2, threads=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(embeddings, "SHARD_SIZE", 40)
    monkeypatch.setattr(fill, "LISTS_A_SHARD", 20)
    monkeypatch.setattr(fill, "PAIRS_PER_CALL", 40)
    with quiet():
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "tree")


def test_mining_with_workers_gives_the_same_vectors_and_negatives(tree: Path, tmp_path: Path):
    settings = MineSettings(depth=10)
    alone, with_help = BagEncoder(), BagEncoder()
    mine_with(alone, MBeir(tree), tmp_path / "alone", settings)
    mine_with(with_help, MBeir(tree), tmp_path / "shared", settings, staff=Staff(CREW, Bag()))
    assert sum(with_help.calls) < sum(alone.calls) / 2  # only what fits in one shard was embedded here
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_evaluating_with_workers_gives_the_same_vectors_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings, "SHARD_SIZE", 10)
    tree = mbeir_fixture.write_tree(tmp_path / "tree")
    alone, with_help = BagEncoder(), BagEncoder()
    straight = evaluate(alone, tree, work_dir=tmp_path / "alone")
    shared = evaluate(with_help, tree, work_dir=tmp_path / "shared", staff=Staff(CREW, Bag()))
    assert sum(with_help.calls) < sum(alone.calls)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert [one.pools for one in shared.settings] == [one.pools for one in straight.settings]


def test_every_gpu_gets_a_worker_where_there_are_several(monkeypatch: pytest.MonkeyPatch):
    for visible, workers in (("", None), ("3", None), ("0,2,5", 3)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert Crew.of_every_gpu().workers == workers


def test_scoring_with_workers_gives_the_same_table(tree: Path, tmp_path: Path):
    settings = ScoreSettings(fraction=1.0, depth=12)
    straight = score(BagEncoder(), BagReranker(), tree, tmp_path / "alone", settings, tmp_path / "vectors")
    benchmark = MBeir(tree)
    keys = {"data": training_data(benchmark), "split": "train", "instruction": "first", "depth": 12}
    table = ScoreWriter(tmp_path / "shared", **keys)
    origin = Origin(BagEncoder().fingerprint, BagReranker().fingerprint, BagReranker().fingerprint)
    ask = scoring._questions(benchmark, settings)
    nobody = BagReranker(fail_at_call=0)
    with local_team(Judging(Judge(), nobody.fingerprint), 2, 1) as team, progress("scoring") as bar:
        for one in recall(BagEncoder(), benchmark, tmp_path / "vectors", depth=12):
            place = fill.Place(one.setting, one.pool, ask(one.setting), candidates(benchmark, one.setting, "train", one.pool))
            fill.fill(table, nobody, one.run, place, origin, bar, team=team)
    assert contents(tmp_path / "shared") == contents(straight)


def test_workers_without_effect_are_an_error(capsys: pytest.CaptureFixture[str]):
    assert main(["mine", "--run", "bm25.trec", "--benchmark", "tree", "--out", "out", "--workers", "2"]) == 1
    assert "--workers, --threads and --ray have no effect with --run" in capsys.readouterr().err
    assert main(["eval", "--run", "theirs.txt", "--benchmark", "tree", "--pool", "global", "--workers", "2"]) == 1
    assert "--workers has no effect with --run" in capsys.readouterr().err


def test_workers_with_another_model_are_refused(tree: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="fingerprint bag-reranker-other, that of the others is bag-reranker-bag"):
        Judging(Judge("other"), "bag-reranker-bag").begin()
    with pytest.raises(RecipeError, match="workers load the reranker themselves"):
        score(BagEncoder(), BagReranker(), tree, tmp_path / "table", crew=CREW)
