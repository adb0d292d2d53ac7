"""A model as a folder for vLLM's pooling server, with the line that starts it.

Written from vLLM's sources of 2026 (releases after 0.24): which names of weights it maps (`hf_to_vllm_mapper` of its Qwen-VL models),
where it reads the attention's direction (`is_causal`), and what its pooler can do (`PoolerConfig`). docs/engines.md says what was taken
from where.
"""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

from umr.errors import ModelError
from umr.models import exchange
from umr.models.checkpoint_files import must_be_new
from umr.models.embedder import RenderedEngine
from umr.models.exporting import open_for_export

ARCHITECTURES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
"""vLLM's name of a backbone, by transformers' `model_type`."""
_PUBLISHED = {
    "qwen2_vl": ("model.", "visual."),
    "qwen2_5_vl": ("model.", "visual."),
    "qwen3_vl": ("model.language_model.", "model.visual."),
}
"""What the names of weights begin with in the published checkpoints, language model and vision tower."""
POOLINGS = {"mean": "MEAN", "last": "LAST"}
CHAT_TEMPLATE = "chat_template.jinja"


def export_vllm(model: str | Path, out: Path) -> str:
    """Write a folder that vLLM serves with the same vectors.

    Args:
        model: a model folder of ours, a plain Qwen-VL checkpoint, or a hub id.
        out: folder to write, which must not exist. It appears whole or not at all.

    Returns:
        The command that starts the server.

    Raises:
        ModelError: vLLM cannot compute what the model does, or something is at `out`.
    """
    must_be_new(out)
    engine = open_for_export(model)
    if reasons := why_not_vllm(engine):
        raise ModelError(f"{model}: vLLM cannot give its vectors: {'; '.join(reasons)}; umr serve can")
    exchange.write_folder(out, lambda temporary: _write(engine, temporary))
    return launch_line(engine, out)


def why_not_vllm(engine: RenderedEngine) -> list[str]:
    """What this model does that vLLM's pooling server does not."""
    settings, template, reasons = engine.model.settings, engine.renderer.template, []
    if engine.model.family not in ARCHITECTURES:
        known = "Qwen2-VL, Qwen2.5-VL and Qwen3-VL"
        reasons.append(f"a {engine.model.family} backbone: what vLLM makes of it was never compared, only {known} were")
    if settings.positions == "flat":
        reasons.append("positions='flat': vLLM always places vision tokens in two dimensions")
    if settings.pooling not in POOLINGS:
        reasons.append(f"pooling={settings.pooling!r}: vLLM's pooler has only the mean and the last token")
    elif settings.pooling == "mean" and "{skip}" in template.with_instruction + template.without_instruction:
        reasons.append(f"template {template.name!r} keeps tokens out of the mean ({{skip}}), and vLLM averages all of them")
    if template.suffix:
        reasons.append(f"template {template.name!r}: its suffix depends on the item's modality, which a chat template does not know")
    return reasons


def launch_line(engine: RenderedEngine, folder: Path) -> str:
    """The command that serves an exported folder. What it says outright does not depend on what a version of vLLM reads from the folder."""
    settings, network = engine.model.settings, engine.model.network
    longest = min(settings.max_tokens, network.config.get_text_config().max_position_embeddings)
    pooler: dict[str, Any] = {"pooling_type": POOLINGS[settings.pooling], "use_activation": True}
    if settings.dimension is not None:
        pooler["dimensions"] = settings.dimension
    options = {
        "served-model-name": folder.name,
        "runner": "pooling",
        "convert": "embed",
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        "max-model-len": str(longest),
        "pooler-config": json.dumps(pooler),
        "chat-template": str(folder / CHAT_TEMPLATE),
        "chat-template-content-format": "openai",  # by itself vLLM would join the parts of a message with newlines
        "limit-mm-per-prompt": json.dumps({"video": 0}),  # it takes other frames of a video than we do
    }
    return shlex.join(["vllm", "serve", str(folder), *(word for name, value in options.items() for word in (f"--{name}", value))])


def _write(engine: RenderedEngine, folder: Path) -> list[str]:
    from huggingface_hub import save_torch_state_dict

    network: Any = engine.model.network
    config = copy.deepcopy(network.config)
    config.architectures = [ARCHITECTURES[engine.model.family]]
    # vLLM's layers look into the text configuration, where transformers has it; its scheduler looks here.
    config.is_causal = engine.model.settings.attention == "causal"
    if engine.model.settings.dimension or engine.model.settings.matryoshka:
        config.matryoshka_dimensions = sorted({*engine.model.settings.matryoshka, engine.dimension})
    config.save_pretrained(folder)
    # vLLM maps the names of the published checkpoints, which transformers reads as well as those of its own base model.
    language, vision = _PUBLISHED[engine.model.family]
    renamed = {_renamed(name, language, vision): tensor for name, tensor in network.state_dict().items()}
    save_torch_state_dict(renamed, folder, metadata={"format": "pt"})
    tokenizer = engine.renderer.tokenizer
    ends = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
    chat = exchange.jinja(engine.renderer.template, exchange.writes_timestamps(engine), exchange.image_text(engine), ends)
    exchange.write_companions(engine, folder, chat)
    if not exchange.why_not_exchangeable(engine):
        exchange.write_modules(engine, folder)
    return []


def _renamed(name: str, language: str, vision: str) -> str:
    part, _, rest = name.partition(".")
    return {"language_model": language, "visual": vision}[part] + rest
