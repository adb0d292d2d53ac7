"""Several processes: the bytes of one, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umr.bulk.crew import Crew
from umr.bulk.embed import Counts, embed
from umr.errors import MediaError, ModelError
from umr.progress import quiet
from umr.store import VectorStore
from unit.bulk.bags import COUNT, Bag, Deadly, Unlike, contents, marks, write_manifest
from unit.mbeir_fixture import write_tree

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
COORDINATOR = """
import sys
from pathlib import Path
from umr.bulk.crew import Crew
from umr.bulk.embed import embed
from unit.bulk.bags import Deadly
manifest, left, out = map(Path, sys.argv[1:])
embed(manifest, Deadly(left, "thing 21", parent=True), out, rows=4, crew=Crew(workers=2, threads=1))
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the workers here have no use for it
    with quiet():
        yield


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path)


@pytest.fixture
def straight(tmp_path: Path, manifest: Path) -> dict[str, bytes]:
    embed(manifest, Bag(), tmp_path / "straight", rows=4)
    return contents(tmp_path / "straight")


def test_killed_workers_change_nothing(tmp_path: Path, manifest: Path, straight: dict[str, bytes]):
    left = marks(tmp_path / "marks", 2)
    counts = embed(manifest, Deadly(left, "thing 13"), tmp_path / "out", rows=4, crew=Crew(workers=2, threads=1))
    assert not list(left.iterdir())  # two were killed
    assert counts == Counts(COUNT, COUNT, 0)
    assert contents(tmp_path / "out") == straight


def test_a_piece_that_kills_every_worker_ends_the_run_and_keeps_the_others(tmp_path: Path, manifest: Path, straight: dict[str, bytes]):
    left = marks(tmp_path / "marks", 3)
    with pytest.raises(ModelError, match=r"3 workers ended by signal 9 \(SIGKILL\) at items 'thing 40' to 'thing 43'"):
        embed(manifest, Deadly(left, "thing 41"), tmp_path / "out", rows=4, crew=Crew(workers=2, threads=1))
    assert VectorStore(tmp_path / "out").shards == 10
    embed(manifest, Bag(), tmp_path / "out", rows=4)
    assert contents(tmp_path / "out") == straight


def test_a_killed_coordinator_takes_its_workers_along_and_the_next_one_goes_on(tmp_path: Path, manifest: Path, straight: dict[str, bytes]):
    left = marks(tmp_path / "marks", 1)
    killed = subprocess.run([sys.executable, "-c", COORDINATOR, manifest, left, tmp_path / "out"], env=ENVIRONMENT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pids = [file.name for file in (tmp_path / "pids").iterdir()]
    assert pids
    until = time.monotonic() + 20
    while any(map(_alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(_alive, pids))
    embed(manifest, Bag(), tmp_path / "out", rows=4)
    assert contents(tmp_path / "out") == straight


def test_what_a_worker_meets_is_raised_here(tmp_path: Path):
    tree = write_tree(tmp_path / "tree")
    lost = tree / "mbeir_images" / "0-3.png"
    lost.unlink()
    with pytest.raises(MediaError, match=str(lost)):
        embed(tree, Bag(), tmp_path / "out", pool="shapes_task0", rows=6, crew=Crew(workers=2, threads=1))


def test_workers_with_another_model_are_refused(tmp_path: Path, manifest: Path):
    with pytest.raises(ModelError, match="fingerprint bag-of-words:old, that of the others is bag-of-words:new"):
        embed(manifest, Unlike(), tmp_path / "out", rows=30, crew=Crew(workers=2, threads=1))
    assert len(VectorStore(tmp_path / "out")) == 0


@pytest.mark.slow
def test_workers_with_a_real_model_give_its_bytes(tmp_path: Path, tiny_model: Path):
    import torch

    tree = write_tree(tmp_path / "tree")
    embed(tree, tiny_model, tmp_path / "alone", pool="global", rows=30)
    embed(tree, tiny_model, tmp_path / "shared", pool="global", rows=30, crew=Crew(workers=2, threads=torch.get_num_threads()))
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def _alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
