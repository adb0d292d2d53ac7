"""A LoRA adapter folded into its base: one folder that needs neither peft nor the base."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from umr.errors import ModelError
from umr.models import backbone, pooling, settings
from umr.models.checkpoint_files import is_temperature, must_be_new, read_temperature, stored_dtype, tensor_names, weight_files
from umr.models.embedder import Embedder, RenderedEngine
from umr.models.settings import ModelSettings
from umr.rendering import template as templates

_USE = ("attention", "positions", "pooling", "latent", "image_tiles", "dimension", "max_tokens")
_LORA = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_magnitude_vector)")


def merge(base: str | Path, adapter: str | Path, out: Path) -> list[str]:
    """Fold a peft LoRA adapter into a checkpoint.

    How the result is used (attention, pooling, template, temperature) is taken from the adapter's `umr.json` and `template.json`
    where it has them, else from the base's. The learned temperature is kept: the adapter's own, in `umr.json` or among its
    tensors (`sim.temp`), else the base's. So are the weights of latent attention (`1_Pooling/model.safetensors`).

    Args:
        base: a model folder of ours, a plain Qwen-VL or text checkpoint, or a hub id.
        adapter: folder with `adapter_config.json` and `adapter_model.safetensors`. It may have been trained on the model with its
            language-model head or without.
        out: folder to write, which must not exist. It appears whole or not at all.

    Returns:
        Reasons why plain sentence-transformers cannot load the result; empty when it can.

    Raises:
        ModelError: the adapter is pickled, no LoRA, or made for another model; or something is at `out`.
    """
    must_be_new(out)
    adapter = Path(adapter)
    config = _lora_config(adapter)
    files = weight_files(adapter, "adapter_model.safetensors")
    names = tensor_names(files)
    embedder = _open_base(base, adapter)
    engine: Any = embedder.engine
    _fold(engine.model, config, load_file(files[0]), adapter)
    stored = engine.model.settings.temperature
    learned = _adapter_temperature(adapter) or read_temperature(names)
    engine.model.settings = replace(engine.model.settings, temperature=learned if learned is not None else stored)
    return embedder.save(out)


def _lora_config(adapter: Path) -> Any:
    from peft import PeftConfig

    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter}: not a peft adapter (it has no adapter_config.json)")
    try:
        config: Any = PeftConfig.from_pretrained(str(adapter))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{adapter}: unreadable adapter_config.json ({str(error).splitlines()[0]})") from error
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise ModelError(f"{adapter}: its kind is {config.peft_type}; only LORA adapters can be folded in")
    return config


def _open_base(base: str | Path, adapter: Path) -> Embedder:
    folder = backbone.local_folder(base)
    dtype = str(stored_dtype(backbone.load_config(folder))).removeprefix("torch.")
    given: dict[str, Any] = {}
    own = ModelSettings.load(adapter) if (adapter / settings.FILE_NAME).is_file() else None
    if own is not None:
        given = {name: getattr(own, name) for name in _USE}
    if (adapter / templates.FILE_NAME).is_file():
        given["template"] = adapter / templates.FILE_NAME
    embedder = Embedder.load(folder, dtype=dtype, device="cpu", **given)
    engine = embedder.engine
    if not isinstance(engine, RenderedEngine):
        raise ModelError(f"{base}: a foreign SentenceTransformer; fold adapters into it with sentence-transformers itself")
    query_text, lengths = (engine.model.settings.query_text, ()) if own is None else (own.query_text, own.matryoshka)
    engine.model.settings = replace(engine.model.settings, query_text=query_text, matryoshka=lengths)  # an adapter without says nothing
    if engine.model.latent is not None and (adapter / pooling.WEIGHTS).is_file():
        width = engine.model.network.config.get_text_config().hidden_size
        engine.model.latent = pooling.latent_attention(adapter, engine.model.settings.latent, width)
    return embedder


def _adapter_temperature(adapter: Path) -> float | None:
    return ModelSettings.load(adapter).temperature if (adapter / settings.FILE_NAME).is_file() else None


def _fold(model: Any, config: Any, tensors: dict[str, torch.Tensor], adapter: Path) -> None:
    from peft import get_peft_model, set_peft_model_state_dict

    modules = dict(model.network.named_modules())
    places: dict[str, str] = {}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if is_temperature(name):
            continue
        match = _LORA.fullmatch(name)
        if match is None:
            raise ModelError(f"{adapter}: holds {name}, which is no LoRA matrix; it would be lost")
        place = _place(match["module"], modules)
        if place is None:
            raise ModelError(f"{adapter}: adapts {match['module']}, which this base does not have; give the base it was trained on")
        places[match["module"]] = place
        state[f"base_model.model.{place}.{match['part']}"] = tensor
    if not places:
        raise ModelError(f"{adapter}: holds no LoRA matrices")
    if (config.rank_pattern or config.alpha_pattern) and any(old != new for old, new in places.items()):
        raise ModelError(f"{adapter}: has ranks by layer name, and this base names its layers otherwise; merge it with peft itself")
    # Told by the tensors, not by the patterns that the adapter was configured with: those may name layers that are not here.
    config.target_modules, config.modules_to_save, config.task_type = sorted(set(places.values())), None, None
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.inference_mode = False
    try:
        network: Any = get_peft_model(model.network, config)
        report = set_peft_model_state_dict(network, state)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{adapter}: does not fit this base ({str(error).splitlines()[0]})") from error
    if missing := [name for name in report.missing_keys if ".lora_" in name]:
        raise ModelError(f"{adapter}: lacks {len(missing)} of its tensors, {missing[0]} among them")
    try:
        model.network = network.merge_and_unload(safe_merge=True)
    except ValueError as error:  # peft's word for weights that are not finite
        raise ModelError(f"{adapter}: cannot be folded in ({str(error).splitlines()[0]})") from error


def _place(module: str, modules: dict[str, Any]) -> str | None:
    """Where a layer of the adapter is in a network without language-model head, whatever class it was trained in.

    The class with a head puts `model.` before the names; transformers 4 also had the language model directly under it.
    """
    bare = module.removeprefix("model.")
    return next((name for name in (module, bare, f"language_model.{bare}") if name in modules), None)
