"""In processes of their own: what is tested is the first import of torchvision."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umr.torchvision_shim import _built_for_cuda

SRC = Path(__file__).parents[2] / "src"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What one process finds while it looks for torchvision, has transformers import it, and installs again."""
    code = """
import umr, sys, json, importlib.util
from importlib.metadata import version
from umr import torchvision_shim
spec = importlib.util.find_spec("torchvision")
found = {"spec": [spec.name, spec.origin.endswith("__init__.py"), bool(spec.submodule_search_locations)]}
found |= {"version": version("torchvision")[:4], "imported by looking": "torchvision" in sys.modules}
finders = list(sys.meta_path)
torchvision_shim.install()
found["as before installing twice"] = sys.meta_path == finders

from transformers import Qwen3VLProcessor
import sentence_transformers
import torch, torchvision, torchvision.transforms.v2 as v2
from torchvision.transforms import functional, InterpolationMode
image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
found["resized"] = v2.functional.resize(image, [8, 6], interpolation=InterpolationMode.BICUBIC).shape
found["processor"] = Qwen3VLProcessor.__name__
found["same place"] = torchvision.__spec__.origin == spec.origin
found["same spec"] = importlib.util.find_spec("torchvision") is torchvision.__spec__

sys.meta_path.remove(torchvision_shim._Finder)
torchvision_shim.install()
found["installed too late"] = torchvision_shim._Finder in sys.meta_path
print(json.dumps(found))
"""
    return json.loads(run(code))


def test_transformers_and_sentence_transformers_find_a_working_torchvision(told: dict[str, Any]):
    assert (told["resized"], told["processor"]) == ([3, 8, 6], "Qwen3VLProcessor")


def test_importing_umr_loads_neither_torch_nor_torchvision():
    assert run("import umr, sys; print([m for m in ('torch', 'torchvision') if m in sys.modules])") == "[]"


def test_looking_for_torchvision_finds_it_without_importing_it(told: dict[str, Any]):
    assert told["spec"] == ["torchvision", True, True]
    assert (told["version"], told["imported by looking"]) == ("0.28", False)
    assert told["same place"] and told["same spec"]


def test_installing_twice_or_after_torchvision_changes_nothing(told: dict[str, Any]):
    assert told["as before installing twice"] and not told["installed too late"]


def test_operators_declared_by_somebody_else_are_left_as_they_are():
    code = """
import torch
if torch.version.cuda is None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import umr, torchvision
print(torchvision.__name__)
"""
    assert run(code) == "torchvision"


def test_without_torchvision_it_is_simply_not_found(tmp_path: Path):
    code = f"""
import sys
sys.path[:] = [p for p in sys.path if "site-packages" not in p] + [{str(tmp_path)!r}]
import umr, importlib.util
print(importlib.util.find_spec("torchvision"))
"""
    assert run(code) == "None"


@pytest.mark.parametrize(
    ("version", "cuda"), [("0.28.0+cu130", True), ("0.28.0+cpu", False), ("0.28.0", False), ("0.28.0a0+1f2e3d", False)]
)
def test_reads_what_torchvision_was_built_for(tmp_path: Path, version: str, cuda: bool):
    file = tmp_path / "version.py"
    assert not _built_for_cuda(file)
    file.write_text(f"__version__ = '{version}'\ngit_version = 'cu999'\n")
    assert _built_for_cuda(file) is cuda
