"""Saving a model so that plain sentence-transformers loads it and gives the same vectors.

The folder is a transformers checkpoint (weights, processor, a chat template written from ours) with sentence-transformers'
module list beside it. What cannot be said there is said to the caller, and the folder is then ours alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.errors import ModelError
from umr.files import write_text
from umr.models import llava
from umr.models.backbone import SEEING_FAMILIES
from umr.models.latent_attention import LatentSizes
from umr.models.pooling import save_latent_attention
from umr.rendering.template import Template, split_layout

if TYPE_CHECKING:
    from umr.models.embedder import RenderedEngine
    from umr.models.reranker import RerankEngine

_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
NO_TILES = "image_tiles='global': transformers' LLaVA-NeXT processor and model always put tiles behind the whole image"
_POOLING_FILE = Path(__file__).with_name("masked_pooling.py")
_LATENT_FILES = ("latent_pooling.py", "latent_attention.py", "masked_pooling.py")


def save(engine: RenderedEngine, folder: Path) -> list[str]:
    """Write a model folder; it appears whole or not at all.

    Returns:
        Why plain sentence-transformers cannot load it, one reason a line; empty when it can.
    """
    return write_folder(folder, lambda temporary: _write(engine, temporary))


def write_folder(folder: Path, write: Callable[[Path], list[str]]) -> list[str]:
    """Let `write` fill a new model folder, then put it in its place, in one step, for a model that was there before.

    Returns:
        What `write` does.

    Raises:
        ModelError: the folder is there, and holds something else than a model.
    """
    if folder.exists() and not (folder / "config.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is, or holds, something else than a model; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        reasons = write(temporary)
        os.chmod(temporary, 0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            os.replace(folder, old / "model")
            try:
                os.replace(temporary, folder)
            except BaseException:
                os.replace(old / "model", folder)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return reasons


def _write(engine: RenderedEngine, folder: Path) -> list[str]:
    reasons = why_not_exchangeable(engine)
    tokenizer = engine.renderer.tokenizer
    ends = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
    chat = None if reasons else jinja(engine.renderer.template, writes_timestamps(engine), image_text(engine), ends)
    write_checkpoint(engine, folder, chat)
    if engine.model.latent is not None:
        save_latent_attention(engine.model.latent, folder)
    if not reasons:
        write_modules(engine, folder)
    return reasons


def write_checkpoint(engine: RenderedEngine | RerankEngine, folder: Path, chat_template: str | None) -> None:
    """Write weights, settings, template and processor; the latter with a chat template, or with its own when None.

    Raises:
        ModelError: the network carries adapters.
    """
    network: Any = engine.model.network
    if hasattr(network, "merge_and_unload"):
        raise ModelError("the model still carries LoRA adapters; merge them before saving (umr.models.parts.merge_lora)")
    network.save_pretrained(folder)
    write_companions(engine, folder, chat_template)


def write_companions(engine: RenderedEngine | RerankEngine, folder: Path, chat_template: str | None) -> None:
    """Write what stands beside the weights: settings, template and processor, as `write_checkpoint` does."""
    engine.model.settings.save(folder)
    engine.renderer.template.save(folder)
    engine.renderer.tokenizer.model_max_length = engine.model.settings.max_tokens
    processor = engine.processor
    before = getattr(processor, "chat_template", None)
    if chat_template is not None:
        processor.chat_template = chat_template
    try:
        processor.save_pretrained(folder)
    finally:
        processor.chat_template = before


def writes_timestamps(engine: RenderedEngine | RerankEngine) -> bool:
    """Whether the processor puts vision borders around each frame of a video itself (Qwen3-VL)."""
    return bool(engine.renderer.vision and engine.renderer.vision.has_timestamps)


def image_text(engine: RenderedEngine | RerankEngine) -> str:
    """What stands for an image in a chat template of this model."""
    return QWEN_IMAGE if engine.model.family != llava.FAMILY else str(engine.processor.image_token)


def why_not_exchangeable(engine: RenderedEngine) -> list[str]:
    """What this model does that a folder for plain sentence-transformers cannot express."""
    settings, template, reasons = engine.model.settings, engine.renderer.template, []
    if settings.positions == "flat":
        reasons.append("positions='flat': transformers always places vision tokens in two dimensions")
    if settings.pooling == "token_before_emb":
        reasons.append("pooling='token_before_emb': sentence-transformers has no such pooling")
    if template.suffix:
        reasons.append(f"template {template.name!r}: its suffix depends on the item's modality")
    if settings.pooling == "last" and settings.dimension is not None:
        reasons.append("pooling='last' with a dimension: sentence-transformers would not scale the shorter vector to unit length")
    if engine.model.family == llava.FAMILY and settings.image_tiles == "global":
        reasons.append(NO_TILES)
    if engine.model.family not in SEEING_FAMILIES:
        reasons.append("a backbone without a chat format: sentence-transformers would join instruction and text in its own way")
    elif settings.pooling in ("mean", "latent") and skipped_span(engine) is None:
        reasons.append(f"template {template.name!r}: what it skips is not one span between two special tokens that stand nowhere before")
    return reasons


def skipped_span(engine: RenderedEngine) -> tuple[int, int] | tuple[()] | None:
    """The special tokens around the skipped span; `()` when nothing is skipped, None when it has no such borders."""
    template, spans = engine.renderer.template, set()
    ids = {token: engine.renderer.tokenizer.convert_tokens_to_ids(token) for token in engine.renderer.tokenizer.all_special_tokens}
    layouts = (template.with_instruction, template.without_instruction)
    for layout in layouts:
        if "{skip}" not in layout:
            continue
        before, inside = layout.split("{skip}", 1)
        inside = inside.split("{/skip}", 1)[0]
        starts = [token for token in ids if inside.startswith(token)]
        ends = [token for token in ids if inside.endswith(token)]
        if not starts or not ends or starts == ends or layout.count("{skip}") > 1:
            return None
        # The pooling module looks for the first opening token and the first closing one after it, in every row.
        if starts[0] in before or inside.count(ends[0]) > 1:
            return None
        spans.add((starts[0], ends[0]))
    if len(spans) > 1:
        return None
    if not spans:
        return ()
    start, end = spans.pop()
    if any("{skip}" not in layout and start in layout for layout in layouts):
        return None
    return ids[start], ids[end]


def jinja(template: Template, timestamps: bool, image: str = QWEN_IMAGE, ends: dict[str, str] | None = None) -> str:
    """Our template as a chat template: the prompt is the system message, the item is the user's.

    Args:
        template: without a suffix.
        timestamps: the processor writes vision borders around each frame itself (Qwen3-VL).
        image: what stands for an image; where it is not a Qwen-VL's, videos are refused.
        ends: what `{bos}` and `{eos}` become, where the template has them.
    """
    find = (
        "{%- set ns = namespace(instruction='', parts=[]) -%}"
        "{%- for message in messages -%}{%- if message.role == 'system' -%}"
        "{%- set ns.instruction = message.content if message.content is string else message.content[0].text -%}"
        "{%- else -%}{%- set ns.parts = [{'type': 'text', 'text': message.content}] if message.content is string else message.content -%}"
        "{%- endif -%}{%- endfor -%}"
    )
    layouts = [_jinja_layout(layout, template, ends or {}) for layout in (template.with_instruction, template.without_instruction)]
    return find + jinja_show(timestamps, image) + "{%- if ns.instruction -%}" + layouts[0] + "{%- else -%}" + layouts[1] + "{%- endif -%}"


def jinja_show(timestamps: bool, image: str = QWEN_IMAGE) -> str:
    """A chat template's macro `show(parts, media, text)`, which writes the parts of a message: media, texts, or both."""
    film = "<|video_pad|>" if timestamps else "<|vision_start|><|video_pad|><|vision_end|>"
    video, known = "{%- elif part.type == 'video' and media -%}" + film, "'image', 'video', 'text'"
    if image != QWEN_IMAGE:
        video, known = "", "'image', 'text'"
    return (
        "{%- macro show(parts, media, text) -%}{%- for part in parts -%}"
        "{%- if part.type == 'image' and media -%}" + image + video + ""
        "{%- elif part.type == 'text' and text -%}{{- part.text -}}"
        "{%- elif part.type not in [" + known + "] -%}"
        "{{- raise_exception('a message may hold text and media that the model sees; all inputs of a call must be messages, or none') -}}"
        "{%- endif -%}{%- endfor -%}{%- endmacro -%}"
    )


