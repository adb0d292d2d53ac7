"""Imported checkpoints against the published arithmetic, written out here from its description in plain torch, in fp64.

Nothing of ours is used on the reference side: the sequence is spelled out by hand, tokenised by the released tokenizer itself,
and the decoder is a page of matrix products. Only the vision tower is transformers' own.
"""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import tiny
from published import EPS, HEADS, HIDDEN, KV_HEADS, LAYERS, MARKERS, THETA, released
from umr.data.mbeir_records import query_item
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.importing import import_checkpoint

TOLERANCE = 1e-5
INSTRUCTION = "Find an image like this one."
HEAD = HIDDEN // HEADS


def format_string(text: str) -> str:
    text = text.replace("\r", "").strip().strip('"')
    if text:
        text = text[0].upper() + text[1:]
        text = text if text[-1] in ".?!" else text + "."
    return text


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return {name: tensor.double() for file in sorted(released().glob("*.safetensors")) for name, tensor in load_file(file).items()}


@functools.cache
def released_model():
    """transformers' own model and image processor, on the released folder, with the published pixel budget."""
    from transformers import AutoModel, Qwen2VLImageProcessor

    with torch.random.fork_rng():
        model = AutoModel.from_pretrained(released()).eval()
    processor = Qwen2VLImageProcessor.from_pretrained(released(), min_pixels=4 * 28 * 28, max_pixels=300 * 28 * 28)
    return model, processor


def seen(image) -> torch.Tensor:
    """Features of one image, (tokens, D)."""
    model, processor = released_model()
    out = processor(images=[image], return_tensors="pt")
    with torch.no_grad():
        return model.visual(out["pixel_values"], grid_thw=out["image_grid_thw"]).pooler_output.double()


def tokenise(sequence: str) -> list[int]:
    """The released tokenizer, to which the markers were added one after the other."""
    tokenizer = Tokenizer.from_file(str(released() / "tokenizer.json"))
    first = tokenizer.get_vocab_size()
    ids = []
    for piece in re.split("(" + "|".join(MARKERS) + ")", sequence):
        ids += [first + MARKERS.index(piece)] if piece in MARKERS else tokenizer.encode(piece, add_special_tokens=False).ids
    return ids


