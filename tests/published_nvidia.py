"""Folders in the layout of NV-Embed's and MM-Embed's releases, with random tiny weights.

The tokenizer is built as Mistral's: no splitting into words, a bar for a space and before each run of text, bytes for what is
unknown. The weights lie in two shards under the names of the releases, and the configurations name code that must not be run.
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tiny

HIDDEN, HEADS, KV_HEADS, LAYERS, EPS = 64, 4, 2, 2, 1e-5
LATENTS, LATENT_HEADS, LATENT_WIDTH, MULTIPLIER = 6, 8, 16, 3
THETA = 10_000.0
SIDE, PATCH, VISION_HIDDEN = 56, 14, 32
SPECIAL = ("<unk>", "<s>", "</s>")
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "sliding_window": 4,
    "use_cache": True,
}
"""The window is shorter than any row: the original does not use it."""


def tokenizer(folder: Path, added: tuple[str, ...] = ()) -> int:
    """Write the tokenizer's files; how many tokens are its own, without the added ones."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    trained.train_from_iterator([*tiny.TEXTS, "Instruct: ", "Query: "] * 9, trainer)
    learned = json.loads(trained.to_str())["model"]
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(learned["vocab"], key=learned["vocab"].get)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in learned["merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.add_special_tokens([*SPECIAL, *added])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 32768,
        **({"pad_token": added[-1], "processor_class": "LlavaNextProcessor"} if added else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return len(vocabulary)


def language_weights(prefix: str, rows: int) -> dict[str, tuple[int, ...]]:
    head = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (rows, HIDDEN), f"{prefix}norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        name = f"{prefix}layers.{layer}."
        shapes |= {f"{name}{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
        shapes |= {f"{name}self_attn.{one}_proj.weight": (HIDDEN, HIDDEN) for one in "qo"}
        shapes |= {f"{name}self_attn.{one}_proj.weight": (KV_HEADS * head, HIDDEN) for one in "kv"}
        shapes |= {f"{name}mlp.{one}_proj.weight": (96, HIDDEN) for one in ("gate", "up")} | {f"{name}mlp.down_proj.weight": (HIDDEN, 96)}
    return shapes


def latent_weights() -> dict[str, tuple[int, ...]]:
    inner, feed, blocks = LATENT_HEADS * LATENT_WIDTH, MULTIPLIER * HIDDEN, "latent_attention_model.cross_attend_blocks."
    norms = {f"{blocks}{norm}.{kind}": (HIDDEN,) for norm in ("0.norm", "0.norm_context", "1.norm") for kind in ("weight", "bias")}
    return norms | {
        "latent_attention_model.latents": (LATENTS, HIDDEN),
        f"{blocks}0.fn.to_q.weight": (inner, HIDDEN),
        f"{blocks}0.fn.to_kv.weight": (2 * inner, HIDDEN),
        f"{blocks}0.fn.to_out.weight": (HIDDEN, inner),
        f"{blocks}1.fn.net.0.weight": (2 * feed, HIDDEN),
        f"{blocks}1.fn.net.0.bias": (2 * feed,),
        f"{blocks}1.fn.net.2.weight": (HIDDEN, feed),
        f"{blocks}1.fn.net.2.bias": (HIDDEN,),
    }


def vision_weights() -> dict[str, tuple[int, ...]]:
    d, tower = VISION_HIDDEN, "vision_tower.vision_model."
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}embeddings.class_embedding": (d,),
        f"{tower}embeddings.patch_embedding.weight": (d, 3, PATCH, PATCH),
        f"{tower}embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, d),
        "image_newline": (HIDDEN,),
        "multi_modal_projector.linear_1.weight": (HIDDEN, d),
        "multi_modal_projector.linear_1.bias": (HIDDEN,),
        "multi_modal_projector.linear_2.weight": (HIDDEN, HIDDEN),
        "multi_modal_projector.linear_2.bias": (HIDDEN,),
    }
    norms = [f"{tower}pre_layrnorm", f"{tower}post_layernorm"]
    for layer in range(2):
        name = f"{tower}encoder.layers.{layer}."
        norms += [f"{name}layer_norm1", f"{name}layer_norm2"]
        for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{name}self_attn.{one}.weight": (d, d), f"{name}self_attn.{one}.bias": (d,)}
        shapes |= {f"{name}mlp.fc1.weight": (2 * d, d), f"{name}mlp.fc1.bias": (2 * d,)}
        shapes |= {f"{name}mlp.fc2.weight": (d, 2 * d), f"{name}mlp.fc2.bias": (d,)}
    return shapes | {f"{norm}.{kind}": (d,) for norm in norms for kind in ("weight", "bias")}


def write_weights(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> None:
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        scale = torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.3
        drawn = torch.randn(shape, generator=generator) * scale
        state[name] = (drawn + 1 if "norm" in name and name.endswith(".weight") else drawn).to(dtype)
    files = {"model-00001-of-00002.safetensors": sorted(state)[::2], "model-00002-of-00002.safetensors": sorted(state)[1::2]}
    for file, names in files.items():
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def latent_config() -> dict[str, Any]:
    sizes = {"num_latents_value": LATENTS, "num_cross_heads": LATENT_HEADS, "cross_dim_head": LATENT_WIDTH, "output_normalize": False}
    return {"model_type": "latent_attention", "hidden_dim": HIDDEN, "latent_dim": HIDDEN, **sizes}


def nv_config(rows: int) -> dict[str, Any]:
    return {
        "architectures": ["NVEmbedModel"],
        "auto_map": {"AutoConfig": "configuration_nvembed.NVEmbedConfig", "AutoModel": "modeling_nvembed.NVEmbedModel"},
        "model_type": "nvembed",
        "hidden_size": HIDDEN,
        "add_eos": True,
        "add_pad_token": True,
        "is_mask_instruction": True,
        "mask_type": "b",
        "padding_side": "right",
        "torch_dtype": "float16",
        "latent_attention_config": latent_config(),
        "text_config": {"model_type": "bidir_mistral", "architectures": ["BidirectionalMistralModel"], "vocab_size": rows, **TEXT},
    }


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=tiny.workplace(), prefix="released-"))


