"""Published checkpoints as folders of ours, in exact-compatibility mode.

The numbers that were published with these weights depend on accidents of the code they were trained and measured with:
image tokens placed in one dimension, an assistant turn that is averaged twice, text cleaned together with its instruction.
A model folder says all of that (umr.json, template.json), so an import changes no weight; it writes down how to use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from umr.errors import ModelError
from umr.models import backbone, exchange
from umr.models.assembling import open_with_eyes
from umr.models.checkpoint_files import is_temperature, must_be_new, read_temperature, stored_dtype, tensor_names, weight_files
from umr.models.embedder import EmbeddingModel, RenderedEngine
from umr.models.embedding_rows import make_room
from umr.models.importing_nvidia import open_mm_embed, open_nv_embed
from umr.models.settings import ModelSettings
from umr.rendering.renderer import Renderer
from umr.rendering.template import Template, umarvel
from umr.rendering.vision import VisionReader, set_frame_budget

Kind = Literal["umarvel", "lamra", "nv-embed", "mm-embed"]
_TILE = 28 * 28
_IMAGE_PIXELS = {"shortest_edge": 4 * _TILE, "longest_edge": 300 * _TILE}
_FRAME_PIXELS = 768 * _TILE
_BOTH = "\nSummarize above image and sentence in one word: "


@dataclass(frozen=True)
class Published:
    """How the weights of one publication are used.

    Attributes:
        settings: attention, positions, pooling.
        template: the sequence that the published numbers were measured with.
        tokens: what the original loader adds to the tokenizer, in its order.
    """

    settings: ModelSettings
    template: Template
    tokens: tuple[str, ...]


def _lamra_template() -> Template:
    plain = umarvel(one_word=True, generation_prompt=True)
    marked = "{skip}<instruction_start>{instruction}<instruction_end>{/skip}"
    return Template(
        name="lamra-published",
        with_instruction=plain.with_instruction.replace(marked, "{instruction}"),
        without_instruction=plain.without_instruction,
        # With an instruction there always is a sentence: the instruction.
        suffix=plain.suffix | {"image with instruction": _BOTH},
    )


PUBLISHED: dict[str, Published] = {
    "umarvel": Published(
        ModelSettings(attention="bidirectional", positions="flat", pooling="mean", max_tokens=1024, query_text="joined"),
        # Instruction and text are cleaned as one string. Without a text it ends in the marker, so a full stop is added to that.
        replace(
            umarvel(generation_prompt=True),
            name="umarvel-published",
            suffix={f"{kind} with instruction": "." for kind in ("image", "video")},
        ),
        ("<emb>", "<instruction_start>", "<instruction_end>"),
    ),
    "lamra": Published(
        ModelSettings(attention="causal", positions="flat", pooling="token_before_emb", max_tokens=1024, query_text="joined"),
        _lamra_template(),
        ("<emb>",),
    ),
}
"""U-MARVEL: spec/umarvel.md 1.1 to 1.4 of arXiv 2507.14902's code. LamRA-Ret: the code that it grew from."""


@dataclass(frozen=True)
class Imported:
    """What an import found and did.

    Attributes:
        folder: the new model folder.
        parameters: weights in it.
        temperature: the learned one, if the checkpoint holds it.
        added_tokens: special tokens that its tokenizer lacked.
        new_rows: rows added to the embedding matrix, which was too short for them; their value is the mean of all rows, and in MM-Embed
            padding's is that of the end of the text.
    """

    folder: Path
    parameters: int
    temperature: float | None
    added_tokens: tuple[str, ...]
    new_rows: int


