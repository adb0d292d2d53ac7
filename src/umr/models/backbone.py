"""A multimodal LLM of transformers as a producer of hidden states: loading, attention direction, positions, batching.

There is no modelling code here. What differs between families (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, LLaVA-NeXT, text-only models) is
which arguments they take, and that is decided in `collate` and `hidden_states`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)

from umr.errors import ModelError
from umr.models import llava, media
from umr.models.attention import PACKED, SEGMENTED, use_fast_vision, use_packed_rows
from umr.rendering.llava_vision import ImageTiles, LlavaReader
from umr.rendering.renderer import Rendered
from umr.rendering.vision import IMAGE, VIDEO, MediaReader, VisionReader, set_frame_budget

Attention = Literal["bidirectional", "causal"]
Positions = Literal["mrope", "flat"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
SEEING_FAMILIES = (*QWEN_FAMILIES, llava.FAMILY)
Batch = dict[str, Any]
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"]


def local_folder(path: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or the local copy of a hub id: whole, with the settings and the template that lie beside the weights."""
    folder = Path(path)
    if folder.exists():
        if revision is not None:
            raise ModelError(f"{path}: revision={revision!r} has no effect on a folder; leave it out")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:  # no network, no such model, not an id: the hub client has a kind of error for each
        raise ModelError(f"{path}: neither a folder here nor a model that can be fetched ({str(error).splitlines()[0]})") from error


def load_config(path: Path) -> Any:
    """Read a checkpoint's configuration, or say in one line why it cannot be read."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: not a model folder (it has no config.json); give the folder that save() or `umr init` wrote")
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: unreadable config.json ({str(error).splitlines()[0]})") from error


def load_processor(path: Path, config: Any) -> Any:
    """The checkpoint's processor, or its tokenizer when the backbone reads text only."""
    try:
        if config.model_type in SEEING_FAMILIES:
            processor = AutoProcessor.from_pretrained(path)
            if not hasattr(processor, "image_processor"):
                raise OSError("preprocessor files are missing")
            if not processor.tokenizer("a")["input_ids"]:  # transformers makes up an empty one
                raise OSError("the tokenizer's vocabulary is missing")
            if config.model_type == llava.FAMILY:
                llava.check_sizes(processor, config, path)
                return processor
            # Frames are sampled when a video is read (umr.media); sampling them again would drop some.
            processor.video_processor.do_sample_frames = False
            processor.video_processor.cap_pixels_per_frame = bool(processor.video_processor.cap_pixels_per_frame)
            return processor
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{path}: the processor or tokenizer cannot be loaded ({str(error).splitlines()[0]}); copy tokenizer.json, "
            "processor_config.json and preprocessor files from the original checkpoint beside config.json"
        ) from error


def pick_device(name: str | None) -> str:
    """The device asked for; without one, cuda where there is one, else cpu. Raises `ModelError` when it is not here."""
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device={device!r} is not here ({str(error).splitlines()[0]})") from error
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The type of a name in `DTYPES`, or a `ModelError`."""
    if name not in DTYPES:
        raise ModelError(f"dtype={name!r}; use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def set_pixel_budget(processor: Any, min_pixels: int | None, max_pixels: int | None, where: str | Path) -> None:
    """Bound the area of images and video frames; None leaves the processor's own bound."""
    if min_pixels is None and max_pixels is None:
        return
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"{where}: min_pixels and max_pixels have no effect on a backbone that reads text only; leave them out")
    if not hasattr(processor, "video_processor"):
        raise ModelError(
            f"{where}: min_pixels and max_pixels have no effect on a LLaVA-NeXT backbone, whose images have one size; leave them out"
        )
    size = processor.image_processor.size
    low, high = min_pixels or size["shortest_edge"], max_pixels or size["longest_edge"]  # areas, whatever the names say
    if low > high:
        raise ModelError(f"{where}: min_pixels={low} is above max_pixels={high}")
    processor.image_processor.size = {"shortest_edge": low, "longest_edge": high}
    if max_pixels is not None:
        set_frame_budget(processor.video_processor, max_pixels)


