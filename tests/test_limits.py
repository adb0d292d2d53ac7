"""Rules that keep the house readable and quick to enter, checked over the sources themselves."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
SOURCES = sorted(SRC.rglob("*.py"))

MOST_LINES = 500
HEAVY = ("torch", "torchvision", "transformers", "sentence_transformers", "peft", "numpy", "PIL", "av", "pyarrow", "matplotlib")
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}


def offenders(is_bad: Callable[[Path, ast.Module], object]) -> list[str]:
    """`path: finding` for every source file in which `is_bad` finds something."""
    found = ((file, is_bad(file, ast.parse(file.read_text("utf-8")))) for file in SOURCES)
    return [f"{file.relative_to(SRC)}: {finding}" for file, finding in found if finding]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_there_are_sources():
    assert SRC / "umr" / "__init__.py" in SOURCES


def test_files_are_short():
    def too_long(file: Path, tree: ast.Module) -> int:
        lines = len(file.read_text("utf-8").splitlines())
        return lines if lines > MOST_LINES else 0

    assert offenders(too_long) == []


def test_file_names_say_what_is_inside():
    assert offenders(lambda file, tree: file.stem in {"utils", "util", "helpers", "common", "misc"}) == []


def test_nothing_prints():
    def prints(file: Path, tree: ast.Module) -> list[int]:
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
        return [call.lineno for call in calls if call.func.id == "print"]

    assert offenders(prints) == [], "use umr.progress, or umr.cli.console in the command line"


def test_no_file_format_can_run_code_when_it_is_read():
    def pickles(file: Path, tree: ast.Module) -> list[str]:
        modules = {name.partition(".")[0] for name in imported_modules(tree)} & PICKLERS
        return [*modules, *re.findall(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False", file.read_text("utf-8"))]

    assert offenders(pickles) == []


def test_only_the_command_line_knows_the_command_line():
    def imports_it(file: Path, tree: ast.Module) -> list[str]:
        own = "cli" in file.relative_to(SRC).parts or file.name == "__main__.py"
        return [] if own else [name for name in imported_modules(tree) if name.startswith("umr.cli")]

    assert offenders(imports_it) == []


@pytest.mark.parametrize(
    "code", ["import umr", "from umr.cli import main; main(['--help'])", "from umr.cli import main; main(['eval', '--help'])"]
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str):
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(SRC)})
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_is_where_the_package_says():
    import umr

    for name in umr.__all__:
        assert getattr(umr, name) is not None
    assert set(umr.__all__) == {*umr._HOME, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        umr.nonsense  # noqa: B018


def test_constraints_name_exact_versions_without_local_parts():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert "torch==2.13.0" in lines
