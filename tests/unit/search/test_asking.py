"""Questions: what is composed, what is added and subtracted, and which questions are refused."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from umr.errors import MediaError, ModelError, RecipeError
from umr.items import Item, Query
from umr.search.asking import MINUS_WEIGHT, Part, ask, combined
from unit.mbeir_fixture import BagEncoder

RED, BLUE = (PIL.Image.new("RGB", (8, 8), colour) for colour in ((220, 20, 20), (20, 20, 220)))


def vector(item: Item, instruction: str | None = None) -> np.ndarray:
    return BagEncoder().encode([item], "query", instruction)[0]


def test_text_and_image_together_are_one_composed_item():
    question = ask(text="in red", image=BLUE)
    assert question.wanted == Item.of(text="in red", image=BLUE)
    np.testing.assert_array_equal(question.vector(BagEncoder()), vector(Item.of(text="in red", image=BLUE)))


def test_parts_are_embedded_alone_and_added_with_their_weights():
    parts = [Part(Item.of(image=BLUE), 0.25), Part(Item.of(text="in red"), 0.75)]
    found = ask(parts=parts, minus=Part(Item.of(text="heels"), 0.2), instruction="Find shoes").vector(BagEncoder())
    sum_D = sum(
        weight * vector(item, "Find shoes").astype(np.float64)
        for item, weight in ((Item.of(image=BLUE), 0.25), (Item.of(text="in red"), 0.75), (Item.of(text="heels"), -0.2))
    )
    np.testing.assert_allclose(found, sum_D / np.linalg.norm(sum_D), atol=1e-7)
    assert found.dtype == np.float32


def test_what_is_avoided_moves_the_query_away_from_it():
    heels = vector(Item.of(text="heels"))
    with_minus = ask("red shoe with heels", minus="heels").vector(BagEncoder())
    assert with_minus @ heels < ask("red shoe with heels").vector(BagEncoder()) @ heels - 0.1
    assert ask("x", minus=["a", Item.of(image=RED)]).parts[1:] == (
        Part(Item.of(text="a"), -MINUS_WEIGHT),
        Part(Item.of(image=RED), -MINUS_WEIGHT),
    )


def test_words_and_wanted_leave_out_what_is_avoided():
    question = ask("red shoe", parts=[Part(Item.of(text="leather")), Part(Item.of(image=RED))], minus="heels")
    assert question.words == "red shoe leather"
    assert question.wanted.modality == "image,text"
    assert question.avoids


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(2, 5), st.just(6)), elements=st.floats(-1, 1, width=16)),
    st.lists(st.floats(0.1, 3.0), min_size=5, max_size=5),
)
def test_combined_is_the_normalised_weighted_sum(vectors_PD: np.ndarray, weights: list[float]):
    weights_P = [weight * (-1) ** place for place, weight in enumerate(weights[: len(vectors_PD)])]
    naive_D = sum(weight * row_D for weight, row_D in zip(weights_P, vectors_PD.astype(np.float64), strict=True))
    assume(np.linalg.norm(naive_D) > 0.1)
    found_D = combined(vectors_PD, weights_P)
    np.testing.assert_allclose(found_D, naive_D / np.linalg.norm(naive_D), atol=1e-6)
    assert abs(np.linalg.norm(found_D) - 1) < 1e-6


def test_a_query_brings_its_instruction():
    query = Query(Item.of(text="a"), "Find it")
    assert ask(query).instruction == "Find it"
    with pytest.raises(RecipeError, match="brings its own instruction"):
        ask(query, instruction="Another")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "nothing to search for"),
        ({"query": ""}, "query is empty"),
        ({"text": " \n"}, "text is empty"),
        ({"minus": "heels"}, "say what is wanted"),
        ({"query": "a", "text": "b"}, "query and text both say"),
        ({"query": 3}, "must be text or an Item, not int"),
        ({"query": "a", "minus": Part(Item.of(text="b"), -1)}, "minus subtracts by itself"),
    ],
)
def test_questions_that_are_refused(arguments: dict, line: str):
    with pytest.raises(RecipeError, match=line):
        ask(**arguments)


@pytest.mark.parametrize("weight", [0, float("nan"), float("inf")])
def test_weights_that_are_refused(weight: float):
    with pytest.raises(RecipeError, match="must be a number other than 0"):
        Part(Item.of(text="a"), weight)


def test_a_path_as_text_is_no_image():
    with pytest.raises(MediaError, match="write Path"):
        ask(image="shoe.jpg")  # type: ignore[arg-type]


def test_parts_that_cancel_and_vectors_that_are_no_numbers():
    with pytest.raises(RecipeError, match="cancel each other"):
        ask("heels", minus=Part(Item.of(text="heels"), 1.0)).vector(BagEncoder())
    with pytest.raises(ModelError, match="not finite"):
        combined(np.array([[np.nan, 1.0]], np.float32), [1.0])
