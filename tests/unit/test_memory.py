"""`--memory`: sizes as people write them, and evaluations within them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umr.errors import RecipeError
from umr.evaluation import evaluate, streams
from umr.evaluation.streams import Stream
from umr.progress import quiet
from umr.store import Laid, VectorStore, VectorView, parse_bytes, resident, saved, scanning, size_text
from umr.store.passes import Shape
from umr.store.streaming import Streaming
from unit.mbeir_fixture import BagEncoder, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "M-BEIR")


@pytest.fixture(autouse=True)
def _silent() -> object:
    with quiet():
        yield


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GiB", 8 << 30), ("500MB", 500_000_000), ("1.5 gib", 3 << 29), (" 64kib", 65536), ("4096", 4096), (4096, 4096), ("2TB", 2 * 10**12)],
)
def test_sizes(text: str | int, expected: int):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "8 gigs", "-1GiB", "0", "1e9", "nan", "8GiB more"])
def test_what_is_no_size(text: str):
    with pytest.raises(RecipeError, match="memory must be a size such as 8GiB or 500MB, not"):
        parse_bytes(text)


@pytest.mark.parametrize("count", [1, 2**20, 2**20 + 1, 5 * 2**30 + 7, 123 * 2**30 + 1])
def test_sizes_in_messages_are_enough(count: int):
    assert parse_bytes(size_text(count)) >= count


def test_resident_follows_what_is_allocated():
    before = resident()
    block = np.ones(50_000_000, np.uint8)
    assert resident() - before > 40_000_000
    assert len(block)


def test_the_result_does_not_depend_on_memory(tree: Path, monkeypatch: pytest.MonkeyPatch):
    expected = evaluate(BagEncoder(), tree)
    plans = []

    def remember(self: Streaming, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        plans.append(self.plan)

    original = Streaming.__init__
    monkeypatch.setattr(Streaming, "__init__", remember)
    monkeypatch.setattr(scanning.Cpu, "shapes", (Shape(16, 2),))
    monkeypatch.setattr(streams, "resident", lambda: 0)
    assert evaluate(BagEncoder(), tree, memory="8GiB").to_json() == expected.to_json()
    found = evaluate(BagEncoder(), tree, memory=plans[0].bytes - 60_000)
    assert len(plans[0].passes) == 1
    assert plans[0].reads == 112  # all candidates once, for three settings and both pools
    assert len(plans[1].passes) > 1
    assert found.to_json() == expected.to_json()
    assert all(
        run.rows_QK.tobytes() == expected.runs[key].rows_QK.tobytes() and run.scores_QK.tobytes() == expected.runs[key].scores_QK.tobytes()
        for key, run in found.runs.items()
    )


def test_too_little_memory_is_one_line_that_says_what_is_enough(tree: Path):
    with pytest.raises(
        RecipeError, match=r"^memory 1MiB is too little for this search: the process holds \d+MiB and needs at least"
    ) as error:
        evaluate(BagEncoder(), tree, memory="1MiB")
    enough = str(error.value).split("; give ")[1].split(",")[0]
    evaluate(BagEncoder(), tree, memory=parse_bytes(enough) + (64 << 20))


def test_a_size_that_is_none_is_refused_before_anything_is_embedded(tree: Path):
    encoder = BagEncoder(fail_at_call=0)
    with pytest.raises(RecipeError, match="not 'lots'"):
        evaluate(encoder, tree, memory="lots")


def test_each_candidate_is_embedded_once_for_all_tasks_and_both_pools(tree: Path):
    encoder = BagEncoder()
    evaluate(encoder, tree)
    assert sum(encoder.calls) == 36 + 112  # queries; three pools of 36 and four of the global pool alone


def test_a_store_in_several_pools_is_in_the_stream_once(tmp_path: Path):
    stores = []
    for name, numbers in (("a", range(4)), ("b", range(4, 7))):
        store = VectorStore.create_or_resume(tmp_path / name, fingerprint="m", dimension=2)
        store.append([str(n) for n in numbers], ["text"] * len(numbers), np.array([[np.cos(n), np.sin(n)] for n in numbers], np.float32))
        stores.append(store)
    view = VectorView([VectorStore(tmp_path / "b"), VectorStore(tmp_path / "a")], ["5", "0", "6", "3"])
    stream = Stream([stores[0], stores[1], view])
    assert isinstance(stream.rows, Laid)
    assert len(stream.rows) == 7
    among = stream.among(view)
    assert among.places_N.tolist() == [0, 3, 5, 6]
    assert among.rows_N.tolist() == [1, 3, 0, 2]
    assert np.array_equal(stream.rows.take(among.places_N.astype(np.int64)), view.take(among.rows_N.astype(np.int64)))
    assert stream.among(stores[1]).places_N.tolist() == [4, 5, 6]


def test_the_command_line_says_it_in_one_line(tree: Path, capsys: pytest.CaptureFixture[str]):
    from umr.cli import main

    assert main(["eval", "--model", "nowhere", "--benchmark", str(tree), "--memory", "a lot"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert error.endswith("memory must be a size such as 8GiB or 500MB, not 'a lot'")


def test_an_interrupted_evaluation_goes_on_in_the_middle_of_its_search(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    monkeypatch.setattr(scanning.Cpu, "shapes", (Shape(16, 8),))
    starts: list[int] = []
    original = Laid.read

    def read(self: Laid, start: int, stop: int) -> np.ndarray:
        starts.append(start)
        if len(starts) == 5:
            raise KeyboardInterrupt
        return original(self, start, stop)

    monkeypatch.setattr(Laid, "read", read)
    with pytest.raises(KeyboardInterrupt):
        evaluate(BagEncoder(), tree, work_dir=tmp_path)
    assert starts == [0, 16, 32, 48, 64]
    found = evaluate(BagEncoder(fail_at_call=0), tree, work_dir=tmp_path)
    assert starts[5:8] == [64, 80, 96]  # what follows settles ties: the vectors of this encoder are often equal
    assert found.to_json() == evaluate(BagEncoder(), tree).to_json()
