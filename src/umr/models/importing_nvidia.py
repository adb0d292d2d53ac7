"""NVIDIA's two releases as engines of ours: NV-Embed (text) and MM-Embed, which shows images to NV-Embed's language model.

Both come with code of their own, which is not run: what it computes is expressed in our settings and template. Names and arithmetic
are those of the modelling files that the releases carry; docs/checkpoints.md says what of it could not be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModel, MistralConfig, PreTrainedTokenizerFast

from umr.errors import ModelError
from umr.models import backbone
from umr.models.checkpoint_files import tensor_names, weight_files
from umr.models.embedder import EmbeddingModel, RenderedEngine
from umr.models.embedding_rows import make_room
from umr.models.latent_attention import LatentAttention, LatentSizes
from umr.models.settings import ModelSettings
from umr.rendering.llava_vision import ImageTiles
from umr.rendering.renderer import Renderer
from umr.rendering.template import MM_EMBED_PUBLISHED, Template

_LATENT = "latent_attention_model."
_BLOCKS = f"{_LATENT}cross_attend_blocks."
_LATENT_NAMES = {
    "latents": f"{_LATENT}latents",
    "norm": f"{_BLOCKS}0.norm",
    "norm_latents": f"{_BLOCKS}0.norm_context",
    "to_query": f"{_BLOCKS}0.fn.to_q",
    "to_key_value": f"{_BLOCKS}0.fn.to_kv",
    "to_output": f"{_BLOCKS}0.fn.to_out",
    "norm_feed": f"{_BLOCKS}1.norm",
    "feed_in": f"{_BLOCKS}1.fn.net.0",
    "feed_out": f"{_BLOCKS}1.fn.net.2",
}
"""Parts of `LatentAttention` -> their names in both releases."""
_MISTRAL_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_MAX_TOKENS = 4096
_PUBLISHED_HEADS = 8
_NV_EMBED_V1 = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-5}
"""Of Mistral-7B-v0.1, which NV-Embed-v1 grew from. LLaVA-NeXT's own Mistral, whose settings MM-Embed's folder may still hold, is a later
one with another base of its positions."""


@dataclass(frozen=True)
class Opened:
    """A release as it is used here.

    Attributes:
        engine: ready to embed, and to be saved.
        new_rows: rows added to the embedding matrix.
    """

    engine: RenderedEngine
    new_rows: int


def open_nv_embed(source: Path) -> Opened:
    """A folder of NV-Embed's layout: a Mistral that attends in both directions, and latent attention.

    Raises:
        ModelError: the folder is something else.
    """
    raw = _read_config(source)
    if raw.get("model_type") != "nvembed" or not isinstance(raw.get("text_config"), dict):
        raise ModelError(f"{source}: a {raw.get('model_type')} checkpoint, not NV-Embed's (nvembed with a text_config)")
    if raw.get("mask_type", "b") != "b":
        raise ModelError(f"{source}: mask_type={raw['mask_type']!r}; only NV-Embed's attention in both directions ('b') is known")
    names = _names(source, ("embedding_model.", _LATENT))
    config = _mistral(source, raw["text_config"], names, "embedding_model.")
    tokenizer = _tokenizer(source)
    network = _network(source, config, _dtype(names, "embedding_model."), {r"^embedding_model\.": ""})
    new_rows = make_room(network, len(tokenizer))
    block, sizes = _latent_attention(source, names, raw.get("latent_attention_config") or {}, config.hidden_size)
    settings = ModelSettings(pooling="latent", latent=sizes, max_tokens=_MAX_TOKENS)
    return Opened(_engine(network, block, settings, _nv_embed_template(raw), tokenizer), new_rows)


def open_mm_embed(source: Path) -> Opened:
    """A folder of MM-Embed's layout: LLaVA-NeXT with NV-Embed's language model and latent attention.

    Raises:
        ModelError: the folder is something else.
    """
    raw = _read_config(source)
    if raw.get("model_type") != "llava_next":
        raise ModelError(f"{source}: a {raw.get('model_type')} checkpoint; MM-Embed was published as llava_next")
    known = ("language_model.", "vision_tower.", "multi_modal_projector.", "image_newline", _LATENT)
    names = _names(source, known)
    retriever = _retriever(source, raw)
    config = backbone.load_config(source)
    config.text_config = _mistral(source, (raw.get("text_config") or {}) | retriever["text_config"], names, "language_model.")
    for gone in ("auto_map", "retriever", "global_image_patch_only", "padding_side", "add_eos_token"):
        if hasattr(config, gone):
            delattr(config, gone)
    processor = backbone.load_processor(source, config)
    processor.tokenizer = tokenizer = _tokenizer(source)
    network = _network(source, config, _dtype(names, "language_model."), None)
    new_rows = make_room(network, max(len(tokenizer), config.image_token_index + 1))
    rows_VD = network.get_input_embeddings().weight
    if tokenizer.pad_token_id >= len(rows_VD) - new_rows:  # the original looks padding up as the end of the text
        with torch.no_grad():
            rows_VD[tokenizer.pad_token_id] = rows_VD[tokenizer.eos_token_id]
    block, sizes = _latent_attention(source, names, retriever["latent_attention_config"], config.text_config.hidden_size)
    tiles: ImageTiles = "global" if raw.get("global_image_patch_only", True) else "anyres"
    settings = ModelSettings(pooling="latent", latent=sizes, max_tokens=_MAX_TOKENS, image_tiles=tiles)
    return Opened(_engine(network, block, settings, _mm_embed_template(raw), processor), new_rows)


def _read_config(source: Path) -> dict[str, Any]:
    """The configuration as it is written; its class may be code of the folder, which is not run."""
    path = source / "config.json"
    if not source.is_dir():
        raise ModelError(f"{source}: no such folder")
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except FileNotFoundError as error:
        raise ModelError(f"{source}: not a model folder (it has no config.json)") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: unreadable ({error})") from error
    return found


def _names(source: Path, known: tuple[str, ...]) -> dict[str, Path]:
    """Every tensor's file. Weights that the published arithmetic has no place for would be dropped without a word: refuse them."""
    names = tensor_names(weight_files(source))
    if adapters := [name for name in names if ".lora_" in name]:
        raise ModelError(f"{source}: holds LoRA adapters ({adapters[0]}); fold them into their base first")
    if strange := sorted(name for name in names if not name.startswith(known)):
        raise ModelError(
            f"{source}: holds {strange[0]}, which is no part of the published model; its vectors would not be the published ones"
        )
    if f"{_LATENT}latents" not in names:
        raise ModelError(f"{source}: has no latent attention ({_LATENT}latents); a folder without one needs no import")
    return names