def _jinja_layout(layout: str, template: Template, ends: dict[str, str]) -> str:
    out = []
    pieces = split_layout(layout)
    for index, (kind, value) in enumerate(pieces):
        if kind == "literal":
            if index > 0 and pieces[index - 1][0] == "media" and value.startswith("\n"):
                out.append("{%- if show(ns.parts, true, false) -%}{{- '\\n' -}}{%- endif -%}")
                value = value[1:]
            before_text = index + 1 < len(pieces) and pieces[index + 1][0] == "text"
            if before_text and value.endswith(" "):
                out.append("{{- " + jinja_quote(value[:-1]) + " -}}{%- if show(ns.parts, false, true) -%}{{- ' ' -}}{%- endif -%}")
            else:
                out.append("{{- " + jinja_quote(value) + " -}}")
        elif kind in ("bos", "eos"):
            out.append("{{- " + jinja_quote(ends[kind]) + " -}}")
        elif kind == "instruction":
            out.append("{{- ns.instruction or " + jinja_quote(template.default_instruction) + " -}}")
        elif kind in ("content", "media", "text"):
            media, text = str(kind != "text").lower(), str(kind != "media").lower()
            out.append("{{- show(ns.parts, " + media + ", " + text + ") -}}")
    return "".join(out)


def jinja_quote(text: str) -> str:
    """A text as a literal of a chat template."""
    return json.dumps(text, ensure_ascii=False)  # jinja does not know JSON's surrogate pairs


