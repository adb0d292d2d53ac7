"""From examples to rows and identities, with the renderer of a real tiny checkpoint."""

from functools import partial

import numpy as np
import pytest
import torch

from tiny import embedder, picture
from umr.errors import MediaError
from umr.items import Item
from umr.losses.infonce import false_negatives
from umr.rendering.renderer import Renderer
from umr.training.batches import StepDataset, build, hash64
from umr.training.examples import Example
from umr.training.plan import Plan

RED, BLUE, GREEN = (Item.of(image=picture(64, 64, seed), id=f"1:{seed}") for seed in (1, 2, 3))
COPY_OF_RED = Item.of(image=picture(64, 64, 1), id="1:9")


def text(words: str, id: str | None = None) -> Item:
    return Item.of(text=words, id=id)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return embedder("qwen3-vl").engine.renderer


def example(query: Item, positive: Item, negatives=(), positives=(), instruction=None, space="") -> Example:
    return Example(query, instruction, positive, tuple(negatives), (positive.id, *positives) if positive.id else positives, space)


def made(renderer: Renderer, *examples: Example):
    return build(examples, renderer)


def test_each_distinct_row_is_rendered_once(renderer: Renderer):
    batch = made(
        renderer,
        example(text("a red thing"), RED, negatives=[BLUE, GREEN]),
        example(text("a blue thing"), BLUE, negatives=[RED, COPY_OF_RED]),
        example(text("a red thing"), RED),
        example(RED, text("a red thing", "2:1")),
    )
    # Two texts, three pictures: the copy shares its row, and so does what is query here and candidate there.
    assert len(batch.rows) == 5
    assert batch.query_B.tolist() == [0, 1, 0, 2]
    assert batch.candidate_C[batch.columns.target_B].tolist() == [2, 3, 2, 0]
    assert len(batch.columns.did_C) == 5, "red, blue, the text, green, and the copy under its own id"
    assert len(set(batch.columns.did_C.tolist())) == 5
    assert len(set(batch.columns.content_C.tolist())) == 4


def test_an_instruction_makes_another_row_and_a_candidate_has_none(renderer: Renderer):
    batch = made(
        renderer,
        example(RED, BLUE, instruction="Find the other."),
        example(RED, BLUE, instruction="Find the same."),
        example(RED, BLUE),
        example(BLUE, RED),
    )
    assert len(batch.rows) == 4
    assert len(set(batch.query_B.tolist())) == 4
    lengths = [len(row.token_ids_L) for row in batch.rows]
    assert lengths[batch.query_B[0]] > lengths[batch.query_B[2]]
    assert batch.candidate_C[batch.columns.target_B[3]] == batch.query_B[2]


def test_rows_are_what_the_renderer_makes_of_them(renderer: Renderer):
    batch = made(renderer, example(text("one"), RED, [GREEN], instruction="Find it."), example(text("two"), BLUE))
    expected = {
        batch.query_B[0]: renderer.render([text("one")], "query", "Find it.")[0],
        batch.query_B[1]: renderer.render([text("two")], "query")[0],
        **{row: renderer.render([item], "candidate")[0] for row, item in zip(batch.candidate_C.tolist(), (RED, BLUE, GREEN), strict=True)},
    }
    for row, rendered in expected.items():
        assert np.array_equal(batch.rows[row].token_ids_L, rendered.token_ids_L)
        assert np.array_equal(batch.rows[row].pool_L, rendered.pool_L)
        assert all(torch.equal(a.patches_PC, b.patches_PC) for a, b in zip(batch.rows[row].blocks, rendered.blocks, strict=True))


def test_known_positives_and_copies_are_masked_end_to_end(renderer: Renderer):
    batch = made(
        renderer,
        example(text("warm"), RED, negatives=[COPY_OF_RED], positives=["1:3"]),
        example(text("cold"), BLUE, negatives=[RED]),
        example(text("leaf"), GREEN),
    )
    columns = batch.columns
    names = dict(zip(columns.did_C.tolist(), range(10), strict=False))
    red, blue, green, copy = (names[hash64(f"\0{item.id}")] for item in (RED, BLUE, GREEN, COPY_OF_RED))
    masked = [set(row.nonzero()[:, 0].tolist()) for row in false_negatives(columns)]
    assert masked == [{copy, green}, set(), set()]
    assert columns.target_B.tolist() == [red, blue, green]


def test_equal_ids_of_two_data_sets_are_two_candidates(renderer: Renderer):
    batch = made(
        renderer,
        example(text("first"), Item.of(image=picture(64, 64, 1), id="caption:0:positive"), space="a.jsonl"),
        example(text("second"), Item.of(image=picture(64, 64, 2), id="caption:0:positive"), space="b.jsonl"),
    )
    assert len(batch.columns.did_C) == 2 and len(set(batch.columns.target_B.tolist())) == 2
    assert not false_negatives(batch.columns).any()


def test_items_without_an_id_are_told_apart_by_content(renderer: Renderer):
    batch = made(renderer, example(text("a"), text("right")), example(text("b"), text("right")), example(text("c"), text("wrong")))
    assert batch.columns.target_B.tolist() == [0, 0, 1]


def test_hashes_are_positive_and_distinct():
    hashes = {hash64(str(number)) for number in range(20_000)}
    assert len(hashes) == 20_000 and min(hashes) > 0 and max(hashes) < 2**63


class Words:
    """A source of text examples; element 7 cannot be read."""

    name = "words"

    def __len__(self) -> int:
        return 24

    def example(self, index: int, epoch: int) -> Example:
        if index == 7:
            raise MediaError("7.png: is not an image")
        return example(text(f"query {index}, pass {epoch}"), text(f"answer {index}", f"0:{index}"))


def test_devices_share_a_batch(renderer: Renderer):
    plan = Plan([24], [1.0], 6, 3, None, 0)
    whole = StepDataset(plan, [Words()], partial(build, renderer=renderer))
    parts = [StepDataset(plan, [Words()], partial(build, renderer=renderer), rank, 2) for rank in range(2)]
    assert len(whole) == len(parts[0]) == 3
    for step in range(3):
        together, *shares = (dataset[step] for dataset in (whole, *parts))
        if isinstance(together, MediaError):
            continue
        targets = [set(share.columns.did_C[share.columns.target_B].tolist()) for share in shares]
        assert len(targets[0]) == len(targets[1]) == 3 and not targets[0] & targets[1]
        assert targets[0] | targets[1] == set(together.columns.did_C.tolist())


def test_what_cannot_be_read_arrives_as_the_error_itself(renderer: Renderer):
    dataset = StepDataset(Plan([24], [1.0], 24, 1, None, 0), [Words()], partial(build, renderer=renderer))
    error = dataset[0]
    assert isinstance(error, MediaError) and str(error) == "7.png: is not an image"