def import_checkpoint(kind: Kind, source: str | Path, out: Path, eyes: str | Path | None = None) -> Imported:
    """Turn a published checkpoint into a folder that `Embedder.load` uses exactly as its authors did.

    Args:
        kind: `"umarvel"`, `"lamra"` (LamRA-Ret), `"nv-embed"` or `"mm-embed"`.
        source: folder with the released files: configuration, safetensors, tokenizer and preprocessor.
        out: folder to write, which must not exist. It appears whole or not at all.
        eyes: for `"nv-embed"`, a LLaVA-NeXT whose vision tower and projector it gets: what MM-Embed's training starts from.

    Raises:
        ModelError: the folder is no such checkpoint, its weights are pickled, or something is at `out`.
    """
    if kind not in get_args(Kind):
        raise ModelError(f"unknown kind of checkpoint {kind!r}; use one of {', '.join(get_args(Kind))}")
    if eyes is not None and kind != "nv-embed":
        raise ModelError(f"eyes have no effect on {kind}, which has its own; leave them out")
    source = Path(source)
    must_be_new(out)
    if kind in PUBLISHED:
        engine, added, new_rows = _open_qwen(kind, source)
    elif eyes is not None:
        opened = open_with_eyes(source, Path(eyes))
        engine, added, new_rows = opened.engine, (), opened.new_rows
    else:
        opened = (open_nv_embed if kind == "nv-embed" else open_mm_embed)(source)
        engine, added, new_rows = opened.engine, (), opened.new_rows
    exchange.save(engine, out)
    parameters = sum(one.numel() for one in engine.model.parameters())
    return Imported(out, parameters, engine.model.settings.temperature, added, new_rows)


def _open_qwen(kind: Kind, source: Path) -> tuple[RenderedEngine, tuple[str, ...], int]:
    """U-MARVEL or LamRA as an engine, the tokens added, and the rows that these needed."""
    published = PUBLISHED[kind]
    files = weight_files(source)
    config = backbone.load_config(source)
    if config.model_type != "qwen2_vl":
        raise ModelError(f"{source}: a {config.model_type} checkpoint; {kind} was published as qwen2_vl, and only that can be used exactly")
    names = tensor_names(files)
    _check_names(source, names)
    processor = backbone.load_processor(source, config)
    processor.image_processor.size = dict(_IMAGE_PIXELS)
    set_frame_budget(processor.video_processor, _FRAME_PIXELS)
    settings = replace(published.settings, temperature=read_temperature(names))
    added = _add_tokens(processor.tokenizer, published.tokens)
    network = backbone.load_model(source, config, settings.attention, "sdpa", stored_dtype(config))
    # Qwen2-VL's matrix has some hundred rows more than tokens, and added tokens land on those. The original loader cuts the
    # matrix after the first added token and lets the library draw new rows for the others, without a seed: what it
    # measured with cannot be had again, and the rows of the checkpoint are the nearest that is the same for everyone.
    new_rows = make_room(network, len(processor.tokenizer))
    renderer = Renderer(published.template, processor.tokenizer, VisionReader(processor), settings.max_tokens, settings.pooling)
    model = EmbeddingModel(network, settings, config.model_type, processor.tokenizer.pad_token_id)
    return RenderedEngine(model, renderer, processor), added, new_rows


def _check_names(source: Path, names: dict[str, Path]) -> None:
    """Refuse weights that the published arithmetic has no place for: they would be dropped without a word."""
    if adapters := [name for name in names if ".lora_" in name]:
        raise ModelError(f"{source}: holds LoRA adapters ({adapters[0]}); fold them into their base first: umr merge BASE ADAPTER OUT")
    known = ("model.", "visual.", "language_model.", "lm_head.")
    if strange := sorted(name for name in names if not name.startswith(known) and not is_temperature(name)):
        raise ModelError(
            f"{source}: holds {strange[0]}, which is no part of the published model; its vectors would not be the published ones"
        )


def _add_tokens(tokenizer: Any, tokens: Sequence[str]) -> tuple[str, ...]:
    """Add special tokens one after the other, as the original loader does, so that each gets the next free id.

    One that is there already keeps its id, and becomes special if it was not.
    """
    before = set(tokenizer.get_vocab())
    for token in tokens:
        if token not in tokenizer.all_special_tokens:
            tokenizer.add_special_tokens({"extra_special_tokens": [token]}, replace_extra_special_tokens=False)
    return tuple(token for token in tokens if token not in before)
