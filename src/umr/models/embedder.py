"""`Embedder`: the public face of a model. Items in, unit vectors out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from umr.errors import ModelError, RenderError
from umr.items import Item, QueryText, Side
from umr.models import backbone, batching, exchange, settings
from umr.models.pooling import finish, masked_mean
from umr.models.sentence_transformer import SentenceTransformerEngine
from umr.models.settings import ModelSettings
from umr.rendering import template as templates
from umr.rendering.renderer import Rendered, Renderer
from umr.rendering.template import Template
from umr.rendering.vision import VisionReader

Vectors = npt.NDArray[np.float32]


class EmbeddingModel(torch.nn.Module):
    """A backbone with its pooling: rendered rows in, unit vectors out. What the trainer trains.

    Args:
        network: a transformers model without its language-model head.
        settings: how its hidden states become a vector.
        family: transformers' `model_type`.
        pad_id: token id of padding.
    """

    def __init__(self, network: torch.nn.Module, settings: ModelSettings, family: str, pad_id: int) -> None:
        super().__init__()
        self.network: Any = network
        self.settings, self.family, self.pad_id = settings, family, pad_id

    def forward(self, rows: Sequence[Rendered]) -> torch.Tensor:
        """Embed rows as one padded batch: (B, D), unit length, in the rows' order."""
        device = next(self.network.parameters()).device
        batch, pool_BL = backbone.collate(rows, self.pad_id, self.settings.positions, device)
        hidden_BLD = backbone.hidden_states(self.network, batch, self.family)
        return finish(masked_mean(hidden_BLD, pool_BL), self.settings.dimension)


class RenderedEngine:
    """Embeds through our own rendering: the engine of every checkpoint that is not a foreign SentenceTransformer.

    Args:
        model: network and pooling.
        renderer: what turns items into rows.
        processor: transformers' processor (or tokenizer), saved along.
    """

    def __init__(self, model: EmbeddingModel, renderer: Renderer, processor: Any) -> None:
        self.model, self.renderer, self.processor = model, renderer, processor

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.settings.dimension or self.model.network.config.get_text_config().hidden_size)

    def prepare(self, items: Sequence[Item], side: Side, instructions: list[str | None]) -> list[Rendered]:
        """Decode, resize and tokenise."""
        return self.renderer.render(items, side, instructions)

    def cost(self, row: Rendered) -> batching.Cost:
        """Tokens in the language model, and a share for the patches through the vision tower, which are never padded."""
        return len(row.token_ids_L), row.patches // 4

    def forward(self, rows: list[Rendered]) -> np.ndarray:
        """Embed one batch."""
        with torch.inference_mode():
            return self.model(rows).float().cpu().numpy()

    def fingerprint_parts(self) -> list[str]:
        """Everything a vector depends on, as text."""
        kept = replace(self.model.settings, temperature=None)  # the temperature scales scores in training, not vectors
        return [repr(kept), self.renderer.template.hash, *backbone.fingerprint_parts(self.model.network, self.processor)]


