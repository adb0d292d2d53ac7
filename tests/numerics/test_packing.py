"""Rows in one line without padding give what the padded batch gives, and what a batch repeats goes through the vision tower once."""

import copy
import json
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import (
    FAMILIES,
    INSTRUCTION,
    LATENT,
    checkpoint,
    copy_of,
    embedder,
    film,
    one_batch,
    picture,
    sample_items,
    scramble,
    text_checkpoint,
)
from umr.errors import ModelError
from umr.items import Item, Video
from umr.models import attention, backbone
from umr.models.batching import pack
from umr.models.embedder import Embedder
from umr.models.packing import lined_up
from umr.models.parts import PARTS, add_lora
from umr.models.reranker import Reranker
from umr.rendering.pairs import Pair
from umr.training import gradient_cache

TOLERANCE = 1e-5
BACKBONES = [*[(family, {}) for family in FAMILIES], *[("llava-next", {"image_tiles": tiles}) for tiles in ("global", "anyres")]]
MODES: list[dict[str, Any]] = [
    {"attention": "bidirectional", "pooling": "mean"},
    {"attention": "causal", "pooling": "last"},
    {"attention": "bidirectional", "pooling": "latent"},
    {"attention": "causal", "pooling": "token_before_emb", "template": "emb"},
]


def items_for(family: str) -> list[Item]:
    """Of unequal lengths, in no order of length."""
    items = sample_items().values()
    return [item for item in items if family != "llava-next" or "video" not in item.modality]


# The kernel.


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    groups=st.sampled_from([1, 2]),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_token_sees_its_segment_and_nothing_else(lengths: list[int], groups: int, causal: bool, seed: int):
    draw = torch.Generator().manual_seed(seed)
    heads, size, total = 4, 8, sum(lengths)
    q, k, v = (torch.randn(1, h, total, size, dtype=torch.float64, generator=draw) for h in (heads, heads // groups, heads // groups))
    borders = torch.tensor([0, *np.cumsum(lengths)])
    given = {"cu_seq_lens_q": borders, "is_causal": causal, "scaling": 0.3}
    found, _ = attention.segmented_attention(torch.nn.Identity(), q, k, v, None, **given)
    same, _ = attention.packed_attention(torch.nn.Identity(), q, k, v, None, **given, max_length_q=max(lengths))
    expected = torch.zeros(total, heads, size, dtype=torch.float64)
    for start, length in zip(borders.tolist(), lengths, strict=False):
        for place in range(start, start + length):
            seen = slice(start, place + 1 if causal else start + length)
            for head in range(heads):
                weight = (k[0, head // groups, seen] @ q[0, head, place] * 0.3).softmax(0)
                expected[place, head] = weight @ v[0, head // groups, seen]
    assert (found[0] - expected).abs().max() < 1e-12 and torch.equal(found, same)


# Vectors.


@pytest.mark.parametrize(("family", "tiles"), BACKBONES, ids=str)
def test_vectors_are_those_of_the_padded_batch(family: str, tiles: dict[str, Any]):
    items = items_for(family)
    for mode in MODES:
        plain, packed = (loaded(family, kernel, **mode, **tiles) for kernel in ("sdpa", "packed"))
        expected = one_batch(plain, items, "query", INSTRUCTION)
        assert np.abs(one_batch(packed, items, "query", INSTRUCTION) - expected).max() <= TOLERANCE, mode
        assert np.abs(expected[:, None] - expected[None]).max(-1)[~np.eye(len(items), dtype=bool)].min() > 1e-4
    assert packed.fingerprint == plain.fingerprint


def loaded(family: str, kernel: str, **mode: Any) -> Embedder:
    if mode.pop("template", None):
        from umr.rendering.template import Template

        layouts = {"with_instruction": "{instruction} {content}<emb>", "without_instruction": "{content}<emb>"}
        return Embedder.load(checkpoint(family), device="cpu", kernel=kernel, template=Template(name="emb", **layouts), **mode)
    if mode["pooling"] == "latent":
        model = Embedder.load(checkpoint(family), device="cpu", kernel=kernel, latent=LATENT, **mode)
        scramble(model.engine.model.latent)
        return model
    return embedder(family, kernel=kernel, **mode)


@pytest.mark.parametrize("direction", ["bidirectional", "causal"])
def test_a_text_backbone_too(direction: str):
    items = [item for item in sample_items().values() if item.modality == "text"]
    plain, packed = (Embedder.load(text_checkpoint(), device="cpu", attention=direction, kernel=kernel) for kernel in ("sdpa", "packed"))
    assert np.abs(one_batch(packed, items) - one_batch(plain, items)).max() <= TOLERANCE


def test_no_layer_of_the_language_model_computes_padding():
    model = embedder("qwen3-vl", kernel="packed")
    rows = model.engine.prepare(items_for("qwen3-vl"), "candidate", [None] * len(items_for("qwen3-vl")))
    shapes: list[tuple[int, ...]] = []
    layers = model.engine.model.network.language_model.layers
    hooks = [layer.mlp.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape))) for layer in layers]
    model.engine.forward(rows)
    for hook in hooks:
        hook.remove()
    assert shapes == [(1, sum(len(row.token_ids_L) for row in rows), 128)] * len(layers)


def test_positions_begin_anew_with_each_row():
    model = embedder("qwen2.5-vl", kernel="packed")
    holder, items = model.engine.model, items_for("qwen2.5-vl")
    rows = model.engine.prepare(items, "candidate", [None] * len(items))

    def positions(*chosen: Any) -> torch.Tensor:
        line, _ = lined_up(holder.network, *backbone.collate(chosen, holder.pad_id, "mrope"))
        return line["position_ids"].reshape(-1, line["input_ids"].shape[1]).expand(3, -1)

    together = positions(*rows)
    assert torch.equal(together, torch.cat([positions(row) for row in rows], 1))
    assert not torch.equal(together[0], together[1]), "pictures lie in more than one dimension"


@pytest.mark.parametrize("direction", ["bidirectional", "causal"])
def test_a_reranker_answers_alike(direction: str):
    pairs = [Pair(sample_items()["image+text"], INSTRUCTION, item) for item in items_for("qwen3-vl")]
    logits = []
    for kernel in ("sdpa", "packed"):
        engine = Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="short", attention=direction, kernel=kernel).engine
        logits.append(engine.forward(engine.prepare(pairs, {})))
    assert np.abs(logits[0] - logits[1]).max() <= TOLERANCE


# Gradients.


@pytest.mark.parametrize(("family", "tiles"), BACKBONES[:-1], ids=str)
def test_gradients_are_those_of_the_padded_batch_with_caching_and_checkpointing(family: str, tiles: dict[str, Any]):
    items, found = items_for(family), []
    draw = torch.Generator().manual_seed(0)
    target_UD = torch.randn(len(items), len(items), dtype=torch.float64, generator=draw)
    for kernel in ("sdpa", "packed"):
        engine = Embedder.load(checkpoint(family), device="cpu", kernel=kernel, **tiles).engine
        model = engine.model.double().train()
        rows = engine.prepare(items, "candidate", [None] * len(items))
        if kernel == "packed":
            model.network.gradient_checkpointing_enable({"use_reentrant": False})
        budget = 150 if kernel == "packed" else 10**6
        chunks = pack([len(row.token_ids_L) for row in rows], budget)
        assert (len(chunks) > 1) == (kernel == "packed")
        loss = gradient_cache.backward(rows, chunks, model, lambda u_UD: (u_UD @ u_UD.T * target_UD).sum(), precision=nullcontext)
        found.append((loss, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}))
    (plain_loss, plain), (packed_loss, packed) = found
    assert plain.keys() == packed.keys() and any("visual" in name or "vision" in name for name in plain)
    assert abs(packed_loss / plain_loss - 1) < 1e-6
    largest = max(float(grad.abs().max()) for grad in plain.values())
    for name, grad in plain.items():
        assert (packed[name] - grad).abs().max() <= TOLERANCE * max(float(grad.abs().max()), 1e-3 * largest), name


