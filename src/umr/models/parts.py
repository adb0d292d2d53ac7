"""The parts of an embedding model - vision tower, projector, language model, trained pooling - and training some of them.

Part names are the same for all Qwen-VL families and LLaVA-NeXT, though their layers are not: a bare list of layer names, as adapters
are often configured, would also hit Qwen2.5-VL's vision MLP, whose layers are named as the language model's (docs/decisions.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from umr.errors import RecipeError

PARTS = ("language", "projector", "vision")
POOLING = "pooling"
"""The part with the weights of latent attention, which stand beside the network and have no adapters: they are trained in full."""
_PROJECTOR = re.compile(r"(^|\.)(visual\.(merger|deepstack_merger_list)|multi_modal_projector|image_newline)\.")
_VISION = re.compile(r"(^|\.)(visual|vision_tower)\.")


def part_of(name: str) -> str:
    """The part a parameter or module belongs to, by its name within the network."""
    if _PROJECTOR.search(name + "."):
        return "projector"
    return "vision" if _VISION.search(name + ".") else "language"


def freeze_all_but(network: torch.nn.Module, parts: Iterable[str]) -> None:
    """Leave gradients on for some parts only. Raises `RecipeError` when the network has no such part.

    The pooling is no part of the network; whoever has both sets it.
    """
    wanted = set(parts) - {POOLING}
    present = {part_of(name) for name, _ in network.named_parameters()}
    if missing := wanted - present:
        raise RecipeError(f"training.parts: this backbone has no {', '.join(sorted(missing))} part; it has {', '.join(sorted(present))}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) in wanted)


def add_lora(network: Any, rank: int, alpha: int, dropout: float, parts: Iterable[str], full: Iterable[str] = ()) -> Any:
    """Put adapters on every linear layer of some parts but a language-model head; everything else is frozen but the parts in `full`.

    Returns:
        A peft model around `network`.
    """
    from peft import LoraConfig, get_peft_model

    wanted = set(parts)
    head = getattr(network, "lm_head", None)  # often tied to the embeddings; an adapter merged into it would change those too
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    targets = [name for name in linear if part_of(name) in wanted]
    if missing := wanted - {part_of(name) for name in targets}:
        raise RecipeError(f"training.lora.parts: this backbone has no linear layers in {', '.join(sorted(missing))}")
    freeze_all_but(network, full)  # says which parts are not there; peft freezes them all
    adapted = get_peft_model(network, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if part_of(name) in set(full):
            parameter.requires_grad_(True)
    return adapted


def merge_lora(network: Any) -> Any:
    """Fold adapters into the weights. A network without adapters is returned as it is."""
    return network.merge_and_unload() if hasattr(network, "merge_and_unload") else network
