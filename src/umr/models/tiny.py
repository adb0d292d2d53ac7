"""Checkpoints from nothing: a real configuration class, a tokenizer trained on given text, a processor, random weights.

The folder is an ordinary one that transformers itself loads. Tiny models make everything testable without a download, and
learn World in minutes. The shapes follow what was measured to learn fast (docs/decisions.md): few layers, a learned position
embedding in the vision tower, and rotary frequencies fit for sequences of tens of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from umr.errors import ModelError
from umr.models import tiny_llava

FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", tiny_llava.FAMILY)
_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
_NAMED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_MARKERS = ["<emb>", "<instruction_start>", "<instruction_end>"]
ACTIVE_LAYERS = 2
"""Layers of the language model that do something before any training."""
_LAYER_OUTPUT = re.compile(r"language_model\.layers\.(\d+)\.(?:self_attn\.o_proj|mlp\.down_proj)\.weight$")
_SCAFFOLD = ["system\nRepresent the user's input.", "user\n", "assistant\n", "You are a helpful assistant.", "<0.5 seconds>"]


@dataclass(frozen=True)
class Size:
    """Widths and depths of a checkpoint made from scratch."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vocabulary: int


SIZES = {
    "tiny": Size(hidden=128, layers=4, heads=4, vision_hidden=128, vision_depth=2, vision_heads=4, vocabulary=2048),
    "small": Size(hidden=256, layers=6, heads=8, vision_hidden=256, vision_depth=5, vision_heads=8, vocabulary=4096),
    "base": Size(hidden=768, layers=9, heads=12, vision_hidden=512, vision_depth=8, vision_heads=8, vocabulary=8192),
}


def make_checkpoint(family: str, out: Path, texts: Iterable[str], size: str = "tiny", seed: int = 0) -> int:
    """Write a checkpoint with random weights.

    Args:
        family: `"qwen2-vl"`, `"qwen2.5-vl"`, `"qwen3-vl"` or `"llava-next"`.
        out: folder to make; must be empty or absent.
        texts: what the BPE tokenizer is trained on.
        size: `"tiny"` (about 2M parameters), `"small"` (about 10M) or `"base"` (about 100M).
        seed: of the weights; the same seed and texts give the same bytes.

    Returns:
        Number of parameters.

    Raises:
        ModelError: unknown family or size, or `out` holds something.
    """
    from transformers import AutoModel

    if family not in FAMILIES:
        raise ModelError(f"unknown family {family!r}; use one of {', '.join(FAMILIES)}")
    if size not in SIZES:
        raise ModelError(f"unknown size {size!r}; use one of {', '.join(SIZES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out}: exists and is not an empty folder; choose another")
    if family == tiny_llava.FAMILY:
        tokenizer = _tokenizer(texts, SIZES[size].vocabulary, tiny_llava.NAMED, [tiny_llava.IMAGE], tiny_llava.SCAFFOLD)
        processor, config = tiny_llava.processor(tokenizer), tiny_llava.config(SIZES[size], tokenizer)
    else:
        tokenizer = _tokenizer(texts, SIZES[size].vocabulary, _NAMED, _TOKENS, _SCAFFOLD)
        processor, config = _processor(family, tokenizer), _config(family, SIZES[size], tokenizer)
    with torch.random.fork_rng():  # what transformers draws is drawn again; the caller's numbers are left alone
        model = AutoModel.from_config(config)
    _draw_weights(model, seed)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return sum(parameter.numel() for parameter in model.parameters())


def _draw_weights(model: torch.nn.Module, seed: int) -> None:
    """Draw every weight matrix, and every vector that stands for a token, with variance 1 / inputs.

    transformers' 0.02 is made for widths of thousands; a narrow network that starts so small needs hundreds of steps to leave the
    state in which all embeddings are equal (docs/decisions.md). Later layers of the language model begin as the identity: a retriever
    learns as fast as with two layers, and a reranker finds the depth that comparing two items takes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (output := _LAYER_OUTPUT.search(name)) and int(output[1]) >= ACTIVE_LAYERS:
                parameter.zero_()
            elif parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            elif name.endswith(tiny_llava.TOKEN_VECTORS):
                parameter.normal_(0, parameter.numel() ** -0.5, generator=generator)


def _tokenizer(texts: Iterable[str], vocabulary: int, named: dict[str, str], others: list[str], scaffold: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )

    def corpus() -> Iterable[str]:
        yield from texts
        for text in scaffold:
            yield from [text] * 50  # often enough to become few tokens: they stand in every sequence

    tokenizer.train_from_iterator(corpus(), trainer)
    # What rerankers answer must be single tokens, whatever the texts were.
    tokenizer.add_tokens(["Yes", "No", "True", "False"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=[*others, *_MARKERS],
        model_max_length=2048,
        **named,
    )


def _processor(family: str, tokenizer: Any) -> Any:
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    from umr.models.exchange import jinja
    from umr.rendering.template import CHAT

    patch = 16 if family == "qwen3-vl" else 14
    tile = (2 * patch) ** 2
    shape = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    images = Qwen2VLImageProcessor(size={"shortest_edge": 4 * tile, "longest_edge": 256 * tile}, **shape)
    video_size = {"shortest_edge": 4 * tile, "longest_edge": 1024 * tile}
    reader = Qwen3VLVideoProcessor if family == "qwen3-vl" else Qwen2VLVideoProcessor
    videos = reader(size=video_size, do_sample_frames=False, cap_pixels_per_frame=False, **shape)
    kind = {"qwen2-vl": Qwen2VLProcessor, "qwen2.5-vl": Qwen2_5_VLProcessor, "qwen3-vl": Qwen3VLProcessor}[family]
    chat = jinja(CHAT, timestamps=family == "qwen3-vl")
    return kind(image_processor=images, tokenizer=tokenizer, video_processor=videos, chat_template=chat)


def _config(family: str, size: Size, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

    head = size.hidden // size.heads
    third = head // 2 // 4
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": size.hidden * 2,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [head // 2 - 2 * third, third, third]},
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "use_cache": False,
    }
    vision: dict[str, Any] = {"depth": size.vision_depth, "num_heads": size.vision_heads, "spatial_merge_size": 2, "temporal_patch_size": 2}
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    if family == "qwen2-vl":
        vision |= {"embed_dim": size.vision_hidden, "hidden_size": size.hidden, "patch_size": 14, "mlp_ratio": 4}
        return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    vision |= {"hidden_size": size.vision_hidden, "out_hidden_size": size.hidden, "intermediate_size": size.vision_hidden * 2}
    if family == "qwen2.5-vl":
        vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [size.vision_depth - 1], "tokens_per_second": 2}
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    text |= {"head_dim": head}
    text["rope_parameters"]["mrope_interleaved"] = True
    deepstack = sorted({size.vision_depth // 2 - 1, size.vision_depth - 2} - {-1})
    vision |= {"patch_size": 16, "num_position_embeddings": 144, "deepstack_visual_indexes": deepstack}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