def test_adapters_are_part_of_it():
    items, vectors = items_for("qwen3-vl"), []
    for kernel in ("sdpa", "packed"):
        model = Embedder.load(checkpoint("qwen3-vl"), device="cpu", kernel=kernel)
        before = one_batch(model, items)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model.engine.model.network = add_lora(model.engine.model.network, 4, 8, 0.0, PARTS)
            for name, parameter in model.engine.model.named_parameters():
                if "lora_B" in name:  # zero at the start
                    torch.nn.init.normal_(parameter, std=0.1)
        vectors.append(one_batch(model, items))
        assert np.abs(vectors[-1] - before).max() > 1e-2
    assert np.abs(vectors[0] - vectors[1]).max() <= TOLERANCE


# What a batch repeats.


@pytest.mark.parametrize("kernel", ["sdpa", "packed"])
@pytest.mark.parametrize(("family", "tiles"), BACKBONES, ids=str)
def test_what_a_batch_repeats_goes_through_the_vision_tower_once(family: str, tiles: dict[str, Any], kernel: str):
    model = embedder(family, kernel=kernel, **tiles)
    network = model.engine.model.network
    tower = network.vision_tower if family == "llava-next" else network.visual
    seen: list[int] = []
    hook = tower.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    one, two = Item.of(image=picture(64, 64, 1)), Item.of(images=[picture(128, 64, 2), picture(64, 64, 1)], text="both")
    items = [one, two, Item.of(image=picture(64, 64, 1), text="make it blue"), Item.of(text="a red circle"), copy.deepcopy(one)]
    if family != "llava-next":
        items += [Item.of(video=Video(film(3), fps=1.0)), Item.of(video=Video(film(3), fps=1.0), text="moving")]
    try:
        # Rendered one by one, as in different calls: equality of content counts, not of objects.
        rows = [model.engine.prepare([item], "candidate", [None])[0] for item in items]
        together, passes = model.engine.forward(rows), list(seen)
        seen.clear()
        alone = np.concatenate([model.engine.forward([row]) for row in rows])
    finally:
        hook.remove()
    assert np.abs(together - alone).max() <= TOLERANCE
    distinct = len(passes)
    assert distinct == (1 if family == "llava-next" else 2), "images in one pass, videos in another"
    first, second, rest = seen[0], seen[1], seen[2:]
    assert passes[0] == second and second > first == rest[0], "the second item holds both distinct images"
    if family != "llava-next":
        assert passes[1] == rest[-1] == rest[-2]


# Refusals.


def test_what_cannot_be_packed_is_refused_in_one_line(tmp_path):
    from transformers import AutoConfig

    folder = copy_of(checkpoint("llava-next"), "window")
    about = json.loads((folder / "config.json").read_text())
    about["text_config"] |= {"sliding_window": 4}
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="knows no sliding window, which this model has; use kernel='sdpa'"):
        Embedder.load(folder, device="cpu", kernel="packed")

    class Other:
        config = AutoConfig.for_model("bert")

    with pytest.raises(ModelError, match="/models/x: kernel='packed' is not known to work for bert models; use kernel='sdpa'"):
        attention.use_packed_rows(Other(), "/models/x")


def test_a_packed_model_does_not_take_padded_rows():
    network = embedder("qwen3-vl", kernel="packed").engine.model.network
    with pytest.raises(TypeError, match="cu_seq_lens_q"), torch.inference_mode():
        network(input_ids=torch.tensor([[5, 6, 7]]))
