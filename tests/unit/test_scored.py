"""Scored lists as training reads them: which lists, how long, whose scores, and that they belong to the data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.training_data import write_tree
from umr.data.mbeir import MBeir
from umr.errors import RecipeError
from umr.evaluation.embeddings import Embeddings
from umr.evaluation.weights import Weights
from umr.mining.scores import ScoreTable
from umr.mining.scoring import ScoreSettings, score
from umr.progress import Bar, quiet
from umr.training import recipe as recipes
from umr.training import scored as module
from umr.training.scored import ScoredSource
from umr.training.sources import open_sources
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree, its scores and the vectors behind them. Not to be changed."""
    root = tmp_path_factory.mktemp("scored")
    with quiet():
        settings = ScoreSettings(fraction=1.0, depth=6)
        score(BagEncoder(), BagReranker(), write_tree(root / "tree"), root / "scores", settings, root / "work")
    return root


def opened(root: Path, loss: dict[str, Any] | None = None, **section: Any) -> list[ScoredSource]:
    data = {"kind": "scored", "path": str(root / "tree"), "scores": str(root / "scores"), **section}
    training = {"batch_size": 2, "steps": 1, "learning_rate": 1}
    tree = {"name": "x", "model": {"path": "m"}, "data": [data], "loss": {"kind": "distillation", **(loss or {})}, "training": training}
    sources, _, _ = open_sources(recipes.parse(tree, "recipe"), BagEncoder())
    assert all(isinstance(source, ScoredSource) for source in sources)
    return sources  # type: ignore[return-value]


def test_a_list_is_the_retrievers_first_candidates_with_the_fused_scores_of_its_setting(root: Path, tmp_path: Path) -> None:
    Weights(default=0.5, weights={"shapes_task7": 0.1}).save(tmp_path / "weights.json")
    table = ScoreTable(root / "scores")
    sources = {one.name: one for one in opened(root, {"weight": str(tmp_path / "weights.json"), "list_length": 4})}
    assert list(sources) == table.settings and sum(map(len, sources.values())) == len(table)
    for name, weight in (("shapes_task0", 0.5), ("shapes_task7", 0.1)):
        for index, place in enumerate(table.of_setting(name)):
            known, example = table[int(place)], sources[name].example(index, 0)
            assert example.query.id == known.qid
            assert [item.id for item in example.candidates] == list(known.dids[:4])
            expected_K = (known.cosine_K[:4].astype(float) + weight * known.yes_K[:4]) / (1 + weight)
            np.testing.assert_allclose(example.teacher_K, expected_K, rtol=1e-6)
            assert example.teacher_K.dtype == np.float32 and np.abs(example.teacher_K).max() <= 1


def test_lists_of_some_pools_and_settings_only(root: Path) -> None:
    table = ScoreTable(root / "scores")
    (source,) = opened(root, settings=["shapes_task0"], pools=["global"])
    assert [table[int(place)].pool for place in source.lists_N] == ["global"] * 16
    with pytest.raises(RecipeError, match=r"has no lists of 'nowhere_task0'; it has .*shapes_task0"):
        opened(root, settings=["nowhere_task0"])
    with pytest.raises(RecipeError, match="a weight for 'shapes_task7' has no effect"):
        opened(root, settings=["shapes_task0"], weights={"shapes_task7": 2})


def test_stored_vectors_stand_for_the_candidates(root: Path) -> None:
    (plain,), (stored,) = opened(root, settings=["shapes_task0"]), opened(root, {"vectors": str(root / "work")}, settings=["shapes_task0"])
    for index in range(len(plain)):
        one, other = plain.example(index, 0), stored.example(index, 0)
        assert other.candidates == () and other.vectors_KD is not None
        np.testing.assert_allclose(other.vectors_KD, BagEncoder().encode(list(one.candidates), "candidate"), atol=1e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_writes_vectors_and_the_others_wait_for_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """All of them at once would end with "another process is writing"."""
    events: list[str] = []
    original = Embeddings.candidates

    def candidates(self: Embeddings, pool: Any, bar: Bar) -> Any:
        events.append("open")
        return original(self, pool, bar)

    monkeypatch.setattr(Embeddings, "candidates", candidates)
    monkeypatch.setattr(module, "rank", lambda: rank)
    monkeypatch.setattr(module, "barrier", lambda: events.append("barrier"))
    opened(root, {"vectors": str(tmp_path / "work")}, settings=["shapes_task0"])
    assert events == (["barrier", "open"] if rank else ["open", "barrier"])


def test_scores_of_other_data_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "tree", tmp_path / "tree")
    assert opened(root, path=str(tmp_path / "tree")), "the same data elsewhere"
    file = MBeir(tmp_path / "tree").query_path("shapes_task0", "train")
    file.write_text("".join(reversed(file.open().readlines())))
    with pytest.raises(RecipeError, match="holds scores of other data than the training queries of"):
        opened(root, path=str(tmp_path / "tree"))


def test_fingerprints_cover_data_scores_and_weights(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    prints = []
    for weight in (0.5, 0.1):
        Weights(default=weight).save(file)
        data = {"kind": "scored", "path": str(root / "tree"), "scores": str(root / "scores")}
        loss = {"kind": "distillation", "weight": str(file)}
        training = {"batch_size": 2, "steps": 1, "learning_rate": 1}
        tree = {"name": "x", "model": {"path": "m"}, "data": [data], "loss": loss, "training": training}
        prints.append(open_sources(recipes.parse(tree, "recipe"), BagEncoder())[2])
    assert [name.partition(":")[0] for name in prints[0]] == ["scored", "scores", "weights"]
    assert [name for name in prints[0] if prints[0][name] != prints[1][name]] == [f"weights:{file}"]


def test_a_tree_with_the_union_file_alone(root: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(root / "tree", tmp_path / "tree"))
    files = sorted((tree / "query" / "train").glob("*.jsonl"))
    union = tree / "query" / "union_train" / "mbeir_union_up_train.jsonl"
    union.parent.mkdir(exist_ok=True)
    union.write_text("".join(file.read_text() for file in files if "shapes" in file.name))
    for file in files:
        file.unlink()
    score(BagEncoder(), BagReranker(), tree, tmp_path / "scores", ScoreSettings(fraction=1.0, depth=6), root / "work")
    sources = opened(root, path=str(tree), scores=str(tmp_path / "scores"))
    assert [len(source) for source in sources] == [32, 32]
    assert all(source.example(0, 0).candidates for source in sources)
