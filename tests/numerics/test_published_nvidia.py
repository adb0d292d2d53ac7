"""Imported NV-Embed and MM-Embed against their arithmetic, written out here from its description in plain torch, in fp64.

Nothing of ours is used on the reference side: the prompt is spelled out, tokenised by the released tokenizer itself, and its
instruction is masked by counting tokens, as the originals do. Only the vision tower is transformers' own.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import tiny
from published_nvidia import EPS, HEADS, HIDDEN, KV_HEADS, LATENT_HEADS, LAYERS, PATCH, SIDE, THETA, mm_embed, nv_embed
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.importing import import_checkpoint

TOLERANCE = 1e-5
INSTRUCTION = "Find an image like this one."
HEAD = HIDDEN // HEADS
FOLDERS = {"nv-embed": nv_embed, "mm-embed": mm_embed}


@functools.cache
def weights(kind: str) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for file in sorted(FOLDERS[kind]().glob("*.safetensors")) for name, tensor in load_file(file).items()}


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return Tokenizer.from_file(str(FOLDERS[kind]() / "tokenizer.json"))


def rms_norm(x_LD: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    return x_LD / (x_LD.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * weight_D


def rotate(x_LHE: torch.Tensor) -> torch.Tensor:
    angles_LE = torch.outer(torch.arange(len(x_LHE)).double(), THETA ** (-torch.arange(0, HEAD, 2).double() / HEAD)).repeat(1, 2)
    first, second = x_LHE.chunk(2, -1)
    return x_LHE * angles_LE.cos()[:, None] + torch.cat([-second, first], -1) * angles_LE.sin()[:, None]


def decode(w: dict[str, torch.Tensor], prefix: str, x_LD: torch.Tensor) -> torch.Tensor:
    """Mistral without a mask."""
    for layer in range(LAYERS):
        name = f"{prefix}layers.{layer}."
        h_LD = rms_norm(x_LD, w[name + "input_layernorm.weight"])
        q, k, v = ((h_LD @ w[f"{name}self_attn.{one}_proj.weight"].T).view(len(x_LD), -1, HEAD) for one in "qkv")
        q, k = rotate(q), rotate(k)
        k, v = (one.repeat_interleave(HEADS // KV_HEADS, 1) for one in (k, v))
        weight_HLM = (torch.einsum("lhe,mhe->hlm", q, k) / HEAD**0.5).softmax(-1)
        out_LD = torch.einsum("hlm,mhe->lhe", weight_HLM, v).reshape(len(x_LD), HIDDEN)
        x_LD = x_LD + out_LD @ w[name + "self_attn.o_proj.weight"].T
        h_LD = rms_norm(x_LD, w[name + "post_attention_layernorm.weight"])
        gate, up = (h_LD @ w[f"{name}mlp.{one}_proj.weight"].T for one in ("gate", "up"))
        x_LD = x_LD + (gate * gate.sigmoid() * up) @ w[name + "mlp.down_proj.weight"].T
    return rms_norm(x_LD, w[prefix + "norm.weight"])


def layer_norm(w: dict[str, torch.Tensor], name: str, x_LD: torch.Tensor) -> torch.Tensor:
    centred = x_LD - x_LD.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name + ".weight"] + w[name + ".bias"]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def pool(w: dict[str, torch.Tensor], x_LD: torch.Tensor, keep_L: torch.Tensor) -> np.ndarray:
    blocks = "latent_attention_model.cross_attend_blocks."
    q = layer_norm(w, blocks + "0.norm", x_LD) @ w[blocks + "0.fn.to_q.weight"].T
    latent_RD = layer_norm(w, blocks + "0.norm_context", w["latent_attention_model.latents"])
    k, v = (latent_RD @ w[blocks + "0.fn.to_kv.weight"].T).chunk(2, -1)
    out = []
    for q_LE, k_RE, v_RE in zip(*(one.chunk(LATENT_HEADS, -1) for one in (q, k, v)), strict=True):
        out.append((q_LE @ k_RE.T / q_LE.shape[1] ** 0.5).softmax(-1) @ v_RE)
    x_LD = x_LD + torch.cat(out, -1) @ w[blocks + "0.fn.to_out.weight"].T
    h_LF = layer_norm(w, blocks + "1.norm", x_LD) @ w[blocks + "1.fn.net.0.weight"].T + w[blocks + "1.fn.net.0.bias"]
    value, gate = h_LF.chunk(2, -1)
    x_LD = x_LD + (value * gelu(gate)) @ w[blocks + "1.fn.net.2.weight"].T + w[blocks + "1.fn.net.2.bias"]
    mean_D = (x_LD * keep_L[:, None].double()).sum(0) / keep_L.sum()
    return (mean_D / mean_D.norm()).numpy()


def nv_reference(text: str, instruction: str | None = None) -> np.ndarray:
    w, prefix = weights("nv-embed"), "" if instruction is None else f"Instruct: {instruction}\nQuery: "
    ids = tokenizer("nv-embed").encode(prefix + text + "</s>").ids
    assert ids[0] == 1 and ids[-1] == 2
    keep_L = torch.ones(len(ids), dtype=torch.bool)
    keep_L[: len(tokenizer("nv-embed").encode(prefix, add_special_tokens=False).ids)] = False
    return pool(w, decode(w, "embedding_model.", w["embedding_model.embed_tokens.weight"][ids]), keep_L)


@functools.cache
def vision():
    """transformers' own tower and image processor, on the released folder."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaNextImageProcessor

    config = CLIPVisionConfig(**json.loads((mm_embed() / "config.json").read_text())["vision_config"])
    tower = CLIPVisionModel(config).double().eval()
    state = {name.removeprefix("vision_tower."): tensor for name, tensor in weights("mm-embed").items() if name.startswith("vision_tower.")}
    ours = tower.state_dict().keys()
    tower.load_state_dict({name if name in ours else name.removeprefix("vision_model."): tensor for name, tensor in state.items()})
    return tower, LlavaNextImageProcessor.from_pretrained(mm_embed())


