"""`umr mine` with real models: a tiny untrained one that searches, and a tiny untrained reranker."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.training_data import write_model, write_tree
from umr.cli import main
from umr.data.mbeir import MBeir
from umr.mining.negatives import NegativeTable


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mining")
    write_tree(root / "tree")
    write_model(root / "model")
    return root


def mine(place: Path, out: str, *words: str) -> Path:
    common = ["mine", "--benchmark", str(place / "tree"), "--out", str(place / out)]
    assert main([*common, *words]) == 0
    return place / out


def right(benchmark: MBeir) -> dict[str, set[str]]:
    """Positives by id, and `1:900`, which is the picture of `1:0` under another id."""
    found: dict[str, set[str]] = {}
    for query in benchmark.train_queries():
        found.setdefault(query.qid, set()).update(query.positives)
    return {qid: dids | ({"1:0", "1:900"} if dids & {"1:0", "1:900"} else set()) for qid, dids in found.items()}


def test_a_model_mines_from_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mine(place, "out", "--model", str(place / "model"), "max_similarity=null", "negatives=3", "depth=40")
    assert f"{out / 'negatives.parquet'}: 105 negatives for 35 of 35 queries" in capsys.readouterr().out
    table, known = NegativeTable(out), right(MBeir(place / "tree"))
    assert len(table) == len(known) == 35
    assert all(len(table.of(qid)) == 3 and not set(table.of(qid)) & dids for qid, dids in known.items())
    audit = pq.read_table(out / "audit.parquet").to_pylist()
    assert {one["pool"] for one in audit} == {"both"}  # one data set, one modality: the local pool is the global one
    assert {(one["qid"], one["did"]) for one in audit if one["reason"] == "positive by content"} <= {
        (qid, did) for qid, dids in known.items() if "1:900" in dids for did in ("1:0", "1:900")
    }
    before = (out / "mining.json").read_bytes()
    mine(place, "out", "--model", str(place / "model"), "max_similarity=null", "negatives=3", "depth=40")
    assert (out / "mining.json").read_bytes() == before


def test_a_reranker_drops_what_it_calls_right(place: Path) -> None:
    words = ("--model", str(place / "model"), "--work", str(place / "out"), "max_similarity=null", "negatives=2", "settings=[shapes_task0]")
    first = pq.read_table(mine(place, "asked", *words, f"reranker={place / 'model'}", "max_yes=0.999") / "audit.parquet").to_pylist()
    said = sorted(one["yes"] for one in first if one["yes"] is not None)
    assert len(said) == 2 * 16 and 0 < said[0] < said[-1] < 0.999
    limit = (said[0] + said[-1]) / 2
    out = mine(place, "reranked", *words, f"reranker={place / 'model'}", f"max_yes={limit}")
    audit = pq.read_table(out / "audit.parquet").to_pylist()
    assert {one["yes"] is not None for one in audit if one["reason"] in ("kept", "reranker agrees")} == {True}
    assert all(one["yes"] <= limit for one in audit if one["reason"] == "kept")
    assert all(one["yes"] > limit for one in audit if one["reason"] == "reranker agrees")
    assert {one["reason"] for one in audit} >= {"kept", "reranker agrees"}
    assert json.loads((out / "mining.json").read_text())["reranker"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --model or --run"),
        (("--model", "m", "--run", "r"), "give either --model or --run"),
        (("--model", "m", "--metric", "cosine"), "--metric has no effect with --model"),
        (("--run", "r", "--work", "w"), "--work has no effect with --run"),
        (("--run", "r"), "r: cannot be read"),
        (("--model", "m", "dept=3"), "unknown key 'dept'"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main(["mine", "--benchmark", str(place / "tree"), "--out", str(place / "refused"), *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0] and "unexpected" not in lines[0]
    assert not (place / "refused").exists()
