import numpy as np
import pytest

from umr.search import columns
from umr.search.columns import KEPT, Columns
from umr.search.filters import Filter
from unit.search.cones import rows_of


@pytest.fixture
def held() -> Columns:
    table = rows_of([f"id-{number}" for number in range(50)], "image", np.eye(2, dtype=np.float16)[[0] * 50], list(range(50)))
    return Columns("image", table.select(KEPT))


def test_rows_that_pass_are_numbered_and_named(held: Columns):
    places = held.passing(Filter.parse({"meaning": {"gte": 10, "lt": 13}}))
    assert places is not None and places.tolist() == [10, 11, 12]
    assert held.names(places) == ["id-10", "id-11", "id-12"]
    assert len(held) == 50


@pytest.mark.parametrize("where", [None, {}, {"modality": "image"}, {"modality": ["text", "image"]}, {"modality": {"ne": "text"}}])
def test_a_filter_that_all_rows_pass_looks_at_none(held: Columns, where: dict):
    assert held.passing(Filter.parse(where)) is None


@pytest.mark.parametrize(
    "where", [{"modality": "text"}, {"modality": "text", "meaning": 3}, {"unknown": 1}, {"modality": {"exists": False}}]
)
def test_a_filter_that_none_passes(held: Columns, where: dict):
    places = held.passing(Filter.parse(where))
    assert places is not None and len(places) == 0


def test_modality_and_the_rest_must_both_hold(held: Columns):
    places = held.passing(Filter.parse({"modality": "image", "meaning": [3, 4]}))
    assert places is not None and places.tolist() == [3, 4]


def test_the_filters_asked_last_are_remembered(held: Columns, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "REMEMBERED", 50)
    first, second = Filter.parse({"meaning": {"lt": 30}}), Filter.parse({"meaning": {"lt": 20}})
    places = held.passing(first)
    held.passing(second)
    assert held.passing(first) is places, "both fit"
    third = Filter.parse({"meaning": {"lt": 25}})
    held.passing(third)
    assert held.passing(third) is held.passing(third)
    assert held.passing(first) is not places, "one had to go"