def seen(image) -> torch.Tensor:
    """What the language model is given for an image: its whole in one square, and the end of a line."""
    w, (tower, processor) = weights("mm-embed"), vision()
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"][0][:1]
    with torch.no_grad():
        states_PC = tower(pixels.double(), output_hidden_states=True).hidden_states[-2][0, 1:]
    assert len(states_PC) == (SIDE // PATCH) ** 2
    project = "multi_modal_projector.linear_"
    h = gelu(states_PC @ w[project + "1.weight"].T + w[project + "1.bias"]) @ w[project + "2.weight"].T + w[project + "2.bias"]
    return torch.cat([h, w["image_newline"][None]])


def mm_reference(text: str = "", image=None, instruction: str | None = None) -> np.ndarray:
    w, encode = weights("mm-embed"), lambda prompt: [*tokenizer("mm-embed").encode(prompt).ids, 2]
    shown = "" if image is None else "<image>\n"
    prompt = f"{shown}{text}" if instruction is None else f"Instruct: {instruction}\nQuery: {shown}{text}"
    masked = 0 if instruction is None else len(encode(prompt.split("\nQuery: ")[0]))
    ids, image_id = encode(prompt), json.loads((mm_embed() / "config.json").read_text())["image_token_index"]
    rows = []
    for id in ids:
        rows += [seen(image)] if id == image_id else [w["language_model.embed_tokens.weight"][id][None]]
    x_LD = torch.cat(rows)
    return pool(w, decode(w, "language_model.", x_LD), torch.arange(len(x_LD)) >= masked)


TEXTS = {
    "text": {"text": "a red circle top left"},
    "long text": {"text": "two of them moving over the scene, " * 9},
    "unknown letters": {"text": "赤い丸 🎈\n1 2"},
    "text query": {"text": "make it blue", "instruction": INSTRUCTION},
    "query of a number": {"text": "7 rings", "instruction": INSTRUCTION},
    "query of unknown letters": {"text": "赤い丸", "instruction": "Find\nit: 丸"},
}
IMAGES = {
    "image": {"image": tiny.picture(64, 64, 1)},
    "wide image": {"image": tiny.picture(200, 50, 2)},
    "image+text": {"image": tiny.picture(96, 64, 3), "text": "make it blue"},
    "image query": {"image": tiny.picture(56, 56, 4), "instruction": INSTRUCTION},
    "image+text query": {"image": tiny.picture(60, 140, 5), "text": "make it blue", "instruction": INSTRUCTION},
}
CASES = {"nv-embed": TEXTS, "mm-embed": TEXTS | IMAGES}
REFERENCES = {"nv-embed": nv_reference, "mm-embed": mm_reference}


@functools.cache
def imported(kind: str) -> Path:
    folder = tiny.workplace() / f"imported-{kind}"
    import_checkpoint(kind, FOLDERS[kind](), folder)
    return folder


@functools.cache
def expected(kind: str) -> np.ndarray:
    return np.stack([REFERENCES[kind](**case) for case in CASES[kind].values()])


def ours(case: dict) -> tuple[list[Item], str, str | None]:
    instruction = case.get("instruction")
    item = Item.of(**{part: case[part] for part in ("image", "text") if part in case})
    return [item], "candidate" if instruction is None else "query", instruction


@pytest.mark.parametrize("kind", FOLDERS)
def test_vectors_are_the_published_ones(kind: str):
    model = Embedder.load(imported(kind), device="cpu")
    for (name, case), vector in zip(CASES[kind].items(), expected(kind), strict=True):
        items, side, instruction = ours(case)
        alone = model.encode(items, side, instruction)[0]
        np.testing.assert_allclose(alone, vector, atol=TOLERANCE, rtol=0, err_msg=f"{name}, alone")
        padded = tiny.one_batch(model, [tiny.LONGEST, *items], side, instruction)[1]
        np.testing.assert_allclose(padded, vector, atol=TOLERANCE, rtol=0, err_msg=f"{name}, padded batch")


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_reference_tells_the_cases_apart(kind: str):
    """Otherwise anything would agree with it."""
    gaps = np.abs(expected(kind)[:, None] - expected(kind)[None]).max(-1)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("setting", "value", "case"),
    [
        ("attention", "causal", "text"),
        ("pooling", "mean", "text"),
        ("template", "mm-embed", "text query"),
        ("image_tiles", "anyres", "wide image"),
    ],
)
def test_each_part_of_exact_compatibility_matters(setting: str, value: str, case: str):
    model = Embedder.load(imported("mm-embed"), device="cpu", **{setting: value})
    vector = expected("mm-embed")[list(CASES["mm-embed"]).index(case)]
    assert np.abs(model.encode(*ours(CASES["mm-embed"][case]))[0] - vector).max() > 100 * TOLERANCE
