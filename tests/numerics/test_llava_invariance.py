"""LLaVA-NeXT: the embedding of an item depends on that item alone, in both attention directions, kernels and tile modes."""

import itertools

import numpy as np
import pytest

from tiny import (
    INSTRUCTION,
    LONGEST,
    embedder,
    first_hidden_states,
    one_batch,
    sample_items,
    sibling,
    with_other_last_token,
)
from umr.models.embedder import Embedder

TOLERANCE = 1e-5
KERNELS = ("eager", "sdpa")
TILES = ("global", "anyres")
KINDS = ("text", "unicode text", "wide image", "image+text", "several images", "text, image, text")
ITEMS = {kind: sample_items()[kind] for kind in KINDS}
MODES = list(itertools.product(TILES, KERNELS, ("bidirectional", "causal")))


def model(tiles: str, kernel: str, attention: str) -> Embedder:
    # The causal variant is read off its last token, as MM-Embed's is.
    pooling = "last" if attention == "causal" else "mean"
    return embedder("llava-next", image_tiles=tiles, kernel=kernel, attention=attention, pooling=pooling)


@pytest.mark.parametrize(("tiles", "kernel", "attention"), MODES)
def test_alone_in_an_equal_batch_in_a_padded_batch_and_in_another_order(tiles: str, kernel: str, attention: str):
    loaded, items = model(tiles, kernel, attention), list(ITEMS.values())
    alone = np.concatenate([one_batch(loaded, [item], "query", INSTRUCTION) for item in items])
    assert np.abs(np.linalg.norm(alone, axis=1) - 1).max() < 1e-5
    # Every item has its own vector; otherwise equality below would show nothing.
    assert np.abs(alone[:, None] - alone[None]).max(-1)[~np.eye(len(items), dtype=bool)].min() > 1e-3
    for item, vector, kind in zip(items, alone, ITEMS, strict=True):
        equal = one_batch(loaded, [sibling(item, 1), item], "query", INSTRUCTION)
        assert np.abs(equal[1] - vector).max() <= TOLERANCE, f"{kind}: equal-length batch"
    padded = one_batch(loaded, [LONGEST, *items], "query", INSTRUCTION)
    assert np.abs(padded[1:] - alone).max() <= TOLERANCE
    order = np.random.default_rng(0).permutation(len(items))
    together = one_batch(loaded, [items[i] for i in order], "query", INSTRUCTION)
    assert np.abs(together - alone[order]).max() <= TOLERANCE
    packed = Embedder(loaded.engine, batch_tokens=200).encode(items, "query", INSTRUCTION)
    assert np.abs(packed - alone).max() <= TOLERANCE


def test_siblings_render_to_equal_lengths_and_the_longest_item_pads():
    for tiles in TILES:
        engine = model(tiles, "sdpa", "bidirectional").engine
        longest = len(engine.prepare([LONGEST], "candidate", [None])[0].token_ids_L)
        for kind, item in ITEMS.items():
            lengths = {len(row.token_ids_L) for row in engine.prepare([item, sibling(item, 1)], "candidate", [None] * 2)}
            assert len(lengths) == 1 and max(lengths) < longest, kind


@pytest.mark.parametrize(("tiles", "attention"), itertools.product(TILES, ("bidirectional", "causal")))
def test_kernels_agree(tiles: str, attention: str):
    eager, sdpa = (model(tiles, kernel, attention).encode(list(ITEMS.values())) for kernel in KERNELS)
    assert np.abs(eager - sdpa).max() <= TOLERANCE


@pytest.mark.parametrize(("tiles", "kernel", "attention"), MODES)
@pytest.mark.parametrize("kind", ["text", "image+text"])
def test_the_direction_of_attention_is_the_one_asked_for_in_every_batch(tiles: str, kernel: str, attention: str, kind: str):
    loaded, item = model(tiles, kernel, attention), ITEMS[kind]
    situations = {"alone": [item], "equal length": [item, sibling(item, 1)], "padded": [item, LONGEST]}
    for situation, items in situations.items():
        rows = loaded.engine.prepare(items, "candidate", [None] * len(items))
        before = first_hidden_states(loaded, rows)
        change = (first_hidden_states(loaded, [with_other_last_token(rows[0]), *rows[1:]]) - before).abs().amax(1)
        assert change[0] > 1e-3 if attention == "bidirectional" else change[0] < 1e-6, f"{situation}: {change[0]}"
        assert (change[1:] < 1e-6).all(), "a token of another row reaches this one"


def test_tiles_and_instructions_change_the_vectors_of_what_they_concern():
    items = list(ITEMS.values())
    whole, tiled = (model(tiles, "sdpa", "bidirectional").encode(items) for tiles in TILES)
    for item, difference in zip(items, np.abs(whole - tiled).max(1), strict=True):
        assert difference <= TOLERANCE if item.modality == "text" else difference > 1e-3
    loaded = model("global", "sdpa", "bidirectional")
    mixed = loaded.encode(items, "query", [INSTRUCTION if i % 2 else None for i in range(len(items))])
    with_it = loaded.encode(items, "query", INSTRUCTION)
    expected = np.where((np.arange(len(items)) % 2 == 1)[:, None], with_it, whole)
    assert np.abs(mixed - expected).max() <= TOLERANCE and np.abs(with_it - whole).max(1).min() > 1e-3