class Embedder:
    """Finds anything with anything: embeds items of any modality into one space.

    Make one with `Embedder.load`. Vectors of equal items are equal, alone or in any batch (to 1e-5 in fp32), and only vectors
    of the same `fingerprint` may be compared.

    Example:
        >>> embedder = Embedder.load(Path("runs/demo/model"))                            # doctest: +SKIP
        >>> vectors = embedder.encode([Item.of(text="a red circle")], side="query")      # doctest: +SKIP
    """

    def __init__(self, engine: RenderedEngine | SentenceTransformerEngine, batch_tokens: int | None = None) -> None:
        self.engine, self.batch_tokens = engine, batch_tokens

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str | Path | Template | None = None,
        attention: backbone.Attention | None = None,
        positions: backbone.Positions | None = None,
        pooling: str | None = None,
        dimension: int | None = None,
        max_tokens: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        kernel: str = "sdpa",
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
        revision: str | None = None,
    ) -> Embedder:
        """Load a folder of ours, a plain Qwen-VL or text checkpoint, or any SentenceTransformer.

        A folder that we saved knows its own settings; arguments that are given override them (and change the fingerprint).

        Args:
            path: folder, or hub id.
            template: built-in name, `Path` of a template file, or a `Template`. Default: the folder's, else `chat` for Qwen-VL
                backbones, else `plain`.
            attention: `"bidirectional"` (default for new models) or `"causal"`.
            positions: `"mrope"` (default) or `"flat"`.
            pooling: `"mean"` (default), `"last"` or `"token_before_emb"`.
            dimension: keep this many components. Default: all.
            max_tokens: longest row, 2048 by default.
            min_pixels: images with a smaller area are enlarged to it. Default: the processor's.
            max_pixels: images and video frames with a larger area are reduced to it. Default: the processor's.
            kernel: attention of the language model: `"sdpa"`, `"eager"`, or another that transformers knows.
            dtype: `"float32"`, `"bfloat16"` or `"float16"`.
            device: torch device. Default: cuda when there is one, else cpu.
            batch_tokens: token budget of a batch. Default: 16384 on a GPU, 1024 on a CPU, whose caches larger batches overflow.
            revision: of a hub id.

        Raises:
            ModelError: the folder is no model, a part is missing, or a setting has no effect on it.
        """
        batching.check_budget(batch_tokens)
        weights_type, device = backbone.pick_dtype(dtype), backbone.pick_device(device)
        folder = backbone.local_folder(path, revision)
        if (folder / settings.RERANKER_FILE_NAME).is_file():
            raise ModelError(f"{path}: a reranker, which gives no vectors; load it with Reranker.load")
        given: dict[str, Any] = {
            name: value
            for name, value in dict(
                attention=attention, positions=positions, pooling=pooling, dimension=dimension, max_tokens=max_tokens
            ).items()
            if value is not None
        }
        if (folder / "modules.json").is_file() and not (folder / settings.FILE_NAME).is_file():
            if given or template is not None or min_pixels or max_pixels:
                raise ModelError(
                    f"{path}: a SentenceTransformer brings its own rendering and pooling, so "
                    f"{', '.join([*given] or ['template or pixel budgets'])} would have no effect; leave it out"
                )
            return cls(SentenceTransformerEngine.load(folder, device, weights_type, kernel), batch_tokens)
        config = backbone.load_config(folder)
        base = ModelSettings.load(folder) if (folder / settings.FILE_NAME).is_file() else ModelSettings()
        merged = replace(base, **given)
        merged.check(config.model_type, config.get_text_config().hidden_size, path)
        processor = backbone.load_processor(folder, config)
        backbone.set_pixel_budget(processor, min_pixels, max_pixels, path)
        network = backbone.load_model(folder, config, merged.attention, kernel, weights_type).to(device)
        engine = _assemble(network, merged, processor, _choose_template(folder, template, config.model_type), config.model_type)
        return cls(engine, batch_tokens)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.engine.dimension

    @property
    def query_text(self) -> QueryText:
        """How this model wants queries that have an instruction to be cleaned; see `ModelSettings.query_text`."""
        return self.engine.model.settings.query_text if isinstance(self.engine, RenderedEngine) else "separate"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, template, tokenizer, pixel budgets, pooling and dtype."""
        return hashlib.sha256("\n".join(self.engine.fingerprint_parts()).encode()).hexdigest()[:16]

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        """Embed items, in any mixture of modalities.

        Args:
            items: what to embed.
            side: `"query"` or `"candidate"`.
            instruction: for queries: one for all rows, or one a row; None for none.

        Returns:
            float32, shape (N, D), rows of unit length, in input order.

        Raises:
            RenderError: an item cannot be rendered, or an instruction stands on the candidate side.
            MediaError: an image or video cannot be read.
        """
        items = list(items)
        if wrong := [item for item in items if not isinstance(item, Item)]:
            raise RenderError(f"encode takes items, not {type(wrong[0]).__name__}; write Item.of(text=...), Item.of(image=...)")
        instructions = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else list(instruction)
        if len(instructions) != len(items):
            raise ModelError(f"{len(instructions)} instructions for {len(items)} items; give one, or one for each")
        if not items:
            return np.zeros((0, self.dimension), np.float32)
        engine: Any = self.engine
        return batching.encode_stream(
            len(items),
            lambda start, stop: engine.prepare(items[start:stop], side, instructions[start:stop]),
            engine.cost,
            engine.forward,
            self.batch_tokens or batching.default_budget(next(engine.model.parameters()).device.type),
        )

    def save(self, folder: Path) -> list[str]:
        """Write a folder that `Embedder.load`, and where possible plain `SentenceTransformer`, load with the same vectors.

        Returns:
            Reasons why plain sentence-transformers cannot load it; empty when it can.

        Raises:
            ModelError: the model is a foreign SentenceTransformer, which saves itself.
        """
        if not isinstance(self.engine, RenderedEngine):
            raise ModelError("this model is a foreign SentenceTransformer; save it with its own save_pretrained")
        self.__dict__.pop("fingerprint", None)
        return exchange.save(self.engine, folder)


def _assemble(network: Any, merged: ModelSettings, processor: Any, template: Template, family: str) -> RenderedEngine:
    tokenizer = backbone.tokenizer_of(processor)
    vision = VisionReader(processor) if hasattr(processor, "image_processor") else None
    renderer = Renderer(template, tokenizer, vision, merged.max_tokens, merged.pooling)
    return RenderedEngine(EmbeddingModel(network, merged, family, tokenizer.pad_token_id), renderer, processor)


def _choose_template(folder: Path, given: str | Path | Template | None, family: str) -> Template:
    if given is not None:
        return templates.resolve(given)
    if (folder / templates.FILE_NAME).is_file():
        return Template.load(folder / templates.FILE_NAME)
    return templates.CHAT if family in backbone.QWEN_FAMILIES else templates.PLAIN
