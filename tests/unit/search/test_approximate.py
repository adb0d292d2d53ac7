from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umr.search import flat, partition
from umr.search.approximate import Cells
from umr.search.columns import KEPT, Columns
from umr.search.contest import best
from umr.search.filters import Filter
from umr.search.flat import Signs, faiss_or_none, mean_of, pack_all, sample_rows
from umr.search.plans import RESULTS, STRANGER, Limits, Plan, Plans, calibrate, depth_of, method_of
from umr.search.scoring import Found, rescore
from umr.search.tier import Tier
from umr.search.together import done
from unit.search.cones import Scanned, brute, cones, recall, table_of

faiss: Any = pytest.importorskip("faiss")

DIMENSION = 128
LIMITS = Limits(exact=500, flat=1000)


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return cones(8000, DIMENSION, {"text": 0.8, "image": 0.1, "video": 0.1}, gap=2)


@pytest.fixture(scope="module")
def texts_ND(made: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return made["text"][0]


@pytest.fixture(scope="module")
def cells(texts_ND: np.ndarray) -> Cells:
    return Cells.build(texts_ND, faiss)


@pytest.fixture(scope="module")
def signs(texts_ND: np.ndarray) -> Signs:
    mean_D = mean_of(texts_ND)
    return Signs(pack_all(texts_ND, mean_D), mean_D, faiss)


def test_cells_hold_every_row_and_find_themselves(cells: Cells, texts_ND: np.ndarray):
    assert len(cells) == len(texts_ND)
    assert 100 < cells.count < 200
    queries_QD = texts_ND[:50].astype(np.float32)
    assert [rows[0] for rows in cells.nearest(queries_QD, 5, 1)] == list(range(50))
    (everything,) = cells.nearest(queries_QD[:1], len(texts_ND), cells.count)
    assert sorted(everything.tolist()) == list(range(len(texts_ND)))
    assert all(0 < len(rows) < 500 for rows in cells.nearest(queries_QD, 5000, 1)), "a cell holds what it holds"


def test_cells_are_read_as_they_were_written(cells: Cells, texts_ND: np.ndarray, tmp_path: Path):
    cells.save(tmp_path / "cells")
    again = Cells.load(tmp_path / "cells", faiss)
    queries_QD = texts_ND[::100].astype(np.float32)
    assert all(map(np.array_equal, again.nearest(queries_QD, 50, 7), cells.nearest(queries_QD, 50, 7)))
    data = (tmp_path / "cells").read_bytes()
    for damage in (b"", data[:1000], b"something else" + data):
        (tmp_path / "cells").write_bytes(damage)
        with pytest.raises(OSError, match="damaged index"):
            Cells.load(tmp_path / "cells", faiss)


def test_only_rows_that_pass_are_listed(cells: Cells, texts_ND: np.ndarray):
    passing = np.zeros(len(texts_ND), bool)
    passing[3::7] = True
    (rows,) = cells.nearest(texts_ND[:1].astype(np.float32), len(texts_ND), cells.count, passing)
    assert sorted(rows.tolist()) == np.flatnonzero(passing).tolist()


@pytest.fixture(scope="module")
def plans(made: dict[str, tuple[np.ndarray, np.ndarray]], texts_ND: np.ndarray, signs: Signs, cells: Cells) -> Plans:
    asked = {modality: vectors_ND[sample_rows(len(vectors_ND), 100, seed=2)] for modality, (vectors_ND, _) in made.items()}
    return calibrate(texts_ND, signs, cells, asked, LIMITS)


def test_what_was_calibrated_finds_as_much_for_other_queries(
    plans: Plans, made: dict[str, tuple[np.ndarray, np.ndarray]], texts_ND: np.ndarray, signs: Signs, cells: Cells
):
    """Of each modality, with the probes for that modality; queries that calibration has not seen."""
    for modality, (vectors_ND, _) in made.items():
        queries_QD = vectors_ND[sample_rows(len(vectors_ND), 100, seed=9)].astype(np.float32)
        plan = plans.choose(10, modality)
        assert plan.probes and (plan.spread or modality != "text")
        ways = [cells.nearest(queries_QD, 400, plan.probes)] + [signs.nearest(queries_QD, 400 * plan.spread)] * bool(plan.spread)
        for listed in ways:
            found = [rescore(query_D, texts_ND, rows, 10).rows for query_D, rows in zip(queries_QD, listed, strict=True)]
            true = [np.argsort(-(texts_ND.astype(np.float64) @ query_D))[:10] for query_D in queries_QD]
            assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, true, strict=True)]) >= 0.95


