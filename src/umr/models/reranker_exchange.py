"""Saving a reranker so that plain sentence-transformers' `CrossEncoder` loads it and gives the same scores.

The folder is a transformers checkpoint with a chat template, written from ours, that renders the roles `query` and `document`;
beside it the module list: the language model, then the difference of two logits, read through a sigmoid. Only the pointwise
form can be said there; choosing among several stays ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.files import write_text
from umr.models import exchange, llava
from umr.models.backbone import QWEN_FAMILIES
from umr.rendering.pair_template import PairTemplate
from umr.rendering.template import split_layout

if TYPE_CHECKING:
    from umr.models.reranker import RerankEngine

_FORWARD = {"method": "forward", "method_output_name": "logits"}
_MESSAGE = {"message": {**_FORWARD, "format": "structured"}}
_TRANSFORMER = {
    True: {"transformer_task": "any-to-any", "modality_config": {"text": _FORWARD, "image": _FORWARD, "video": _FORWARD, **_MESSAGE}},
    False: {"transformer_task": "text-generation", "modality_config": {"text": _FORWARD, **_MESSAGE}},
}
"""The first module's settings, by whether the backbone sees."""
_IMAGES_ONLY = {"transformer_task": "any-to-any", "modality_config": {"text": _FORWARD, "image": _FORWARD, **_MESSAGE}}


def save(engine: RerankEngine, folder: Path) -> list[str]:
    """Write a model folder; it appears whole or not at all.

    Returns:
        Why plain sentence-transformers cannot load it, one reason a line; empty when it can.
    """
    return exchange.write_folder(folder, lambda temporary: _write(engine, temporary))


def _write(engine: RerankEngine, folder: Path) -> list[str]:
    template = engine.renderer.template
    if template.by_modality:
        exchange.write_checkpoint(engine, folder, None)
        return [f"pair template {template.name!r}: its layout depends on the modalities of query and candidate"]
    if engine.model.family == llava.FAMILY and engine.model.settings.image_tiles == "global":
        exchange.write_checkpoint(engine, folder, None)
        return [exchange.NO_TILES]
    chat = jinja(template, exchange.writes_timestamps(engine), exchange.image_text(engine))
    exchange.write_checkpoint(engine, folder, chat)
    yes, no = engine.model.answer_ids[:2]
    score: dict[str, Any] = {"true_token_id": yes, "false_token_id": no, "module_input_name": "causal_logits"}
    write_text(folder / "1_LogitScore" / "config.json", json.dumps(score, indent=2))
    modules = [
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
    ]
    family = engine.model.family
    of_family = _IMAGES_ONLY if family == llava.FAMILY else _TRANSFORMER[family in QWEN_FAMILIES]
    transformer = {**of_family, "module_output_name": "causal_logits"}
    about: dict[str, Any] = {
        "model_type": "CrossEncoder",
        "prompts": {},
        "default_prompt_name": None,
        "activation_fn": "torch.nn.modules.activation.Sigmoid",
    }
    exchange.write_listing(folder, modules, transformer, about)
    return []


def jinja(template: PairTemplate, timestamps: bool, image: str = exchange.QWEN_IMAGE) -> str:
    """The pointwise layout as a chat template: the instruction is the system message, query and candidate have roles of their own.

    Args:
        timestamps: the processor writes vision borders around each frame itself (Qwen3-VL).
        image: what stands for an image; where it is not a Qwen-VL's, videos are refused.
    """
    parts = "([{'type': 'text', 'text': message.content}] if message.content is string else message.content)"
    find = (
        "{%- set ns = namespace(instruction='', query=[], candidate=[]) -%}"
        "{%- for message in messages -%}{%- if message.role == 'system' -%}"
        "{%- set ns.instruction = message.content if message.content is string else message.content[0].text -%}"
        "{%- elif message.role == 'query' -%}{%- set ns.query = " + parts + " -%}"
        "{%- elif message.role == 'document' -%}{%- set ns.candidate = " + parts + " -%}"
        "{%- else -%}{{- raise_exception('a pair has the roles query and document, and system for the instruction') -}}"
        "{%- endif -%}{%- endfor -%}"
    )
    shown = {
        "instruction": f"(ns.instruction or {exchange.jinja_quote(template.default_instruction)})",
        "query": "show(ns.query, true, true)",
        "query_media": "show(ns.query, true, false)",
        "query_text": "show(ns.query, false, true)",
        "candidate": "show(ns.candidate, true, true)",
        "candidate_media": "show(ns.candidate, true, false)",
        "candidate_text": "show(ns.candidate, false, true)",
    }
    pieces, out = split_layout(template.pointwise), [find, exchange.jinja_show(timestamps, image)]
    for index, (kind, value) in enumerate(pieces):
        if kind != "literal":
            out.append("{{- " + shown[kind] + " -}}")
            continue
        around = [pieces[at][0] for at in (index - 1, index + 1) if 0 <= at < len(pieces)]
        if value == " " and len(around) == 2:  # two literals never meet, so both are placeholders
            out.append("{%- if " + " and ".join(shown[name] for name in around) + " -%}{{- ' ' -}}{%- endif -%}")
        else:
            out.append("{{- " + exchange.jinja_quote(value) + " -}}")
    return "".join(out)
