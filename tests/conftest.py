"""What every test can rely on: no network, one thread a worker, GPU tests skipped without one, and a shared World and model."""

import fcntl
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Read by torch's thread pool when it is first imported: several workers with several threads each on few cores make
    # everything four to ten times slower.
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # only now: a run without GPU tests need not wait for it

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


_frozen_at = 0
"""How many modules there were when objects were last frozen."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Take what imports have made out of the garbage collector's sight: half a million objects, which cost 0.3 s each time it looks.

    Trainer collects at the end of every run, so that short runs took half as long again.
    """
    global _frozen_at
    if len(sys.modules) > _frozen_at + 200:
        gc.collect()
        gc.freeze()
        _frozen_at = len(sys.modules)


@contextmanager
def _one_worker_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of a test run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def world(shared_folder: Path) -> Path:
    """A World with everything of size tiny but its numbers, made once a test run. Not to be changed: `own_world` is a copy to break."""
    from little_world import make

    with _one_worker_at_a_time(shared_folder):
        return make(shared_folder / "world").root


@pytest.fixture
def own_world(world: Path, tmp_path: Path) -> Path:
    """A copy of `world` made of links: replace files (`unlink` first), never write into them."""
    import shutil

    return Path(shutil.copytree(world, tmp_path / "world", copy_function=os.link))


@pytest.fixture(scope="session")
def tiny_model(shared_folder: Path, world: Path) -> Path:
    """A tiny Qwen3-VL with random weights whose tokenizer was trained on `world`, made once a test run. Not to be changed."""
    from umr.data.world import iter_texts
    from umr.models.tiny import make_checkpoint

    folder = shared_folder / "tiny-qwen3-vl"
    with _one_worker_at_a_time(shared_folder):
        if not (folder / "model.safetensors").is_file() or not (folder / "tokenizer.json").is_file():
            make_checkpoint("qwen3-vl", folder, iter_texts(world))
    return folder
