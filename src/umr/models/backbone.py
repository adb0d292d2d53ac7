"""A multimodal LLM of transformers as a producer of hidden states: loading, attention direction, positions, batching.

There is no modelling code here. What differs between families (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, text-only models) is which
arguments they take, and that is decided in `collate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, PreTrainedModel

from umr.errors import ModelError
from umr.models.attention import use_fast_vision
from umr.rendering.renderer import Rendered
from umr.rendering.vision import IMAGE, VIDEO

Attention = Literal["bidirectional", "causal"]
Positions = Literal["mrope", "flat"]
QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
Batch = dict[str, torch.Tensor]
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
        if config.model_type in QWEN_FAMILIES:
            processor = AutoProcessor.from_pretrained(path)
            if not hasattr(processor, "image_processor"):
                raise OSError("preprocessor files are missing")
            if not processor.tokenizer("a")["input_ids"]:  # transformers makes up an empty one
                raise OSError("the tokenizer's vocabulary is missing")
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


def load_model(path: Path, config: Any, attention: Attention, kernel: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load weights (safetensors only) with the attention direction set where transformers honours it: the text config."""
    config.get_text_config().is_causal = attention == "causal"
    config.get_text_config().use_cache = False
    try:
        model, report = AutoModel.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=kernel, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # safetensors and the kernels have errors of their own
        raise ModelError(f"{path}: the weights cannot be loaded ({str(error).splitlines()[0]})") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{path}: the weights lack {len(missing)} tensors, {missing[0]} among them; they would be random")
    if kernel != "eager":
        use_fast_vision(model)
    model.eval()
    return model


def collate(rows: Sequence[Rendered], pad_id: int, positions: Positions, device: torch.device | str = "cpu") -> tuple[Batch, torch.Tensor]:
    """Pad rows on the right into one batch.

    Args:
        rows: B rendered rows.
        pad_id: token id of padding; never attended to.
        positions: `"mrope"` lets the model place vision tokens in two dimensions; `"flat"` numbers all tokens 0, 1, 2...,
            which is how the published U-MARVEL weights were made (spec/umarvel.md 1.2).
        device: where the tensors go.

    Returns:
        The model's keyword arguments, and pool_BL, bool.
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
    batch = {"input_ids": ids_BL, "attention_mask": mask_BL}
    blocks = [block for row in rows for block in row.blocks]
    for kind, pixels, grid in ((IMAGE, "pixel_values", "image_grid_thw"), (VIDEO, "pixel_values_videos", "video_grid_thw")):
        if chosen := [block for block in blocks if block.kind == kind]:
            batch[pixels] = torch.cat([block.patches_PC for block in chosen])
            batch[grid] = torch.tensor([block.grid for block in chosen])
            if kind == VIDEO:
                batch["second_per_grid_ts"] = torch.tensor([block.seconds_per_grid for block in chosen])
    if blocks:
        batch["mm_token_type_ids"] = types_BL
    if positions == "flat":
        batch["position_ids"] = (mask_BL.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}, pool_BL.to(device)


def hidden_states(model: torch.nn.Module, batch: Batch, family: str) -> torch.Tensor:
    """Last hidden states, (B, L, D)."""
    accepted = batch if family == "qwen2_5_vl" else {key: value for key, value in batch.items() if key != "second_per_grid_ts"}
    out: torch.Tensor = model(**accepted).last_hidden_state
    return out
