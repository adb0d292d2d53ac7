"""Quality against cost: stored vectors made smaller, against plain computations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from umr.data.mbeir import MBeir
from umr.errors import RecipeError
from umr.evaluation import evaluate
from umr.evaluation.outputs import write_outputs
from umr.progress import quiet
from umr.reports import latency
from umr.reports.costs import Cost
from umr.reports.curve import HEAD, JSON, PNG, curve
from umr.reports.saved import load
from umr.reports.stored import stored_costs
from umr.store.quantiser import PRECISIONS, Precision
from unit.mbeir_fixture import SETTINGS, BagEncoder
from unit.saved_evaluations import DEPTH, Saved, save_evaluations


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_evaluations(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def found(saved: Saved) -> dict[tuple[int, Precision, bool, int], Cost]:
    with quiet():
        costs = stored_costs(load(saved.reranked), MBeir(saved.tree), saved.work)
    return {(one.dimension, one.precision, one.rescored, one.depth): one for one in costs}


Found = dict[tuple[int, Precision, bool, int], Cost]


def test_what_was_measured_is_one_of_the_ways(saved: Saved, found: Found) -> None:
    assert found[64, "fp16", False, 0].main == pytest.approx(saved.results["first"].averages["local"]["main"])
    assert found[64, "fp16", False, DEPTH].main == pytest.approx(saved.results["reranked"].averages["local"]["main"])
    assert found[64, "fp16", False, DEPTH].known == 100
    assert (64, "fp16", True, 0) not in found, "nothing is left to put in order"


def test_pools_smaller_than_what_is_rescored_lose_nothing(found: Found) -> None:
    whole = found[64, "fp16", False, 0].main
    assert {round(one.main, 9) for one in found.values() if one.rescored and not one.depth} == {round(whole, 9)}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimension", [64, 32, 16])
def test_each_way_scores_what_a_plain_loop_scores(saved: Saved, found: Found, precision: Precision, dimension: int) -> None:
    mains = []
    for setting in SETTINGS:
        tree, encoder = MBeir(saved.tree), BagEncoder()
        pool = tree.pool(setting, "test")
        cut_ND = np.stack([cut(as_stored(encoder.encode([item])[0]), dimension) for item in pool.items()])
        candidates_ND = plainly(cut_ND, precision)
        hits = []
        for query in tree.queries(setting, "test"):
            vector_D = cut(as_stored(encoder.encode([query.item], "query", query.instructions[0])[0]), dimension)
            scores_N = (candidates_ND * vector_D.astype(np.float64)).sum(axis=-1).astype(np.float32)
            first = np.lexsort((np.arange(len(pool)), -scores_N))[: 10 if setting.startswith("fashioniq") else 5]
            hits.append(bool({pool.ids[row] for row in first} & set(query.positives)))
        mains.append(100 * np.mean(hits))
    assert found[dimension, precision, False, 0].main == pytest.approx(np.mean(mains))


def as_stored(vector_D: np.ndarray) -> np.ndarray:
    return unit(vector_D.astype(np.float16).astype(np.float32))


def unit(vector_D: np.ndarray) -> np.ndarray:
    """To the last bit as for a row of many: the tree has vectors that differ in no more."""
    return vector_D / np.linalg.norm(vector_D[None], axis=1)


def cut(vector_D: np.ndarray, dimension: int) -> np.ndarray:
    return unit(vector_D[:dimension]) if dimension < len(vector_D) else vector_D


def plainly(cut_ND: np.ndarray, precision: Precision) -> np.ndarray:
    """Candidates as they are read back, number by number where that is the point."""
    if precision == "fp16":
        return cut_ND
    center_D = cut_ND.mean(axis=0)
    away_ND = cut_ND - center_D
    if precision == "binary":
        step = np.float32(max(np.abs(away_ND).mean(), 1e-6))
        signs_ND = np.array([[1 if value > 0 else -1 for value in row] for row in away_ND], np.float32)
        return np.stack([unit(row) for row in signs_ND * step + center_D])
    reach_D = np.minimum(np.abs(away_ND).max(axis=0), 4 * np.sqrt((np.abs(away_ND) ** 2).mean(axis=0)))
    step_D = np.maximum(reach_D / 127, np.float32(1e-6))
    codes_ND = np.array([[max(-127, min(127, round(float(v)))) for v in row] for row in away_ND / step_D], np.float32)
    return codes_ND * step_D + center_D


def test_a_curve_says_what_the_costs_say_and_how_long_it_took(saved: Saved, found: Found, tmp_path: Path) -> None:
    with quiet():
        drawn = curve(load(saved.first), MBeir(saved.tree), saved.work, (24, 64))
    drawn.write(tmp_path / "curve")
    content = json.loads((tmp_path / "curve" / JSON).read_text())
    assert content["model"]["fingerprint"] == BagEncoder().fingerprint and content["pool"] == "local"
    assert content["latency"]["candidates"] == 36 and content["latency"]["setting"] in SETTINGS
    points = {(one["dimension"], one["precision"], one["rescored"]): one for one in content["points"]}
    assert len(points) == len(content["points"]) == 23, "four lengths, one of them trained, three precisions, two orders, but one"
    for (dimension, precision, rescored), one in points.items():
        assert one["milliseconds"] > 0 and one["bytes"] == {"fp16": 2 * dimension, "int8": dimension, "binary": dimension // 8}[precision]
        assert dimension == 24 or one["main"] == found[dimension, precision, rescored, 0].main
    with PIL.Image.open(tmp_path / "curve" / PNG) as picture:
        assert picture.format == "PNG" and picture.width > 800
    rows = [dict(zip(HEAD, row, strict=True)) for row in drawn.rows()]
    assert rows[0] | {"ms a query": ""} == {
        "dimensions": 64,
        "kept as": "fp16",
        "bytes": 128,
        "average, %": f"{points[64, 'fp16', False]['main']:.1f}",
        "ms a query": "",
    }
    assert {row["kept as"] for row in rows} == {*PRECISIONS, *(f"{precision}, rescored" for precision in PRECISIONS)}


def test_a_large_pool_is_timed_in_part(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "BYTES", 2 * 64 * 10)
    with quiet():
        assert curve(load(saved.first), MBeir(saved.tree), saved.work).timed.candidates == 10


def test_a_filtered_search_has_no_curve(saved: Saved, tmp_path: Path) -> None:
    with quiet():
        write_outputs(evaluate(BagEncoder(), saved.tree, ["global"], work_dir=saved.work, modality_filter=True), tmp_path)
        with pytest.raises(RecipeError, match="search the local pools, too"):
            curve(load(tmp_path), MBeir(saved.tree), saved.work)
