"""Tiny checkpoints and sample items that several test files share. Everything is made once a process and removed at its end."""

import atexit
import functools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from umr.items import Image, Item, Text, Video
from umr.models.embedder import Embedder
from umr.models.latent_attention import LatentAttention, LatentSizes
from umr.models.packing import pooled_states
from umr.models.tiny import make_checkpoint
from umr.rendering.renderer import Rendered, one_hot

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
TEXTS = [
    "a red circle top left",
    "blue ring center",
    "make it blue",
    "two of them moving over the scene",
    "find an image like this one",
] * 8
LATENT = LatentSizes(latents=6, heads=2, head_width=10, multiplier=2)
INSTRUCTION = "Find an image that shows the thing."


@functools.cache
def workplace() -> Path:
    """A folder for this process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="umr-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def checkpoint(family: str, size: str = "tiny") -> Path:
    """A checkpoint as `umr init` writes it. Do not change it: take a `copy_of` it."""
    folder = workplace() / f"{family}-{size}"
    make_checkpoint(family, folder, TEXTS, size)
    return folder


@functools.cache
def text_checkpoint() -> Path:
    """A text-only Qwen3 with the tokenizer of the tiny Qwen3-VL."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

    folder = workplace() / "qwen3-text"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("qwen3-vl"))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3Model(config).save_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    about.pop("processor_class", None)  # there is no processor here
    (folder / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
    return folder


def copy_of(folder: Path, name: str) -> Path:
    """A fresh copy of a checkpoint that a test may damage."""
    target = Path(tempfile.mkdtemp(dir=workplace(), prefix=f"{name}-")) / "model"
    shutil.copytree(folder, target)
    return target


@functools.cache
def embedder(family: str, device: str = "cpu", **settings: Any) -> Embedder:
    """`Embedder.load` of a tiny checkpoint; do not change what it returns. With `pooling="latent"` the block has random weights."""
    folder = latent_checkpoint(family) if settings.get("pooling") == "latent" else checkpoint(family)
    return Embedder.load(folder, device=device, **settings)


@functools.cache
def latent_checkpoint(family: str) -> Path:
    """A tiny checkpoint with latent attention, whose weights are random, as if trained. Do not change it."""
    model = Embedder.load(checkpoint(family), pooling="latent", latent=LATENT, device="cpu")
    scramble(model.engine.model.latent)
    folder = workplace() / f"{family}-latent"
    model.save(folder)
    return folder


def scramble(block: LatentAttention, seed: int = 0) -> None:
    """Random weights that make every part of a latent-attention block matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            scale = 2 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * scale)
        for norm in (block.norm, block.norm_latents, block.norm_feed):
            norm.weight.add_(1)


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Coarse coloured noise, which survives resizing."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.NEAREST)


def film(frames: int = 5, width: int = 64, height: int = 64, seed: int = 100) -> list[PIL.Image.Image]:
    return [picture(width, height, seed + number) for number in range(frames)]


@functools.cache
def sample_items() -> dict[str, Item]:
    """One or more items of each kind, of unequal lengths."""
    square, wide, odd = picture(64, 64, 1), picture(128, 64, 2), picture(90, 70, 3)
    return {
        "text": Item.of(text="a red circle"),
        "long text": Item.of(text="two of them moving over the scene, " * 6),
        "unicode text": Item.of(text="un círculo — 赤い丸 🎈 e\u0301"),
        "image": Item.of(image=square),
        "wide image": Item.of(image=wide),
        "image+text": Item.of(image=odd, text="make it blue"),
        "several images": Item.of(images=[square, odd], text="two of them"),
        "several images, no text": Item.of(images=[wide, square, wide]),
        "video": Item.of(video=Video(film(4), fps=2.0)),
        "odd video": Item.of(video=Video(film(5, 96, 64), fps=24.0)),
        "video+text": Item.of(video=Video(film(3), fps=1.0), text="moving"),
        "text, image, text": Item((Text("before"), Image(square), Text("after"))),
        "image+video+text": Item.of(image=square, video=Video(film(2), fps=2.0), text="both"),
    }


LONGEST = Item.of(text="two of them moving over the scene, " * 40)
"""Longer than every sample item, so that whatever shares a batch with it is padded."""


def one_batch(model: Embedder, items: list[Item], side: str = "candidate", instruction: str | None = None) -> np.ndarray:
    """Embed items in one batch of exactly these rows in this order, past the packing."""
    engine = model.engine
    return engine.forward(engine.prepare(items, side, [instruction] * len(items)))


def sibling(item: Item, number: int) -> Item:
    """Another item that renders to the same length: its media have the same sizes, its text the same tokens in another order."""
    parts = []
    for part in item.parts:
        if part.modality == "image":
            parts.append(type(part)(picture(*part.source.size, seed=1000 + number)))
        elif part.modality == "video":
            parts.append(Video(film(len(part.source), *part.source[0].size, seed=1000 + number), fps=part.fps))
        else:
            parts.append(part)
    return Item(tuple(parts))


def first_hidden_states(model: Embedder, rows: list[Rendered]) -> torch.Tensor:
    """(B, D): last layer, first token of each row."""
    network = model.engine.model
    with torch.inference_mode():
        first = [replace(row, pool_L=one_hot(len(row.pool_L), 0)) for row in rows]
        return pooled_states(network.network, first, network.family, network.pad_id, network.settings.positions)[0]


def with_other_last_token(row: Rendered) -> Rendered:
    ids = row.token_ids_L.copy()
    ids[-1] = 5 if ids[-1] != 5 else 6
    return Rendered(ids, row.pool_L, row.types_L, row.blocks)