def write_modules(engine: RenderedEngine, folder: Path) -> None:
    """Write sentence-transformers' module list and the pooling, for a model that `why_not_exchangeable` has nothing against."""
    span = skipped_span(engine)
    base = "sentence_transformers"
    transformer, pooling, normalize = (
        f"{base}.base.modules.transformer.Transformer",
        f"{base}.sentence_transformer.modules.pooling.Pooling",
        f"{base}.base.modules.normalize.Normalize",
    )
    settings = engine.model.settings
    start, end = span or (-1, -1)
    config: dict[str, Any] = {"embedding_dimension": engine.dimension, "start_token_id": start, "end_token_id": end}
    if engine.model.latent is not None:
        for name in _LATENT_FILES:
            shutil.copyfile(_POOLING_FILE.with_name(name), folder / name)
        pooling = "latent_pooling.MaskedLatentPooling"
        config |= {"width": engine.model.latent.latents.shape[1], "sizes": asdict(settings.latent or LatentSizes())}
    elif settings.pooling == "mean" and (span or settings.dimension is not None):
        shutil.copyfile(_POOLING_FILE, folder / "umr_pooling.py")
        pooling = "umr_pooling.MaskedMeanPooling"
    else:
        mode = "mean" if settings.pooling == "mean" else "lasttoken"
        config = {"embedding_dimension": engine.dimension, "pooling_mode": mode, "include_prompt": True}
    write_text(folder / "1_Pooling" / "config.json", json.dumps(config, indent=2))
    (folder / "2_Normalize").mkdir()
    modules = [("", transformer), ("1_Pooling", pooling), ("2_Normalize", normalize)]
    about: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    seen = ("text", "image") if engine.model.family == llava.FAMILY else ("text", "image", "video")
    modalities: dict[str, Any] = {**dict.fromkeys(seen, _FORWARD), "message": {**_FORWARD, "format": "structured"}}
    settings_of_first = {"transformer_task": "feature-extraction", "modality_config": modalities, "module_output_name": "token_embeddings"}
    write_listing(folder, modules, settings_of_first, about)


def write_listing(folder: Path, modules: list[tuple[str, str]], transformer: dict[str, Any], about: dict[str, Any]) -> None:
    """Write what sentence-transformers reads first: the modules (folder and class), the first one's settings, and the model's."""
    import sentence_transformers
    import transformers

    listing = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_text(folder / "modules.json", json.dumps(listing, indent=2))
    write_text(folder / "sentence_bert_config.json", json.dumps(transformer, indent=2))
    versions = {"sentence_transformers": sentence_transformers.__version__, "transformers": transformers.__version__}
    write_text(folder / "config_sentence_transformers.json", json.dumps({"__version__": versions, **about}, indent=2))
