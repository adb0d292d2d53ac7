"""Latent attention against NV-Embed's arithmetic written out in loops of doubles, and as a pooling of an `Embedder`."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tiny import (
    FAMILIES,
    INSTRUCTION,
    LATENT,
    LONGEST,
    checkpoint,
    copy_of,
    embedder,
    latent_checkpoint,
    one_batch,
    sample_items,
    scramble,
    text_checkpoint,
)
from umr.errors import ModelError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.latent_attention import LatentAttention, LatentSizes
from umr.models.pooling import WEIGHTS, means
from umr.models.settings import ModelSettings

WIDE = LatentSizes(latents=3, heads=2, head_width=5, multiplier=2)
"""Heads wider than there are latents, as NV-Embed's."""
NARROW = LatentSizes(latents=7, heads=4, head_width=2, multiplier=1)
Vector = list[float]


def block_of(width: int, sizes: LatentSizes, seed: int = 0) -> LatentAttention:
    block = LatentAttention(width, sizes).double()
    scramble(block, seed)
    return block


# --- the reference: one token after the other, one number after the other


def layer_norm(x: Vector, weight: Vector, bias: Vector) -> Vector:
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in x) / len(x) + 1e-5)
    return [(one - mean) / deviation * w + b for one, w, b in zip(x, weight, bias, strict=True)]


def product(matrix: np.ndarray, x: Vector) -> Vector:
    return [float(row @ np.array(x)) for row in matrix]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def reference(block: LatentAttention, heads: int, tokens: list[Vector]) -> Vector:
    """The vector of one row, from the hidden states of its pooled tokens."""
    w = {name: tensor.double().numpy() for name, tensor in block.state_dict().items()}
    latents = [layer_norm(latent, w["norm_latents.weight"], w["norm_latents.bias"]) for latent in w["latents"]]
    both = [product(w["to_key_value.weight"], latent) for latent in latents]
    inner = len(both[0]) // 2
    size = inner // heads
    total = [0.0] * len(tokens[0])
    for token in tokens:
        query = product(w["to_query.weight"], layer_norm(token, w["norm.weight"], w["norm.bias"]))
        attended: Vector = []
        for head in range(heads):
            span = range(head * size, (head + 1) * size)
            scores = [math.exp(sum(query[i] * latent[i] for i in span) / math.sqrt(size)) for latent in both]
            attended += [sum(score * latent[inner + i] for score, latent in zip(scores, both, strict=True)) / sum(scores) for i in span]
        after = [one + more for one, more in zip(token, product(w["to_output.weight"], attended), strict=True)]
        fed = product(w["feed_in.weight"], layer_norm(after, w["norm_feed.weight"], w["norm_feed.bias"]))
        fed = [one + bias for one, bias in zip(fed, w["feed_in.bias"], strict=True)]
        half = len(fed) // 2
        gated = [fed[i] * gelu(fed[half + i]) for i in range(half)]
        more = [one + bias for one, bias in zip(product(w["feed_out.weight"], gated), w["feed_out.bias"], strict=True)]
        total = [t + one + other for t, one, other in zip(total, after, more, strict=True)]
    return [one / len(tokens) for one in total]


