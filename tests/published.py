"""Folders in the layout of the published U-MARVEL and LamRA checkpoints, with random tiny weights.

The layout is that of transformers 4.4x: a flat configuration, weights in shards whose names begin with `model.` and `visual.`, a
tokenizer without the markers, pixel budgets in `preprocessor_config.json`, and beside the weights one learned number.
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tiny

MARKERS = ("<emb>", "<instruction_start>", "<instruction_end>")
SPARE_ROWS = 5
HIDDEN, HEADS, KV_HEADS, LAYERS, THETA, EPS = 64, 4, 2, 3, 10_000.0, 1e-6
TEMPERATURE = 0.0325


def _tokenizer(folder: Path) -> dict[str, int]:
    """Copy the tiny tokenizer without its markers; its special tokens by name."""
    source = tiny.checkpoint("qwen2-vl")
    data = json.loads((source / "tokenizer.json").read_text("utf-8"))
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in MARKERS]
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), "utf-8")
    special = [token["content"] for token in data["added_tokens"] if token["special"]]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Qwen2VLProcessor",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": [token for token in special if token not in ("<|im_end|>", "<|endoftext|>")],
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return {token["content"]: token["id"] for token in data["added_tokens"]}


def _config(ids: dict[str, int]) -> dict[str, Any]:
    head = HIDDEN // HEADS
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": max(ids.values()) + 1 + SPARE_ROWS,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "rope_scaling": {"type": "mrope", "mrope_section": [head // 2 - 4, 2, 2]},
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": LAYERS,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "torch_dtype": "float32",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_config": {
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": HIDDEN,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_chans": 3,
        },
        "transformers_version": "4.46.0",
    }


def _weights(folder: Path, temperature: float | None) -> None:
    """Random weights of the real class under their old names, in two shards."""
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    with torch.random.fork_rng():
        model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, tensor in model.state_dict().items():
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
        drawn = torch.randn(tensor.shape, generator=generator) * scale
        if tensor.ndim == 1 and name.endswith("norm.weight"):
            drawn += 1
        state[name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")] = drawn
    if temperature is not None:
        state["sim.temp"] = torch.tensor(temperature)
    names = sorted(state)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name].contiguous() for name in part}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


@functools.cache
def released(temperature: float | None = TEMPERATURE) -> Path:
    """A released folder. Do not change it: take a `tiny.copy_of` it."""
    folder = Path(tempfile.mkdtemp(dir=tiny.workplace(), prefix="released-"))
    ids = _tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(_config(ids)), "utf-8")
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), "utf-8")
    _weights(folder, temperature)
    return folder
