"""A second, naive implementation of rendering and pooling, written without a look at the first: whole strings, whole-string
tokenisation by transformers' own processor, a mask found by walking over the tokens, one row at a time, fp64."""

import copy

import numpy as np
import pytest
import torch

from tiny import INSTRUCTION, checkpoint, embedder, film, picture
from umr.items import Item, Video
from umr.models.embedder import Embedder
from umr.rendering.template import umarvel

FAMILY = "qwen3-vl"
VISION = {"image": "<|vision_start|><|image_pad|><|vision_end|>", "video": "<|video_pad|>"}

# Each row: its media in order as (kind, value), its text. Videos carry their rate.
ROWS = [
    ([], "a red circle"),
    ([], 'un círculo — 赤い丸 🎈 e\u0301, quoted: "\'" {braces} \\n'),
    ([], "two of them moving over the scene " * 5),
    ([("image", picture(64, 64, 1))], ""),
    ([("image", picture(131, 77, 2))], "make it blue"),
    ([("image", picture(64, 64, 1)), ("image", picture(90, 200, 3))], "two of them"),
    ([("image", picture(8, 8, 4))], "tiny"),
    ([("video", (film(4), 2.0))], ""),
    ([("video", (film(3, 96, 64), 0.7))], "moving"),
    ([("image", picture(64, 64, 1)), ("video", (film(2), 24.0))], "both"),
]


def as_item(media: list, text: str) -> Item:
    images = [value for kind, value in media if kind == "image"]
    videos = [Video(*value) for kind, value in media if kind == "video"]
    return Item.of(images=images, video=videos[0] if videos else None, text=text)


@pytest.fixture(scope="module")
def reference():
    """transformers' processor and model in fp64, with nothing of ours in between."""
    from transformers import AutoModel, AutoProcessor

    folder = checkpoint(FAMILY)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    model.config.text_config.is_causal = False
    return AutoProcessor.from_pretrained(folder), model.eval()


def tokenise(processor, string: str, media: list) -> dict[str, torch.Tensor]:
    images = [value for kind, value in media if kind == "image"]
    videos = [value for kind, value in media if kind == "video"]
    arguments: dict = {"text": [string], "return_tensors": "pt"}
    if images:
        arguments["images"] = images
    if videos:
        arguments["videos"] = [[np.asarray(frame) for frame in frames] for frames, _ in videos]
        arguments["do_sample_frames"] = False
        arguments["video_metadata"] = [
            {"total_num_frames": len(frames), "fps": rate, "frames_indices": list(range(len(frames)))} for frames, rate in videos
        ]
    batch = dict(processor(**arguments))
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


def chat_string(media: list, text: str, instruction: str | None) -> str:
    system = instruction or "Represent the user's input."
    content = "".join(VISION[kind] for kind, _ in media) + text
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"


def chat_mask(processor, ids: list[int]) -> list[bool]:
    """Everything after the system turn's closing token."""
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    keep, closed = [], False
    for token in ids:
        keep.append(closed)
        closed = closed or token == end
    return keep


def umarvel_string(media: list, text: str, instruction: str | None, generation_prompt: bool = False) -> str:
    marked = f"<instruction_start>{instruction}<instruction_end>" if instruction else ""
    words = " ".join(part for part in (marked, text) if part)
    vision = "".join(VISION[kind] for kind, _ in media)
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{vision}{words}<|im_end|>\n"
        "<|im_start|>assistant\n<emb>.<|im_end|>\n" + ("<|im_start|>assistant\n" if generation_prompt else "")
    )


def umarvel_mask(processor, ids: list[int]) -> list[bool]:
    """Everything but the span from the opening to the closing marker, both included."""
    start, end = processor.tokenizer.convert_tokens_to_ids(["<instruction_start>", "<instruction_end>"])
    keep, inside = [], False
    for token in ids:
        inside = inside or token == start
        keep.append(not inside)
        inside = inside and token != end
    return keep


