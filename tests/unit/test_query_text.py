"""How the text of an instructed query is cleaned: on its own, or joined with its instruction."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data.mbeir import MBeir
from umr.data.mbeir_records import normalise_after_instruction, normalise_text, query_item
from umr.errors import DataError, ModelError
from umr.evaluation import evaluate
from umr.models.settings import ModelSettings
from umr.protocols import query_text_of

TEXTS = st.text(st.sampled_from(list("aZ\"'.?! \r\n\té日")), max_size=8)


def format_string(text: str) -> str:
    """The authors' rule, applied once, as spec and paper describe it."""
    text = text.replace("\r", "").strip().strip('"')
    if not text:
        return text
    text = text[0].upper() + text[1:]
    return text if text[-1] in (".", "?", "!") else text + "."


@given(instruction=TEXTS.filter(lambda text: normalise_text(text) != ""), text=TEXTS)
def test_the_joined_string_is_the_authors(instruction: str, text: str):
    said = normalise_text(instruction)
    after = normalise_after_instruction(text)
    joined = f"{said} {after}" if after else said
    assert joined == format_string(f"{said} {text}")


@given(instruction=TEXTS.filter(lambda text: normalise_text(text) != ""), text=TEXTS)
def test_with_markers_only_an_empty_text_differs(instruction: str, text: str):
    marked = f"<instruction_start>{normalise_text(instruction)}<instruction_end>"
    after = normalise_after_instruction(text)
    assert (f"{marked} {after}" if after else f"{marked}.") == format_string(f"{marked} {text}")


def test_the_text_keeps_its_beginning():
    assert normalise_after_instruction('"a dog" ') == '"a dog.'
    assert normalise_text('"a dog" ') == "A dog."
    assert normalise_after_instruction(None) == normalise_after_instruction(" \r\n") == ""


def test_only_queries_with_an_instruction_are_joined(own_world: Path):
    name = MBeir(own_world).settings("test")[0].name
    plain, joined = MBeir(own_world), MBeir(own_world).with_query_text("joined")
    assert plain.with_query_text("separate") is plain
    assert joined.pool(name, "test") is joined.with_query_text("separate").pool(name, "test")
    record = json.loads(plain.query_path(name, "test").read_text("utf-8").splitlines()[0])
    ours, theirs = plain.queries(name, "test")[0], joined.queries(name, "test")[0]
    assert ours.item.text == normalise_text(record["query_txt"])
    assert theirs.item.text == normalise_after_instruction(record["query_txt"])
    assert joined.train_queries()[0].item == query_item(joined.train_queries().indexes[0].at(0), own_world, "joined")
    (own_world / "instructions" / "query_instructions.tsv").unlink()
    assert MBeir(own_world, query_text="joined").queries(name, "test")[0].item.text == ours.item.text


def test_a_way_that_does_not_exist(world: Path):
    with pytest.raises(DataError, match="query_text must be 'separate' or 'joined', not 'glued'"):
        MBeir(world, query_text="glued")
    with pytest.raises(ModelError, match="query_text='glued'; use one of separate, joined"):
        ModelSettings(query_text="glued").check("qwen2_vl", 8, "here")


class Recorder:
    """An encoder that keeps the texts of the queries it is shown."""

    dimension, fingerprint = 4, "recorder"

    def __init__(self, **wishes: str) -> None:
        self.queries: list[str] = []
        self.__dict__.update(wishes)

    def encode(self, items, side="candidate", instruction=None):
        self.queries += [item.text for item in items] if side == "query" else []
        return np.eye(4, dtype=np.float32)[[len(item.text or "") % 4 for item in items]]


def test_evaluation_asks_the_encoder(world: Path):
    tree = MBeir(world)
    name = next(one.name for one in tree.settings("test") if one.task == 0)
    shown = {}
    for encoder in (Recorder(), Recorder(query_text="separate"), Recorder(query_text="joined")):
        evaluate(encoder, tree, pools=["local"], tasks=[name])
        shown[query_text_of(encoder), hasattr(encoder, "query_text")] = encoder.queries
    records = [json.loads(line)["query_txt"] for line in tree.query_path(name, "test").read_text("utf-8").splitlines()]
    assert shown["separate", False] == shown["separate", True] == [normalise_text(text) for text in records]
    assert shown["joined", True] == [normalise_after_instruction(text) for text in records]