def _mistral(source: Path, text: dict[str, Any], names: dict[str, Path], prefix: str) -> Any:
    """NV-Embed's language model as transformers' Mistral: no window, since the original hides padding alone."""
    kept = {key: text[key] for key in _MISTRAL_KEYS if text.get(key) is not None}
    matrix = f"{prefix}embed_tokens.weight"
    if matrix not in names:
        raise ModelError(f"{source}: the weights lack {matrix}; the folder is not of the published layout")
    with safe_open(names[matrix], framework="pt") as tensors:
        kept["vocab_size"] = tensors.get_slice(matrix).get_shape()[0]
    config = MistralConfig.from_dict(kept)
    config.sliding_window = None
    return config


def _dtype(names: dict[str, Path], prefix: str) -> torch.dtype:
    with safe_open(names[f"{prefix}norm.weight"], framework="pt") as tensors:
        found: torch.dtype = tensors.get_tensor(f"{prefix}norm.weight").dtype
    return found


def _load(read: Callable[[], Any], source: Path, what: str) -> Any:
    try:
        return read()
    except Exception as error:  # transformers, tokenizers and safetensors have errors of their own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{source}: {what} cannot be loaded ({reason})") from error


def _network(source: Path, config: Any, dtype: torch.dtype, renamed: dict[str, str] | None) -> Any:
    """The network, read shard by shard; latent attention's tensors are left for later."""
    config.get_text_config().is_causal = False
    config.get_text_config().use_cache = False
    network, report = _load(
        lambda: AutoModel.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            key_mapping=renamed,
            trust_remote_code=False,
        ),
        source,
        "the weights",
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{source}: the weights lack {len(missing)} tensors, {missing[0]} among them; they would be random")
    if renamed is not None:
        network._weight_conversions = None  # or saving would give the tensors the release's names again
    return network.eval()


