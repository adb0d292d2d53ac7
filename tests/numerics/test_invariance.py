"""The embedding of an item depends on that item alone: not on its batch, its padding, its place, or the attention kernel."""

import numpy as np
import pytest
import torch

from tiny import (
    FAMILIES,
    INSTRUCTION,
    LONGEST,
    checkpoint,
    embedder,
    film,
    first_hidden_states,
    one_batch,
    picture,
    sample_items,
    sibling,
    with_other_last_token,
)
from umr.items import Item, Video
from umr.models.embedder import Embedder

TOLERANCE = 1e-5
KERNELS = ("eager", "sdpa", "packed")
KINDS = tuple(sample_items())


@pytest.mark.parametrize("positions", ["mrope", "flat"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_in_an_equal_batch_in_a_padded_batch_and_in_another_order(family: str, kernel: str, positions: str):
    model = embedder(family, kernel=kernel, positions=positions)
    items = list(sample_items().values())
    alone = np.concatenate([one_batch(model, [item]) for item in items])
    assert np.abs(np.linalg.norm(alone, axis=1) - 1).max() < 1e-5
    # Every item has its own vector; otherwise equality below would show nothing.
    assert np.abs(alone[:, None] - alone[None]).max(-1)[~np.eye(len(items), dtype=bool)].min() > 1e-3

    for item, vector, kind in zip(items, alone, KINDS, strict=True):
        equal = one_batch(model, [sibling(item, 1), item, sibling(item, 2)])
        assert np.abs(equal[1] - vector).max() <= TOLERANCE, f"{kind}: equal-length batch"
        padded = one_batch(model, [LONGEST, item])
        assert np.abs(padded[1] - vector).max() <= TOLERANCE, f"{kind}: padded batch"

    together = one_batch(model, items)
    assert np.abs(together - alone).max() <= TOLERANCE
    order = np.random.default_rng(0).permutation(len(items))
    assert np.abs(one_batch(model, [items[i] for i in order]) - alone[order]).max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_render_to_equal_lengths(family: str):
    engine = embedder(family).engine
    for kind, item in sample_items().items():
        lengths = {len(row.token_ids_L) for row in engine.prepare([item, sibling(item, 1), sibling(item, 2)], "candidate", [None] * 3)}
        assert len(lengths) == 1, kind
        assert max(lengths) < len(engine.prepare([LONGEST], "candidate", [None])[0].token_ids_L), kind


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{"positions": "mrope"}, {"positions": "flat"}, {"attention": "causal"}, {"pooling": "last"}], ids=str)
def test_kernels_agree(family: str, settings: dict[str, str]):
    items = list(sample_items().values())
    eager, *others = (embedder(family, kernel=kernel, **settings).encode(items) for kernel in KERNELS)
    assert max(np.abs(eager - other).max() for other in others) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_packing_changes_nothing_but_the_order_of_work(family: str):
    model = embedder(family)
    items = [*sample_items().values()] * 3
    reference = model.encode(items, side="query", instruction=INSTRUCTION)
    for budget in (1, 200, 100_000):
        other = Embedder(model.engine, batch_tokens=budget).encode(items, side="query", instruction=INSTRUCTION)
        assert np.abs(other - reference).max() <= TOLERANCE, budget


@pytest.mark.parametrize("family", FAMILIES)
def test_an_instruction_of_one_row_leaves_the_others_alone(family: str):
    model = embedder(family)
    items = list(sample_items().values())
    instructions = [INSTRUCTION if i % 2 else None for i in range(len(items))]
    mixed = model.encode(items, "query", instructions)
    without, with_it = model.encode(items, "query"), model.encode(items, "query", INSTRUCTION)
    expected = np.where((np.arange(len(items)) % 2 == 1)[:, None], with_it, without)
    assert np.abs(mixed - expected).max() <= TOLERANCE
    assert np.abs(without - with_it).max(1).min() > 1e-3, "an instruction is attended to"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["text", "image+text", "video+text"])
def test_attention_is_bidirectional_in_every_batch(family: str, kernel: str, kind: str):
    item = sample_items()[kind]
    situations = {"alone": [item], "equal length": [item, sibling(item, 1)], "padded": [item, LONGEST]}
    for attention in ("bidirectional", "causal"):
        model = embedder(family, kernel=kernel, attention=attention)
        for situation, items in situations.items():
            rows = model.engine.prepare(items, "candidate", [None] * len(items))
            before = first_hidden_states(model, rows)
            after = first_hidden_states(model, [with_other_last_token(rows[0]), *rows[1:]])
            change = (after - before).abs().amax(1)
            assert (change[0] > 1e-3) == (attention == "bidirectional"), f"{attention}, {situation}: {change[0]}"
            if attention == "causal":
                assert change[0] < 1e-6, f"{situation}: a later token reaches an earlier one"
            assert (change[1:] < 1e-6).all(), "a token of another row reaches this one"


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_matter_for_vision_and_not_for_text(family: str):
    items = list(sample_items().values())
    change = np.abs(embedder(family).encode(items) - embedder(family, positions="flat").encode(items)).max(1)
    for item, difference in zip(items, change, strict=True):
        assert difference < TOLERANCE if item.modality == "text" else difference > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_deepstack_features_are_used(kernel: str):
    model = Embedder.load(checkpoint("qwen3-vl"), kernel=kernel)
    items = sample_items()
    chosen = [items[kind] for kind in ("image", "several images", "video+text", "text")]
    before = model.encode(chosen)
    mergers = model.engine.model.network.visual.deepstack_merger_list
    assert len(mergers) > 0
    with torch.no_grad():
        for parameter in mergers.parameters():
            parameter.mul_(1.5)
    change = np.abs(model.encode(chosen) - before).max(1)
    assert (change[:3] > 1e-3).all() and change[3] == 0
    # ... and they reach a row through its own vision tokens, padded or not.
    assert np.abs(one_batch(model, [LONGEST, chosen[0]])[1] - model.encode([chosen[0]])[0]).max() <= TOLERANCE


def test_every_frame_counts_and_so_does_its_time():
    frames = film(4)
    model = embedder("qwen3-vl")
    reference = model.encode([Item.of(video=Video(frames, fps=2.0))])
    other = [Video([*frames[:3], picture(64, 64, 999)], fps=2.0), Video(frames[::-1], fps=2.0), Video(frames, fps=0.5)]
    assert (np.abs(model.encode([Item.of(video=video) for video in other]) - reference).max(1) > 1e-4).all()
