"""The gate for search across modalities: recall must hold where queries and rows lie in different cones.

One index over all modalities passes the usual tests and finds nothing here, which the last test shows.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umr.search.approximate import Cells
from umr.search.filters import Filter
from umr.search.plans import Limits
from umr.search.table import Near
from umr.search.tier import Tier
from unit.search.cones import Scanned, brute, cones, recall, table_of

ROWS, DIMENSION, QUERIES = 20_000, 128, 40
WAYS = {"signs": Limits(exact=250, sample=50), "cells": Limits(exact=250, flat=1000, sample=50)}
FILTERS = {
    "none": (None, None),
    "random tenth": (Filter.parse({"tenth": 3}), None),
    "whole meanings": (Filter.parse({"meaning": {"gte": 20, "lt": 40}}), None),
    "another modality": (None, ["video"]),
    "another modality and a tenth": (Filter.parse({"tenth": 3, "modality": "image"}), None),
}

ASKING = ["text", "video"]

Made = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def made() -> Made:
    return cones(ROWS, DIMENSION, gap=1.5)


@pytest.fixture(scope="module")
def table(made: Made) -> pa.Table:
    return table_of(made)


@pytest.fixture(scope="module", params=WAYS)
def tier(request: pytest.FixtureRequest, table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Tier:
    if request.param == "cells":
        pytest.importorskip("faiss")
    tier = Tier.open(Scanned(table), tmp_path_factory.mktemp("index"), "1", DIMENSION, WAYS[request.param])
    assert request.param in {one["search"] for one in tier.stats()["partitions"].values()}
    return tier


def asked_by(made: Made, modality: str) -> np.ndarray:
    """Vectors of a modality with some noise, so that none of them is stored."""
    draw = np.random.default_rng(7)
    vectors_ND = made[modality][0]
    queries_QD = vectors_ND[draw.integers(len(vectors_ND), size=QUERIES)].astype(np.float64)
    queries_QD += 0.3 * draw.standard_normal(queries_QD.shape) / np.sqrt(DIMENSION)
    return queries_QD.astype(np.float32)


@pytest.fixture(scope="module")
def truth(made: Made, table: pa.Table) -> dict[tuple[str, str], list[list[Near]]]:
    asked = {asking: asked_by(made, asking) for asking in ASKING}
    return {(name, asking): brute(table, asked[asking], 10, *FILTERS[name]) for name in FILTERS for asking in ASKING}


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("name", FILTERS)
def test_recall_holds_between_modalities(tier: Tier, made: Made, truth: dict[tuple[str, str], list[list[Near]]], name: str, asking: str):
    where, modalities = FILTERS[name]
    queries_QD, true = asked_by(made, asking), truth[name, asking]
    assert recall(tier.nearest(queries_QD, 10, where, modalities), true) >= 0.95
    assert recall(tier.nearest(queries_QD, 10, where, modalities, asking), true) >= 0.95


def test_one_index_over_all_modalities_would_fail(made: Made):
    faiss: Any = pytest.importorskip("faiss")
    vectors_ND = np.concatenate([vectors_ND for vectors_ND, _ in made.values()])
    video_N = np.repeat(list(made), [len(vectors_ND) for vectors_ND, _ in made.values()]) == "video"
    cells = Cells.build(vectors_ND, faiss)
    queries_QD = asked_by(made, "text")
    wide_ND = vectors_ND.astype(np.float32)

    def found(true_QN: np.ndarray, passing: np.ndarray | None) -> float:
        true = np.argsort(-true_QN, axis=1)[:, :10]
        listed = cells.nearest(queries_QD, 400, cells.count // 10, passing)
        return float(np.mean([np.isin(one, rows).mean() for one, rows in zip(true, listed, strict=True)]))

    scores_QN = queries_QD @ wide_ND.T
    assert found(scores_QN, None) >= 0.95, "it looks good where nobody filters"
    assert found(np.where(video_N, scores_QN, -np.inf), video_N) <= 0.1