def embed(processor, model, string: str, media: list, mask_of) -> tuple[list[int], list[bool], np.ndarray]:
    batch = tokenise(processor, string, media)
    ids = batch["input_ids"][0].tolist()
    mask = mask_of(processor, ids)
    with torch.inference_mode():
        wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        hidden_LD = model(**wide).last_hidden_state[0].numpy()
    total, count = np.zeros(hidden_LD.shape[1]), 0
    for state_D, kept in zip(hidden_LD, mask, strict=True):
        if kept:
            total, count = total + state_D, count + 1
    mean = total / count
    return ids, mask, mean / np.sqrt((mean**2).sum())


@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
@pytest.mark.parametrize(
    ("template", "string_of", "mask_of"),
    [
        ("chat", chat_string, chat_mask),
        ("umarvel", umarvel_string, umarvel_mask),
        ("umarvel-generation-prompt", lambda *row: umarvel_string(*row, generation_prompt=True), umarvel_mask),
    ],
    ids=["chat", "umarvel", "umarvel-generation-prompt"],
)
def test_equals_the_naive_implementation(reference, template: str, string_of, mask_of, instruction: str | None):
    processor, network = reference
    model = embedder(FAMILY, template=template, kernel="eager")
    items = [as_item(*row) for row in ROWS]
    expected = []
    for row, rendered in zip(ROWS, model.engine.renderer.render(items, "query", instruction), strict=True):
        ids, mask, vector = embed(processor, network, string_of(*row, instruction), row[0], mask_of)
        assert rendered.token_ids_L.tolist() == ids
        assert rendered.pool_L.tolist() == mask
        expected.append(vector)
    assert np.abs(model.encode(items, "query", instruction) - np.array(expected)).max() <= 1e-5
    assert np.abs(in_fp64(model, items, instruction) - np.array(expected)).max() <= 1e-9


def in_fp64(model: Embedder, items: list[Item], instruction: str | None) -> np.ndarray:
    """Our model moved to fp64, row by row: the norms of transformers round to fp32 inside, and would turn padding into 1e-8."""
    double = copy.deepcopy(model.engine.model).double()
    rows = model.engine.prepare(items, "query", [instruction] * len(items))
    with torch.inference_mode():
        return torch.cat([double([row]) for row in rows]).numpy()


def test_the_chat_template_of_the_folder_writes_the_same_string(reference):
    """What sentence-transformers will render from a saved folder is what the hand-built string says."""
    processor, _ = reference
    for media, text in ROWS:
        parts = [{"type": kind} for kind, _ in media] + ([{"type": "text", "text": text}] if text else [])
        user = [{"role": "user", "content": parts}]
        system = [{"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]}]
        for messages, instruction in ((user, None), (system + user, INSTRUCTION)):
            assert processor.apply_chat_template(messages, tokenize=False) == chat_string(media, text, instruction)


def test_umarvel_keeps_the_emb_turn_in_the_mean(reference):
    """The published mean runs over system prompt, roles, vision, text, `<emb>.` and, in evaluation, the second assistant turn."""
    processor, _ = reference
    tokenizer = processor.tokenizer
    item = Item.of(text="a red circle")
    for prompt in (False, True):
        model = embedder(FAMILY, template=umarvel(generation_prompt=prompt).name)
        (row,) = model.engine.renderer.render([item], "query", INSTRUCTION)
        tail = tokenizer.decode(row.token_ids_L[row.token_ids_L.tolist().index(tokenizer.convert_tokens_to_ids("<emb>")) :])
        assert tail == "<emb>.<|im_end|>\n" + ("<|im_start|>assistant\n" if prompt else "")
        pooled = tokenizer.decode(row.token_ids_L[row.pool_L])
        assert pooled.startswith("<|im_start|>system\nYou are a helpful assistant.") and pooled.endswith(tail)
        assert INSTRUCTION not in pooled and "instruction_" not in pooled