def media_reader(processor: Any, config: Any, tiles: ImageTiles) -> MediaReader | None:
    """What reads images and videos for a backbone; None for one that reads text only.

    Args:
        processor: as `load_processor` gives it.
        config: the model's.
        tiles: how LLaVA-NeXT shows an image; without effect on the others.
    """
    if not hasattr(processor, "image_processor"):
        return None
    return LlavaReader(processor, config, tiles) if config.model_type == llava.FAMILY else VisionReader(processor)


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer in a processor, or the tokenizer itself; with a padding token."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path, config: Any, attention: Attention, kernel: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load weights (safetensors only) with the attention direction set where transformers honours it: the text config.

    `kernel` is one of transformers' or `"packed"`, see `umr.models.packing`.
    """
    model = _load(AutoModel, path, config, attention, kernel, dtype)
    _use_kernel(model, kernel, path)
    return model


def load_language_model(path: Path, config: Any, attention: Attention, kernel: str, dtype: torch.dtype) -> PreTrainedModel:
    """As `load_model`, with the head that gives each token of the vocabulary a logit; `inner_model` is what stands below it.

    Raises:
        ModelError: also when the folder holds no head, as a retriever's, and its embeddings are not tied to one.
    """
    kind = AutoModelForImageTextToText if config.model_type in SEEING_FAMILIES else AutoModelForCausalLM
    model = _load(kind, path, config, attention, kernel, dtype)
    _use_kernel(inner_model(model), kernel, path)
    return model


def inner_model(network: Any) -> Any:
    """The part of a language model that gives hidden states, without its head; adapters may lie around it."""
    network = network.get_base_model() if hasattr(network, "get_base_model") else network
    return network.base_model  # transformers' own name for what lies below a head


def _use_kernel(model: PreTrainedModel, kernel: str, path: Path) -> None:
    if kernel == "packed":
        use_packed_rows(model, path)
    if kernel != "eager":
        use_fast_vision(model, PACKED if kernel == "packed" else SEGMENTED)


def _load(kind: Any, path: Path, config: Any, attention: Attention, kernel: str, dtype: torch.dtype) -> PreTrainedModel:
    config.get_text_config().is_causal = attention == "causal"
    config.get_text_config().use_cache = False
    try:
        model, report = kind.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa" if kernel == "packed" else kernel,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors and the kernels have errors of their own
        raise ModelError(f"{path}: the weights cannot be loaded ({str(error).splitlines()[0]})") from error
    if missing := sorted(report["missing_keys"]):
        if missing == ["lm_head.weight"]:
            raise ModelError(f"{path}: has no head to answer with (lm_head.weight), and its config does not tie one to its embeddings")
        raise ModelError(f"{path}: the weights lack {len(missing)} tensors, {missing[0]} among them; they would be random")
    loaded: PreTrainedModel = model.eval()
    return loaded


def collate(rows: Sequence[Rendered], pad_id: int, positions: Positions) -> tuple[Batch, torch.Tensor]:
    """Pad rows on the right into one batch, on the CPU.

    Args:
        rows: B rendered rows.
        pad_id: token id of padding; never attended to.
        positions: `"mrope"` lets the model place vision tokens in two dimensions; `"flat"` numbers all tokens 0, 1, 2...,
            which is how the published U-MARVEL weights were made (spec/umarvel.md 1.2).

    Returns:
        Arguments for `hidden_states`, and pool_BL, bool. Pixels of media that occur several times are there once.
    """
    length = max(len(row.token_ids_L) for row in rows)
    ids_BL = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask_BL = torch.zeros(len(rows), length, dtype=torch.long)
    types_BL = torch.zeros(len(rows), length, dtype=torch.long)
    pool_BL = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        end = len(row.token_ids_L)
        ids_BL[index, :end] = torch.from_numpy(row.token_ids_L)
        types_BL[index, :end] = torch.from_numpy(row.types_L)
        pool_BL[index, :end] = torch.from_numpy(row.pool_L)
        mask_BL[index, :end] = 1
    batch: Batch = {"input_ids": ids_BL, "attention_mask": mask_BL}
    blocks = [block for row in rows for block in row.blocks]
    for kind in (IMAGE, VIDEO):
        if chosen := [block for block in blocks if block.kind == kind]:
            batch |= media.arguments(chosen)
    if blocks:
        batch["mm_token_type_ids"] = types_BL
    if positions == "flat":
        batch["position_ids"] = (mask_BL.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
    return batch, pool_BL


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on a device."""
    return {name: one.to(device, non_blocking=True) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}


def hidden_states(model: torch.nn.Module, batch: Batch, family: str) -> torch.Tensor:
    """Last hidden states, (B, L, D)."""
    if family == llava.FAMILY:
        out: torch.Tensor = model(**llava.arguments(inner_model(model), batch)).last_hidden_state
        return out
    accepted = media.encoded_once(inner_model(model), batch)
    if family != "qwen2_5_vl":
        accepted.pop("second_per_grid_ts", None)
    out = model(**accepted).last_hidden_state
    return out


def fingerprint_parts(network: torch.nn.Module, processor: Any) -> list[str]:
    """What the outputs of any model depend on, as text: pixel budgets, tokenizer, type and bytes of the weights."""
    pixels = [getattr(processor, name).to_json_string() for name in ("image_processor", "video_processor") if hasattr(processor, name)]
    dtype = str(next(network.parameters()).dtype)
    return [*pixels, tokenizer_of(processor).backend_tokenizer.to_str(), dtype, weights_hash(network)]


def weights_hash(network: torch.nn.Module) -> str:
    """Hash over names, types and bytes of all parameters and saved buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
