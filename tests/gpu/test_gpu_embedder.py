"""What holds on the CPU holds on a GPU, with its kernels and its precision."""

import functools

import numpy as np
import pytest
import torch

from tiny import (
    FAMILIES,
    INSTRUCTION,
    LONGEST,
    checkpoint,
    embedder,
    first_hidden_states,
    one_batch,
    sample_items,
    sibling,
    with_other_last_token,
)
from umr.errors import ModelError
from umr.models.embedder import Embedder

pytestmark = pytest.mark.gpu

KERNELS = ("eager", "sdpa", "flex_attention", "packed")
TOLERANCE = 1e-5


@functools.cache
def on_gpu(family: str, kernel: str = "sdpa", dtype: str = "float32", attention: str = "bidirectional") -> Embedder:
    try:
        return Embedder.load(checkpoint(family), device="cuda", kernel=kernel, dtype=dtype, attention=attention)
    except ModelError as error:
        if kernel != "flex_attention":
            raise
        pytest.skip(f"{kernel} is not to be had here: {error}")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_is_where_it_runs_by_default(family: str):
    model = Embedder.load(checkpoint(family))
    assert next(model.engine.model.parameters()).is_cuda
    items = list(sample_items().values())
    cpu = Embedder.load(checkpoint(family), device="cpu")
    assert np.abs(model.encode(items) - cpu.encode(items)).max() < 1e-4
    assert model.fingerprint == cpu.fingerprint


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedding_depends_on_its_item_alone(family: str, kernel: str):
    model = on_gpu(family, kernel)
    items = list(sample_items().values())
    alone = np.concatenate([one_batch(model, [item]) for item in items])
    for item, vector in zip(items, alone, strict=True):
        assert np.abs(one_batch(model, [sibling(item, 1), item, sibling(item, 2)])[1] - vector).max() <= TOLERANCE
        assert np.abs(one_batch(model, [LONGEST, item])[1] - vector).max() <= TOLERANCE
    assert np.abs(one_batch(model, items) - alone).max() <= TOLERANCE
    assert np.abs(model.encode(items, "query", INSTRUCTION) - on_gpu(family).encode(items, "query", INSTRUCTION)).max() <= TOLERANCE


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_bidirectional_in_every_batch(family: str, kernel: str):
    item = sample_items()["image+text"]
    for attention in ("bidirectional", "causal"):
        model = on_gpu(family, kernel, attention=attention)
        for items in ([item], [item, sibling(item, 1)], [item, LONGEST]):
            rows = model.engine.prepare(items, "candidate", [None] * len(items))
            before = first_hidden_states(model, rows)
            change = (first_hidden_states(model, [with_other_last_token(rows[0]), *rows[1:]]) - before).abs().amax(1)
            assert (float(change[0]) > 1e-3) == (attention == "bidirectional")
            assert float(change[1:].sum()) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_points_the_same_way(family: str, dtype: str):
    items = list(sample_items().values())
    half, single = on_gpu(family, dtype=dtype).encode(items), on_gpu(family).encode(items)
    assert half.dtype == np.float32
    assert (half * single).sum(1).min() > 0.995
    alone = np.concatenate([on_gpu(family, dtype=dtype).encode([item]) for item in items])
    assert (half * alone).sum(1).min() > 0.999, "rounding differs with the shape of a batch, and little more"


def test_cpu_and_gpu_give_the_naive_order_of_neighbours():
    items = list(sample_items().values())
    cpu, gpu = embedder("qwen3-vl").encode(items), on_gpu("qwen3-vl").encode(items)
    assert np.array_equal(np.argsort(-cpu @ cpu.T, 1)[:, :3], np.argsort(-gpu @ gpu.T, 1)[:, :3])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_err_by_no_more_than_half_precision_does(family: str, attention: str, dtype: str):
    """Packed rows run on torch's variable-length kernel here; single precision on either kernel is the truth."""
    items = list(sample_items().values())
    truth = on_gpu(family, attention=attention).encode(items)
    padded, packed = (one_batch(on_gpu(family, kernel, dtype, attention), items) for kernel in ("sdpa", "packed"))
    assert np.abs(packed - truth).max() <= 2 * np.abs(padded - truth).max() + 1e-4


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_gradients_of_packed_rows_err_by_no_more_than_half_precision_does(attention: str):
    found = {}
    for kernel, dtype in (("sdpa", "float32"), ("sdpa", "bfloat16"), ("packed", "bfloat16")):
        engine = Embedder.load(checkpoint("qwen3-vl"), device="cuda", kernel=kernel, dtype=dtype, attention=attention).engine
        rows = engine.prepare(list(sample_items().values()), "candidate", [None] * len(sample_items()))
        vectors_UD = engine.model(rows)
        (vectors_UD @ vectors_UD.T)[0].sum().backward()
        found[kernel, dtype] = torch.cat([p.grad.float().flatten() for p in engine.model.parameters() if p.grad is not None])
    truth = found["sdpa", "float32"]
    error = {name: float((grad - truth).norm() / truth.norm()) for name, grad in found.items()}
    assert 0 < error["packed", "bfloat16"] <= 2 * error["sdpa", "bfloat16"]