def _latent_attention(source: Path, names: dict[str, Path], config: dict[str, Any], width: int) -> tuple[LatentAttention, LatentSizes]:
    """The block, its sizes read off its tensors but for the heads, which only the configuration tells."""
    tensors: dict[str, torch.Tensor] = {}
    for name, path in names.items():
        if name.startswith(_LATENT):
            with safe_open(path, framework="pt") as file:
                tensors[name] = file.get_tensor(name).float()
    heads = int(config.get("num_cross_heads", _PUBLISHED_HEADS))
    try:
        inner, feed = len(tensors[f"{_BLOCKS}0.fn.to_q.weight"]), len(tensors[f"{_BLOCKS}1.fn.net.0.weight"])
        sizes = LatentSizes(len(tensors[f"{_LATENT}latents"]), heads, inner // heads, feed // (2 * width))
        with torch.device("meta"):
            block = LatentAttention(width, sizes)
        ours = {_released(name): name for name in block.state_dict()}
        block.load_state_dict({ours.get(name, name): tensor for name, tensor in tensors.items()}, assign=True)
    except (KeyError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{source}: its latent attention is not of the published layout with {heads} heads ({reason})") from error
    return block.eval(), sizes


def _released(name: str) -> str:
    part, dot, kind = name.partition(".")
    return _LATENT_NAMES[part] + dot + kind


def _retriever(source: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """What NV-Embed's configuration says of the language model and the latent attention inside MM-Embed.

    The release names another repository for it. NV-Embed-v1's numbers are known; for any other there must be a folder.
    """
    named = str(raw.get("retriever", "nvidia/NV-Embed-v1"))
    folder = source / named
    if (folder / "config.json").is_file():
        found = _read_config(folder)
        return {"text_config": found.get("text_config") or {}, "latent_attention_config": found.get("latent_attention_config") or {}}
    if named.rstrip("/").endswith("NV-Embed-v1"):
        return {"text_config": {"rope_parameters": None, "rope_scaling": None} | _NV_EMBED_V1, "latent_attention_config": {}}
    raise ModelError(
        f"{source}: its language model is described by retriever={named!r}; put that model's config.json into {folder}, or give its folder"
    )


def _engine(network: Any, block: LatentAttention, settings: ModelSettings, template: Template, processor: Any) -> RenderedEngine:
    tokenizer = backbone.tokenizer_of(processor)
    vision = backbone.media_reader(processor, network.config, settings.image_tiles)
    renderer = Renderer(template, tokenizer, vision, settings.max_tokens, settings.pooling)
    model = EmbeddingModel(network, settings, network.config.model_type, tokenizer.pad_token_id, block)
    return RenderedEngine(model, renderer, processor)


def _tokenizer(source: Path) -> Any:
    """The tokenizer exactly as its file says: the class that a release names would be built anew by transformers, not quite the same.

    The originals count on its putting a token before a text.
    """
    tokenizer = backbone.tokenizer_of(_load(lambda: PreTrainedTokenizerFast.from_pretrained(source), source, "the tokenizer"))
    ids = tokenizer("a")["input_ids"]
    if not ids or ids[0] != tokenizer.bos_token_id or tokenizer.eos_token is None:
        raise ModelError(f"{source}: its tokenizer puts no token before a text, or has none for its end; take the released tokenizer files")
    return tokenizer


def _nv_embed_template(raw: dict[str, Any]) -> Template:
    """Instruction and "Query: " before the text, and the end of the text after it.

    The original counts the tokens of the instruction with the space at its end and without the token before the text, and leaves
    so many out of the mean: those up to "Query:". It does so with padding on the right only.
    """
    end = "{eos}" if raw.get("add_eos", True) else ""
    skips = raw.get("is_mask_instruction", True) and raw.get("padding_side", "right") == "right"
    before, after = ("{skip}", "{/skip}") if skips else ("", "")
    return Template(
        name="nv-embed-published",
        with_instruction=f"{before}{{bos}}Instruct: {{instruction}}\nQuery:{after} {{content}}{end}",
        without_instruction=f"{{bos}}{{content}}{end}",
    )


def _mm_embed_template(raw: dict[str, Any]) -> Template:
    """See `MM_EMBED_PUBLISHED`; without an end of the text the original's count is one less, and the newline is averaged too."""
    published = MM_EMBED_PUBLISHED
    if raw.get("add_eos_token", True):
        return published
    return Template(
        name="mm-embed-published-without-end",
        with_instruction=published.with_instruction.replace("{eos}", "").replace("\n{/skip}", "{/skip}\n"),
        without_instruction=published.without_instruction.replace("{eos}", ""),
    )