def conversation(features: torch.Tensor | None, text: str) -> str:
    """System, user with the image first, assistant, and the empty turn of the evaluation."""
    image = "" if features is None else "<|vision_start|>" + "<|image_pad|>" * len(features) + "<|vision_end|>"
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{image}{text}<|im_end|>\n"
        "<|im_start|>assistant\n<emb>.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def norm(x_LD: torch.Tensor, name: str) -> torch.Tensor:
    return x_LD / (x_LD.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * weights()[name]


def rotate(x_LHE: torch.Tensor) -> torch.Tensor:
    """Rotary positions 0, 1, 2... for every token, image tokens included."""
    angles_LE = torch.outer(torch.arange(len(x_LHE)).double(), THETA ** (-torch.arange(0, HEAD, 2).double() / HEAD)).repeat(1, 2)
    first, second = x_LHE.chunk(2, -1)
    return x_LHE * angles_LE.cos()[:, None] + torch.cat([-second, first], -1) * angles_LE.sin()[:, None]


def decode(x_LD: torch.Tensor, causal: bool) -> torch.Tensor:
    w, length = weights(), len(x_LD)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        h_LD = norm(x_LD, name + "input_layernorm.weight")
        q, k, v = (
            (h_LD @ w[f"{name}self_attn.{one}_proj.weight"].T + w[f"{name}self_attn.{one}_proj.bias"]).view(length, -1, HEAD)
            for one in "qkv"
        )
        q, k = rotate(q), rotate(k)
        k, v = (one.repeat_interleave(HEADS // KV_HEADS, 1) for one in (k, v))
        scores_HLL = torch.einsum("lhe,mhe->hlm", q, k) / HEAD**0.5
        if causal:
            scores_HLL += torch.full((length, length), -torch.inf).double().triu(1)
        out_LD = torch.einsum("hlm,mhe->lhe", scores_HLL.softmax(-1), v).reshape(length, HIDDEN)
        x_LD = x_LD + out_LD @ w[name + "self_attn.o_proj.weight"].T
        h_LD = norm(x_LD, name + "post_attention_layernorm.weight")
        gate, up = (h_LD @ w[f"{name}mlp.{one}_proj.weight"].T for one in ("gate", "up"))
        x_LD = x_LD + (gate * gate.sigmoid() * up) @ w[name + "mlp.down_proj.weight"].T
    return norm(x_LD, "model.norm.weight")


def embed(ids: list[int], features: torch.Tensor | None, causal: bool) -> torch.Tensor:
    x_LD = weights()["model.embed_tokens.weight"][ids].clone()
    if features is not None:
        image_id = json.loads((released() / "config.json").read_text())["image_token_id"]
        x_LD[torch.tensor(ids) == image_id] = features
    return decode(x_LD, causal)


def unit(vector_D: torch.Tensor) -> np.ndarray:
    return (vector_D / vector_D.norm()).numpy()


def umarvel(image=None, text: str = "", instruction: str | None = None) -> np.ndarray:
    features = None if image is None else seen(image)
    said = format_string(text) if instruction is None else format_string(f"<instruction_start>{instruction}<instruction_end> {text}")
    ids = tokenise(conversation(features, said))
    hidden_LD = embed(ids, features, causal=False)
    start, end = (tokenise(marker)[0] for marker in MARKERS[1:])
    keep = torch.ones(len(ids), dtype=torch.bool)
    if instruction is not None:
        keep[ids.index(start) : ids.index(end) + 1] = False
    return unit(hidden_LD[keep].mean(0))


def lamra(image=None, text: str = "", instruction: str | None = None) -> np.ndarray:
    features = None if image is None else seen(image)
    said = format_string(text) if instruction is None else format_string(f"{instruction} {text}")
    what = "sentence" if image is None else "image and sentence" if said else "image"
    ids = tokenise(conversation(features, f"{said}\nSummarize above {what} in one word: "))
    return unit(embed(ids, features, causal=True)[ids.index(tokenise("<emb>")[0]) - 1])


CASES = {
    "text": {"text": "a red circle top left"},
    "long text": {"text": "two of them moving over the scene, " * 9},
    "image": {"image": tiny.picture(64, 64, 1)},
    "odd image": {"image": tiny.picture(150, 70, 2)},
    "tiny image, enlarged": {"image": tiny.picture(28, 28, 3)},
    "large image, reduced": {"image": tiny.picture(900, 620, 4)},
    "image+text": {"image": tiny.picture(96, 64, 5), "text": 'make "it" blue'},
    "text query": {"text": 'a "red" circle" ', "instruction": INSTRUCTION},
    "question": {"text": "is it blue?", "instruction": INSTRUCTION},
    "image query": {"image": tiny.picture(64, 64, 6), "instruction": INSTRUCTION},
    "image+text query": {"image": tiny.picture(120, 64, 7), "text": "make it blue", "instruction": INSTRUCTION},
}
REFERENCES = {"umarvel": umarvel, "lamra": lamra}


@functools.cache
def imported(kind: str) -> Embedder:
    folder = tiny.workplace() / f"imported-{kind}"
    import_checkpoint(kind, released(), folder)
    return Embedder.load(folder, device="cpu")


@functools.cache
def expected(kind: str) -> np.ndarray:
    return np.stack([REFERENCES[kind](**case) for case in CASES.values()])


def ours(case: dict, folder: Path) -> tuple[Item, str | None]:
    """The item as the reader of a benchmark makes it for this model; candidates are cleaned on their own."""
    image, text, instruction = (case.get(name) for name in ("image", "text", "instruction"))
    if instruction is None:
        return Item.of(image=image, text=format_string(text or "") or None), None
    modality = ",".join(name for name, value in (("image", image), ("text", text)) if value)
    record = {"qid": "1:1", "query_txt": text, "query_modality": modality}
    if image is not None:
        image.save(folder / "query.png")
        record["query_img_path"] = "query.png"
    item = query_item(record, folder, "joined")
    return Item(tuple(item.parts)), instruction


@pytest.mark.parametrize("kind", REFERENCES)
def test_vectors_are_the_published_ones(kind: str, tmp_path: Path):
    model = imported(kind)
    assert model.query_text == "joined"
    for (name, case), vector in zip(CASES.items(), expected(kind), strict=True):
        item, instruction = ours(case, tmp_path)
        side = "candidate" if instruction is None else "query"
        alone = model.encode([item], side, instruction)[0]
        np.testing.assert_allclose(alone, vector, atol=TOLERANCE, rtol=0, err_msg=f"{name}, alone")
        equal = tiny.one_batch(model, [item, item, item], side, instruction)
        np.testing.assert_allclose(equal, np.stack([vector] * 3), atol=TOLERANCE, rtol=0, err_msg=f"{name}, batch without padding")
        padded = tiny.one_batch(model, [tiny.LONGEST, item], side, instruction)[1]
        np.testing.assert_allclose(padded, vector, atol=TOLERANCE, rtol=0, err_msg=f"{name}, padded batch")


@pytest.mark.parametrize("kind", REFERENCES)
def test_the_reference_tells_the_cases_apart(kind: str):
    """Otherwise anything would agree with it."""
    gaps = np.abs(expected(kind)[:, None] - expected(kind)[None]).max(-1)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("setting", "value", "case"),
    [
        ("positions", "mrope", "odd image"),
        ("attention", "causal", "text"),
        ("pooling", "last", "text"),
        ("template", "umarvel", "text"),
        ("max_pixels", 200 * 28 * 28, "large image, reduced"),
    ],
)
def test_each_part_of_exact_compatibility_matters(setting: str, value, case: str, tmp_path: Path):
    imported("umarvel")
    model = Embedder.load(tiny.workplace() / "imported-umarvel", device="cpu", **{setting: value})
    item, _ = ours(CASES[case], tmp_path)
    assert np.abs(model.encode([item])[0] - expected("umarvel")[list(CASES).index(case)]).max() > 100 * TOLERANCE