def test_queries_from_elsewhere_need_more(plans: Plans):
    assert set(plans.of) == {"text", "image", "video", STRANGER}
    own, unknown = plans.choose(10, "text"), plans.choose(10)
    assert unknown.probes == max(plans.choose(10, asking).probes for asking in plans.of) > 2 * own.probes
    assert plans.choose(10, "audio") == unknown, "a modality that was not there to be tried"
    assert plans.choose(1000, "text").probes == 10 * plans.choose(100, "text").probes
    assert Plans.from_json(plans.to_json()) == plans


def test_where_nothing_suffices_it_says_so(texts_ND: np.ndarray, signs: Signs, cells: Cells):
    plans = calibrate(texts_ND, signs, cells, {"text": texts_ND[:10]}, replace(LIMITS, recall=1.01))
    assert plans.choose(10) == Plan(0, 0, plans.choose(10).signs_recall, plans.choose(10).cells_recall)
    assert method_of(plans.choose(10), 10, 10**6, 2000) == "exact"
    mixed = Plans({"text": (Plan(2, 4, 0.99, 0.98),) * len(RESULTS), "image": (Plan(0, 9, 0.9, 0.97),) * len(RESULTS)})
    assert mixed.choose(10) == Plan(0, 9, 0.9, 0.97)


def test_the_cheapest_way_is_taken():
    few, many = Plan(spread=2, probes=10), Plan(spread=2, probes=900)
    assert method_of(few, 10, 1_000_000, 2000) == "cells"
    assert method_of(many, 10, 1_000_000, 2000) == "signs"
    assert method_of(few, 10, 1_000_000, 0) == "signs"
    assert method_of(Plan(spread=0, probes=900), 10, 1_000_000, 2000) == "cells"
    assert method_of(few, 10, 500, 0) == "exact"
    assert (depth_of(1), depth_of(10), depth_of(100)) == (400, 400, 4000)


def test_a_filter_that_shuts_out_what_is_near(
    made: dict[str, tuple[np.ndarray, np.ndarray]], signs: Signs, cells: Cells, plans: Plans, monkeypatch: pytest.MonkeyPatch
):
    """Two thirds pass, but none of the query's own meaning, so the cells next to it hold hardly any that do."""
    vectors_ND, meaning_N = made["text"]
    table = table_of({"text": made["text"]}).sort_by("id")
    monkeypatch.setattr(partition, "method_of", lambda *_: "cells")  # which is what it is for ten times as many rows
    searched = partition.Partition(Columns("text", table.select(KEPT)), vectors_ND, signs, cells, plans, LIMITS)
    where = Filter.parse({"meaning": {"gte": 3}})
    queries_QD = vectors_ND[np.flatnonzero(meaning_N < 3)[:40]].astype(np.float32)
    assert 0.5 < np.mean(meaning_N >= 3) < 0.75
    true = brute(table, queries_QD, 10, where)

    def found(some: list[Found]) -> float:
        names = [set(searched.columns.names(one.rows)) for one in some]
        return float(np.mean([len(ids & {near.id for near in one}) / 10 for ids, one in zip(names, true, strict=True)]))

    passing = meaning_N >= 3
    listed = cells.nearest(queries_QD, 400, plans.choose(10, "text").probes, passing)
    plain = [rescore(query_D, vectors_ND, rows, 10) for query_D, rows in zip(queries_QD, listed, strict=True)]
    assert found(plain) < 0.9, "the cells that suffice without a filter do not"
    (listed,) = done([searched.work(queries_QD, 10, where, "text")], apart=False)
    assert found([best(query_D, [one], 10, 400)[0] for query_D, one in zip(queries_QD, listed, strict=True)]) >= 0.95


def test_without_faiss_signs_serve_every_size(
    made: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = table_of(made)
    asked_QD = made["image"][0][:30].astype(np.float32)
    with_faiss = Tier.open(Scanned(table), tmp_path / "with", "1", DIMENSION, LIMITS)
    assert with_faiss.stats()["partitions"]["text"]["search"] == "cells"
    monkeypatch.setattr(flat, "_faiss", lambda: None)
    assert faiss_or_none() is None
    for folder, scans in (("without", 1), ("with", 0)):  # an index that was made with it can be read, too
        scan = Scanned(table)
        tier = Tier.open(scan, tmp_path / folder, "1", DIMENSION, LIMITS)
        assert scan.scans == scans
        stats = tier.stats()
        assert stats["note"].startswith("faiss is not installed") and not stats["faiss"]
        assert "cells" not in {one["search"] for one in stats["partitions"].values()}
        assert recall(tier.nearest(asked_QD, 10), brute(table, asked_QD, 10)) >= 0.95
