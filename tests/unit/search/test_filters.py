"""Filters: what may be written, what it means, and that the fast form means the same as the plain one."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umr.errors import DataError
from umr.search import metadata
from umr.search.filters import OPS, Condition, Filter, fields_of
from umr.search.rows import Row

SHOE = {"year": 2021, "colour": "red", "tags": ["new", "sale"], "price": 59.5, "sold": False, "modality": "image", "page": None}


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        (None, True),
        ({}, True),
        ({"year": 2021}, True),
        ({"year": 2021.0}, True),
        ({"year": "2021"}, False),
        ({"year": True}, False),
        ({"sold": False}, True),
        ({"sold": 0}, False),
        ({"year": {"gte": 2020, "lt": 2022}}, True),
        ({"year": {"gt": 2021}}, False),
        ({"year": {"gt": "1999"}}, False),
        ({"colour": {"gt": "orange"}}, True),
        ({"colour": ["red", "blue"]}, True),
        ({"colour": []}, False),
        ({"colour": {"not_in": ["red"]}}, False),
        ({"colour": {"contains": "ed"}}, True),
        ({"tags": {"contains": "sale"}}, True),
        ({"tags": {"contains": "sal"}}, False),
        ({"tags": "new"}, True),
        ({"tags": {"ne": "new"}}, False),
        ({"size": {"ne": 3}}, True),
        ({"size": {"not_in": [3]}}, True),
        ({"size": {"gt": 3}}, False),
        ({"size": None}, True),
        ({"page": None}, True),
        ({"year": {"exists": True}}, True),
        ({"year": 2021, "colour": "blue"}, False),
        (["year>=2020", "colour=red"], True),
        ("year<2021", False),
        ("year = 2021", True),
        ('year="2021"', False),
        ("colour!=red", False),
        ("colour~re", True),
        ('colour=["red","blue"]', True),
        ("size=null", True),
        ("size!=null", False),
        ("sold=false", True),
        ("sold=False", False),
        ([{"year": 2021}, "modality=image"], True),
    ],
)
def test_what_a_filter_means(asked: Any, passes: bool):
    assert Filter.parse(asked).matches(SHOE) == passes


def test_written_and_json_forms_are_the_same_filter():
    assert Filter.parse({"year": {"gte": 2020}, "a b": "x=y"}) == Filter.parse(["year>=2020", "a b = x=y"])
    assert hash(Filter.parse({"a": ["x", "y"]})) == hash(Filter.parse('a=["x", "y"]'))
    assert Filter.parse(Filter.parse("a=1")).fields == {"a"}
    assert not Filter.parse(None) and Filter.parse("a=1") & Filter.parse("b=2") == Filter.parse(["a=1", "b=2"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"year": {"above": 3}}, "unknown op 'above'; there are eq, ne"),
        ({"year": {}}, "filter on 'year'.*empty object"),
        ({"year": {"gt": [1, 2]}}, "gt needs one value"),
        ({"year": {"in": 3}}, "in needs a list of values"),
        ({"year": {"exists": "yes"}}, "exists needs true or false"),
        ({"year": {"eq": None}}, "a value is a text, a number"),
        ({"year": [{"a": 1}]}, "a value is a text, a number"),
        ({"year": math.nan}, "nan is not a number that can be compared"),
        ({"name": "\ud800"}, "not valid Unicode"),
        ({"": 1}, "not empty"),
        ("year", "not of the form field=value"),
        ("=3", "not of the form field=value"),
        (3, "a filter is an object"),
    ],
)
def test_a_filter_that_makes_no_sense_says_so(asked: Any, message: str):
    with pytest.raises(DataError, match=message):
        Filter.parse(asked)


def test_a_rows_own_fields_win_over_metadata_of_the_same_name():
    row = Row("a", "b.pdf", "image", "d", None, page=3, metadata={"page": "cover", "year": 1999})
    fields = fields_of(row)
    assert (fields["page"], fields["metadata.page"], fields["year"], fields["id"]) == (3, "cover", 1999, "a")
    assert "metadata.id" not in fields


# Values that lie where int64, double and Python's exact comparisons part.
EDGES = [2**53, 2**53 + 1, 2**53 + 3, 2**63 - 1, -(2**63), 2.0**53, 2.0**53 + 4, 2.0**63, 0, -0.0, 0.5, -0.5, 1, -1, 1e300]
numbers = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2, 2)
texts = st.sampled_from(["", "a", "ab", "b", "é", "𝔸", "％"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
asked_values = numbers | st.integers(2**63, 2**1100) | texts | st.booleans()
stored_values = st.none() | numbers | texts | st.booleans() | st.lists(texts, max_size=3)
records = st.lists(st.dictionaries(st.sampled_from(["x", "y", "page"]), stored_values, max_size=3), max_size=12)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    field, op = draw(st.sampled_from(["x", "y", "z", "page", "metadata.page", "id"])), draw(st.sampled_from(OPS))
    values = st.lists(asked_values, max_size=3).map(tuple) if op in ("in", "not_in") else asked_values
    return Condition(field, op, draw(st.booleans() if op == "exists" else values))


@settings(max_examples=300, deadline=None)
@given(records=records, where=st.lists(conditions(), max_size=3), dictionary=st.booleans())
@example(records=[{"x": 2**53 + 1}], where=[Condition("x", "eq", float(2**53))], dictionary=False)
@example(records=[{"x": float(2**53)}], where=[Condition("x", "lt", 2**53 + 1)], dictionary=False)
@example(records=[{"x": 1e300}], where=[Condition("x", "gte", 2**1090)], dictionary=False)
def test_the_fast_form_agrees_with_the_plain_one(records: list[dict[str, Any]], where: list[Condition], dictionary: bool):
    rows = [
        Row(f"r{n}", "s", "text", "", None, page=n if n % 3 else None, start=n / 2 if n % 2 else None, metadata=record)
        for n, record in enumerate(records)
    ]
    asked = Filter(tuple(where))
    scanned = pa.table(
        {
            "id": pa.array([row.id for row in rows], pa.string()),
            "source": pa.array([row.source for row in rows], pa.string()),
            "modality": pa.array([row.modality for row in rows], pa.string()),
            "page": pa.array([row.page for row in rows], pa.int32()),
            "start": pa.array([row.start for row in rows], pa.float64()),
            "end": pa.array([row.end for row in rows], pa.float64()),
            "metadata": pa.array([metadata.encode(row.metadata) for row in rows], pa.string()),
        }
    )
    columns = metadata.filter_columns(scanned, asked.fields)
    if dictionary:
        columns = {name: c.dictionary_encode() if pa.types.is_string(c.type) else c for name, c in columns.items()}
    np.testing.assert_array_equal(asked.mask(columns), [asked.matches(fields_of(row)) for row in rows])


@pytest.mark.parametrize("op", ["eq", "ne", "gt", "gte", "lt", "lte"])
def test_numbers_are_compared_exactly(op: Any):
    for asked in [*EDGES, 2**63, -(2**63) - 1, 2**1090, -(2**1090)]:
        where = Filter((Condition("x", op, asked),))
        for stored in EDGES:
            columns = {"x": pa.array([stored, None])}
            assert where.mask(columns).tolist() == [where.matches({"x": stored}), op == "ne"], (stored, asked)


def test_masks_go_through_chunks_and_slices():
    whole = pa.array(["a", "b", None, "a", "c"])
    chunked = pa.chunked_array([whole[:2], whole[2:2], whole[2:].dictionary_encode().cast(pa.string())])
    for column in (whole, chunked, pa.chunked_array([whole[:2].dictionary_encode(), whole[2:].dictionary_encode()])):
        assert Filter.parse('x=["a","c"]').mask({"x": column}).tolist() == [True, False, False, True, True]
    lists = pa.array([["a"], None, [], ["b", "a"], ["c"]])[1:]
    assert Filter.parse("x~a").mask({"x": lists}).tolist() == [False, False, True, False]


def test_metadata_comes_back_as_it_went():
    fields = {"n": 3, "f": 3.0, "t": "ü", "b": True, "l": ["x", "y"], "none": None}
    back = metadata.decode(metadata.encode(fields))
    assert back == {name: value for name, value in fields.items() if value is not None}
    assert [type(back[name]) for name in ("n", "f", "b")] == [int, float, bool]
    assert metadata.encode({"b": 1, "a": 2}) == metadata.encode({"a": 2, "b": 1})


@pytest.mark.parametrize("value", [math.inf, 2**63, {"a": 1}, [1], b"x", "\udcff", object()])
def test_metadata_of_another_type_is_refused(value: Any):
    with pytest.raises(DataError, match=r"row 7: metadata field 'x' is .* must be a text"):
        metadata.encode({"x": value}, "row 7")