@functools.cache
def nv_embed(dtype: torch.dtype = torch.float32) -> Path:
    """A folder as NV-Embed is released. Do not change it: take a `tiny.copy_of` it."""
    folder = new_folder()
    rows = tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(nv_config(rows)), "utf-8")
    write_weights(folder, language_weights("embedding_model.", rows) | latent_weights(), dtype)
    return folder


@functools.cache
def mm_embed() -> Path:
    """A folder as MM-Embed is released. Its text_config is that of LLaVA-NeXT, with positions of another base. Do not change it."""
    folder = new_folder()
    rows = tokenizer(folder, ("<image>", "<pad>"))
    config = {
        "architectures": ["NVMMEmbedModel"],
        "auto_map": {"AutoModel": "modeling_nvmmembed.NVMMEmbedModel"},
        "model_type": "llava_next",
        "retriever": "nvidia/NV-Embed-v1",
        "padding_side": "right",
        "add_eos_token": True,
        "global_image_patch_only": True,
        "image_grid_pinpoints": [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]],
        "image_token_index": rows,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "torch_dtype": "bfloat16",
        "text_config": {"model_type": "mistral", **TEXT, "rope_theta": 1_000_000.0, "sliding_window": None, "vocab_size": rows + 9},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 2 * VISION_HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "projection_dim": 16,
            "vocab_size": 32000,
        },
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    images = {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "aspect_ratio_setting": "anyres",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_grid_pinpoints": config["image_grid_pinpoints"],
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images), "utf-8")
    write_weights(folder, language_weights("language_model.", rows) | latent_weights() | vision_weights())
    return folder