def padded(rows: list[torch.Tensor], masks: list[torch.Tensor], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch; what is not a token is infinite."""
    length = max(len(row) for row in rows) + 1
    hidden_BLD = torch.full((len(rows), length, rows[0].shape[1]), torch.inf, dtype=torch.float64)
    pool_BL = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        hidden_BLD[index, place], pool_BL[index, place] = row, mask
    return hidden_BLD, pool_BL


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    sizes=st.sampled_from([WIDE, NARROW, LatentSizes(1, 1, 1, 3), LatentSizes(4, 2, None, 2)]),
    left=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_equals_the_reference_under_padding_and_masks(lengths: list[int], sizes: LatentSizes, left: bool, seed: int):
    generator = torch.Generator().manual_seed(seed)
    block = block_of(6, sizes, seed)
    rows = [torch.randn(length, 6, dtype=torch.float64, generator=generator) * 3 for length in lengths]
    masks = [torch.rand(length, generator=generator) < 0.6 for length in lengths]
    for mask in masks:
        mask[0] |= not mask.any()
    expected_BD = torch.tensor(
        [reference(block, sizes.heads, r[m].tolist()) for r, m in zip(rows, masks, strict=True)], dtype=torch.float64
    )
    hidden_BLD, pool_BL = padded(rows, masks, left)
    scale = expected_BD.abs().max()
    assert (block(hidden_BLD, pool_BL) - expected_BD).abs().max() <= 1e-12 * scale
    single = block.float()(hidden_BLD.float(), pool_BL)
    assert single.dtype == torch.float32 and (single.double() - expected_BD).abs().max() <= 3e-6 * scale


def test_published_sizes_are_those_of_the_paper():
    with torch.device("meta"):
        block = LatentAttention(4096, LatentSizes())
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items() if tensor.ndim > 1}
    assert shapes == {
        "latents": (512, 4096),
        "to_query.weight": (8 * 4096, 4096),
        "to_key_value.weight": (2 * 8 * 4096, 4096),
        "to_output.weight": (4096, 8 * 4096),
        "feed_in.weight": (2 * 4 * 4096, 4096),
        "feed_out.weight": (4096, 4 * 4096),
    }


@pytest.mark.parametrize("sizes", [WIDE, NARROW])
def test_gradients_are_those_of_the_function(sizes: LatentSizes):
    block = block_of(4, sizes)
    pool_BL = torch.tensor([[True, False, True], [False, True, True]])
    hidden_BLD = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda hidden, *_: block(hidden, pool_BL), (hidden_BLD, *block.parameters()), fast_mode=True)
    assert hidden_BLD.grad is None
    block(hidden_BLD, pool_BL).square().sum().backward()
    assert ((hidden_BLD.grad.abs().sum(-1) > 0) == pool_BL).all()
    assert all((parameter.grad != 0).any() for parameter in block.parameters())


def test_fresh_weights_give_the_mean_and_begin_to_learn():
    block = LatentAttention(4, WIDE)
    block.draw()
    hidden_BLD, pool_BL = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    out_BD = block(hidden_BLD, pool_BL)
    torch.testing.assert_close(out_BD, means(hidden_BLD[pool_BL], [2, 3]))
    out_BD.square().sum().backward()
    assert (block.to_output.weight.grad != 0).any() and (block.feed_out.weight.grad != 0).any()
    again = LatentAttention(4, WIDE)
    again.draw()
    assert all(torch.equal(one, other) for one, other in zip(block.parameters(), again.parameters(), strict=True))


def test_arithmetic_is_single_precision_whatever_surrounds_it():
    block = block_of(8, WIDE).float()
    hidden_BLD, pool_BL = torch.randn(1, 5, 8).bfloat16(), torch.ones(1, 5, dtype=torch.bool)
    expected_BD = block(hidden_BLD.float(), pool_BL)
    with torch.autocast("cpu", torch.bfloat16):
        out_BD = block(hidden_BLD, pool_BL)
    assert out_BD.dtype == torch.float32 and torch.equal(out_BD, expected_BD)


def test_a_row_without_a_token_spoils_no_other():
    block = block_of(4, WIDE)
    hidden_BLD, pool_BL = torch.randn(2, 3, 4).double(), torch.tensor([[True, True, True], [False, False, False]])
    out_BD = block(hidden_BLD, pool_BL)
    assert torch.isfinite(out_BD).all()
    torch.testing.assert_close(out_BD[0], block(hidden_BLD[:1], pool_BL[:1])[0])


# --- as a pooling of an embedder


def blank(family: str, **settings) -> Embedder:
    return Embedder.load(checkpoint(family), device="cpu", pooling="latent", latent=LATENT, **settings)


@pytest.mark.parametrize("family", [*dict.fromkeys([*FAMILIES, "llava-next"])])
def test_every_backbone_pools_by_the_reference(family: str):
    """Hidden states of the model itself, the mask of the renderer, and the loops above."""
    from umr.models import backbone

    model = embedder(family, pooling="latent")
    items = [sample_items()[kind] for kind in ("text", "image+text")]
    holder, rows = model.engine.model, model.engine.prepare(items, "query", [INSTRUCTION, None])
    assert not rows[0].pool_L.all(), "the instruction is left out"
    expected = []
    for row in rows:
        with torch.inference_mode():
            batch, pool_BL = backbone.collate([row], holder.pad_id, "mrope")
            hidden_LD = backbone.hidden_states(holder.network, batch, holder.family)[0]
        vector = np.array(reference(holder.latent, LATENT.heads, hidden_LD[pool_BL[0]].double().tolist()))
        expected.append(vector / np.linalg.norm(vector))
    np.testing.assert_allclose(model.encode(items, "query", [INSTRUCTION, None]), expected, atol=1e-6)
    # ... in a batch with padding too
    np.testing.assert_allclose(one_batch(model, [LONGEST, items[0]], "query", INSTRUCTION)[1], expected[0], atol=1e-5)


def test_a_text_backbone_and_the_weights_in_the_folder(tmp_path: Path):
    model = Embedder.load(text_checkpoint(), pooling="latent", latent=LATENT)
    item = [Item.of(text="a red circle")]
    np.testing.assert_allclose(model.encode(item), Embedder.load(text_checkpoint()).encode(item), atol=1e-6)
    scramble(model.engine.model.latent)
    reasons = model.save(tmp_path / "model")
    assert len(reasons) == 1 and (tmp_path / "model" / WEIGHTS).is_file() and not (tmp_path / "model" / "modules.json").exists()
    again = Embedder.load(tmp_path / "model")
    assert again.engine.model.settings.latent == LATENT and again.fingerprint == model.fingerprint
    assert np.array_equal(again.encode(item), model.encode(item))


def test_weights_and_sizes_are_part_of_the_fingerprint():
    models = [blank("qwen3-vl"), embedder("qwen3-vl", pooling="latent"), embedder("qwen3-vl")]
    models.append(Embedder.load(checkpoint("qwen3-vl"), pooling="latent", latent=LatentSizes(6, 5, 4, 2)))
    assert len({model.fingerprint for model in models}) == len(models)
    before = models[0].fingerprint
    with torch.no_grad():
        models[0].engine.model.latent.latents[0, 0] += 1
    models[0].__dict__.pop("fingerprint")
    assert models[0].fingerprint != before


def test_models_made_before_there_was_latent_attention_keep_their_fingerprint():
    assert ModelSettings(temperature=0.05).text() == (
        "ModelSettings(attention='bidirectional', positions='mrope', pooling='mean', dimension=None, max_tokens=2048, temperature=None, "
        "query_text='separate')"
    )


def test_another_pooling_of_a_folder_with_latent_attention(tmp_path: Path):
    items = list(sample_items().values())
    mean = Embedder.load(latent_checkpoint("qwen3-vl"), pooling="mean")
    assert mean.engine.model.latent is None and np.array_equal(mean.encode(items), embedder("qwen3-vl").encode(items))
    mean.save(tmp_path / "mean")
    assert not list((tmp_path / "mean").rglob("latent*")) and json.loads((tmp_path / "mean" / "umr.json").read_text())["latent"] is None


def test_settings_that_cannot_be():
    for given_settings, says in (
        ({"latent": LATENT}, "latent has no effect with pooling='mean'"),
        ({"pooling": "latent", "latent": LatentSizes(heads=0)}, "latent.heads=0 must be a number of at least 1"),
        ({"pooling": "latent", "latent": LatentSizes(latents=None)}, "latent.latents=None must be a number"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ModelError, match=says):
            Embedder.load(checkpoint("qwen3-vl"), **given_settings)


@pytest.mark.parametrize("damage", ["sizes", "bytes", "another model's", "a tensor less"])
def test_weights_that_do_not_fit_are_named(damage: str):
    folder = copy_of(latent_checkpoint("qwen3-vl"), "latent")
    given_settings = {}
    if damage == "sizes":
        given_settings = {"latent": LatentSizes(latents=5)}
    elif damage == "bytes":
        (folder / WEIGHTS).write_bytes(b"x" * 100)
    elif damage == "another model's":
        shutil.copy(folder / "model.safetensors", folder / WEIGHTS)
    else:
        from safetensors.torch import save_file

        state = load_file(folder / WEIGHTS)
        state.pop("latents")
        save_file(state, folder / WEIGHTS)
    with pytest.raises(ModelError, match=r"1_Pooling/model.safetensors: not the weights of latent attention") as error:
        Embedder.load(folder, **given_settings)
    assert "\n" not in str(error.value)


def test_settings_that_are_damaged():
    folder = copy_of(latent_checkpoint("qwen3-vl"), "latent")
    about = json.loads((folder / "umr.json").read_text())
    (folder / "umr.json").write_text(json.dumps({**about, "latent": {"rows": 3}}))
    with pytest.raises(ModelError, match="unreadable settings"):
        Embedder.load(folder)
