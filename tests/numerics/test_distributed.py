"""Two processes with half a batch each compute what one process computes with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import warm
from numerics.contrastive_batch import batch_of, examples, gradients, largest_difference, plain, retriever
from numerics.distributed_worker import CASES, SHORTER
from pipeline import training_data
from umr.training import recipe as recipes
from umr.training.run import train

ROOT = Path(__file__).parents[2]


def torchrun(*command: str | Path, processes: int = 2) -> None:
    """Start real processes that talk over gloo on the CPU."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([*launcher, *map(str, command)], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two-processes")
    started = warm.ranks(2, Path(__file__).parent / "distributed_worker.py", out)
    assert [one.wait() for one in started] == [0, 0], [one.stderr[-3000:] for one in started]
    return out


@pytest.fixture(scope="module")
def whole():
    model, engine = retriever()
    return model, batch_of([*examples()[0], *examples()[1]], engine)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_those_of_one_process(results: Path, whole, case: str):
    model, batch = whole
    if case.startswith("latent"):
        model = retriever(latent=True)[0]
    settings = CASES[case][0]
    shorter = SHORTER if "matryoshka" in settings else None
    loss, expected = plain(model, batch, settings.get("both_ways", False), settings.get("mask_false_negatives", True), shorter)
    for rank in range(2):
        assert json.loads((results / f"{case}.{rank}.json").read_text()) == {"loss": pytest.approx(loss, rel=1e-6), "processes": 2}
        found = load_file(results / f"{case}.{rank}.safetensors")
        assert largest_difference(found, expected) <= 1e-6
        assert found["temperature.log_value"].item() == pytest.approx(expected["temperature.log_value"].item(), rel=1e-6)


def test_the_shares_differ_as_they_should(whole):
    model, engine = retriever()
    first, second = (batch_of(share, engine) for share in examples())
    assert len(first.columns.did_C) != len(second.columns.did_C) and len(first.query_B) != len(second.query_B)
    assert set(first.columns.did_C.tolist()) & set(second.columns.did_C.tolist())
    assert not any(row.patches for row in first.rows) and any(row.patches for row in second.rows)
    # Neither share alone, nor the mean of the two, is the whole: without gathering the test above would fail.
    alone = [plain(model, share, False, True)[1] for share in (first, second)]
    expected = plain(*whole, False, True)[1]
    mean = {name: (alone[0][name] + alone[1][name]) / 2 for name in expected}
    assert all(largest_difference(other, expected) > 1e-2 for other in (*alone, mean))
    gradients(model)


@pytest.mark.slow
def test_a_run_of_two_processes_ends_with_the_weights_of_one(tmp_path: Path):
    root = training_data.write_all(tmp_path / "data")
    recipe = recipes.parse(training_data.recipe(root, steps=3, learning_rate=1e-4), "recipe")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    torchrun("-m", "umr", "train", file, "--out", tmp_path / "two")
    assert json.loads((tmp_path / "two" / "run.json").read_text())["machine"]["processes"] == 2
    one = load_file(train(recipe, out=tmp_path / "one") / "model.safetensors")
    two, start = load_file(tmp_path / "two" / "model" / "model.safetensors"), load_file(root / "model" / "model.safetensors")
    assert max((one[name] - start[name]).abs().max().item() for name in one) > 1e-4
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    logs = [[json.loads(line) for line in (tmp_path / run / "log.jsonl").open()] for run in ("one", "two")]
    assert [line["step"] for line in logs[1]] == [1, 2, 3]
    for alone, together in zip(*logs, strict=True):
        assert together == {key: pytest.approx(value, rel=1e-4) for key, value in alone.items()}
    assert torch.isfinite(torch.tensor([line["loss"] for line in logs[0]])).all()
