"""Texts are given to a model as M-BEIR's reader gives them, in a collection that wants that, and stay as they are everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data.mbeir_records import candidate_item, query_item
from umr.items import Image, Item, QueryText
from umr.progress import quiet
from umr.rendering.pairs import Pair
from umr.search.cleaning import CleaningEncoder, cleaned
from umr.search.collection import Collection
from umr.search.indexing import Indexing
from unit.search import small_files as small
from unit.search.seeing_encoder import SeeingEncoder

LIKELY = st.one_of(st.text(), st.text(alphabet=' \t\r\n"ab.?!É'), st.just("a red boat"))


class Recorder(SeeingEncoder):
    """Remembers the texts and instructions that it was given."""

    def __init__(self, query_text: QueryText = "separate") -> None:
        super().__init__()
        self.query_text = query_text
        self.given: list[tuple[str, str | None]] = []

    def encode(self, items: Sequence[Item], side: Any = "candidate", instruction: Any = None) -> Any:
        said = instruction if isinstance(instruction, list) else [instruction] * len(items)
        self.given += [(item.text, one) for item, one in zip(items, said, strict=True)]
        return super().encode(items, side, instruction)


class Judge:
    """A reranker that remembers its pairs."""

    fingerprint = "judge"

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def score_pairs(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        self.pairs += pairs
        return np.linspace(0, 1, len(pairs), dtype=np.float32)


@given(LIKELY)
def test_cleaning_is_that_of_the_reader(text: str) -> None:
    record = {"did": "1:1", "modality": "text", "txt": text}
    there = Item.of(text=text or " ", id="1:1")
    try:
        expected = candidate_item(record, Path())
    except Exception:  # nothing but blanks and quotes, which a benchmark refuses
        assert cleaned(there) == there
    else:
        assert cleaned(there) == expected
        assert cleaned(expected) == expected


@given(LIKELY)
def test_queries_are_cleaned_as_their_model_wants_them(text: str) -> None:
    for style in get_args(QueryText):
        record = {"qid": "1:1", "query_modality": "image,text", "query_img_path": "a.png", "query_txt": text}
        expected = query_item(record, Path("root"), style)
        if expected.modality == "image,text" and text:
            assert cleaned(Item.of(image=Path("root/a.png"), text=text, id="1:1"), style) == expected


def test_only_texts_change_and_ids_stay() -> None:
    item = Item.of(image=small.image(1), text="a boat", id="x")
    found = cleaned(item)
    assert (found.id, found.text) == ("x", "A boat.") and found.parts[0] is item.parts[0] and isinstance(found.parts[0], Image)
    picture = Item.of(image=small.image(1))
    assert cleaned(picture) == picture


@pytest.mark.parametrize(("style", "asked"), [("separate", "A red boat."), ("joined", "a red boat.")])
def test_a_query_with_an_instruction(style: QueryText, asked: str) -> None:
    model = Recorder(style)
    encoder = CleaningEncoder(model)
    assert (encoder.fingerprint, encoder.dimension) == (model.fingerprint, model.dimension)
    items = [Item.of(text="a red boat")] * 2
    encoder.encode(items, "query", ["find it", None])
    encoder.encode(items[:1])
    assert model.given == [(asked, "Find it."), ("A red boat.", None), ("A red boat.", None)]


def test_a_collection_cleans_what_models_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a red boat")
    (tmp_path / "files" / "b.png").write_bytes(small.image(1))
    model, judge = Recorder(), Judge()
    with quiet():
        Indexing.begin(tmp_path / "files", tmp_path / "c", model, texts="mbeir").run()
    assert model.given == [("A red boat.", None), ("", None)]
    with Collection.open(tmp_path / "c", model) as found:
        (row,) = found.get(["a.txt#chunk=1"])
        assert row.text == "a red boat" and found.search("boat", mode="words").ids == [row.id]
        model.given.clear()
        hits = found.search("a red boat", instruction="find it", minus="a car", reranker=judge)
        assert model.given == [("A red boat.", "Find it."), ("A car.", "Find it.")] and hits.reranked == 2
        found.add([Item.of(text="a door", id="door")])
        assert model.given[-1] == ("A door.", None)
    asked = {(pair.query.text, pair.instruction, pair.candidate.text) for pair in judge.pairs}
    assert asked == {("A red boat.", "Find it.", "A red boat."), ("A red boat.", "Find it.", "")}
