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
from umr.models import backbone, batching, exchange, llava, settings
from umr.models.latent_attention import LatentAttention, LatentSizes
from umr.models.packing import pooled_states
from umr.models.pooling import finish, latent_attention, means
from umr.models.sentence_transformer import SentenceTransformerEngine
from umr.models.settings import ModelSettings
from umr.models.shorter import shorten
from umr.rendering import template as templates
from umr.rendering.llava_vision import ImageTiles
from umr.rendering.renderer import Rendered, Renderer
from umr.rendering.template import Template

Vectors = npt.NDArray[np.float32]


class EmbeddingModel(torch.nn.Module):
    """A backbone with its pooling: rendered rows in, unit vectors out. What the trainer trains.

    Args:
        network: a transformers model without its language-model head.
        settings: how its hidden states become a vector.
        family: transformers' `model_type`.
        pad_id: token id of padding.
        latent: the block of `pooling="latent"`; None with every other pooling.
    """

    def __init__(
        self, network: torch.nn.Module, settings: ModelSettings, family: str, pad_id: int, latent: LatentAttention | None = None
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.settings, self.family, self.pad_id, self.latent = settings, family, pad_id, latent

    def forward(self, rows: Sequence[Rendered]) -> torch.Tensor:
        """Embed rows as one batch: (B, D), unit length, in the rows' order."""
        token_ND, counts = pooled_states(self.network, rows, self.family, self.pad_id, self.settings.positions)
        pooled_BD = means(token_ND, counts) if self.latent is None else self.latent.pool(token_ND, counts)
        return finish(pooled_BD, self.settings.dimension)


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
        parts = [self.model.settings.text(), self.renderer.template.hash, *backbone.fingerprint_parts(self.model.network, self.processor)]
        return parts if self.model.latent is None else [*parts, backbone.weights_hash(self.model.latent)]


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
        latent: LatentSizes | None = None,
        image_tiles: ImageTiles | None = None,
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
        """Load a folder of ours, a plain Qwen-VL, LLaVA-NeXT or text checkpoint, or any SentenceTransformer.

        A folder that we saved knows its own settings; arguments that are given override them (and change the fingerprint).

        Args:
            path: folder, or hub id.
            template: built-in name, `Path` of a template file, or a `Template`. Default: the folder's, else `chat` for Qwen-VL
                backbones, `mm-embed` for LLaVA-NeXT, `plain` for others.
            attention: `"bidirectional"` (default for new models) or `"causal"`.
            positions: `"mrope"` (default) or `"flat"`.
            pooling: `"mean"` (default), `"last"`, `"token_before_emb"` or `"latent"`. In a folder without weights for the latter they
                are fresh, the same for everyone, and give the plain mean until they are trained.
            latent: sizes of fresh latent attention. Default: NV-Embed's.
            image_tiles: what LLaVA-NeXT sees of an image: `"global"` (default), the whole as one square, or `"anyres"`, also tiles of an
                enlarged one. Without effect, hence refused, on other backbones.
            dimension: keep this many components, whether the model was trained for it or not. Default: all.
            max_tokens: longest row, 2048 by default.
            min_pixels: images with a smaller area are enlarged to it. Default: the processor's.
            max_pixels: images and video frames with a larger area are reduced to it. Default: the processor's.
            kernel: attention of the language model: `"sdpa"`, `"eager"`, another that transformers knows, or `"packed"`: rows in one line
                without padding (`umr.models.packing`), equal results.
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
                attention=attention,
                positions=positions,
                pooling=pooling,
                latent=latent,
                image_tiles=image_tiles,
                dimension=dimension,
                max_tokens=max_tokens,
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
        if pooling is not None and pooling != base.pooling:
            base = replace(base, latent=None)  # sizes of a pooling that is not used
        merged = replace(base, **given)
        if dimension is not None:  # lengths of the folder's that are still shorter
            merged = replace(merged, matryoshka=tuple(one for one in base.matryoshka if one < dimension))
        width = config.get_text_config().hidden_size
        merged.check(config.model_type, width, path)
        block = latent_attention(folder, merged.latent, width).to(device) if merged.pooling == "latent" else None
        processor = backbone.load_processor(folder, config)
        backbone.set_pixel_budget(processor, min_pixels, max_pixels, path)
        network = backbone.load_model(folder, config, merged.attention, kernel, weights_type).to(device)
        engine = _assemble(network, merged, processor, _choose_template(folder, template, config.model_type), config.model_type, block)
        return cls(engine, batch_tokens)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.engine.dimension

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Lengths that its vectors were trained to have, shortest first; the last is its own."""
        shorter = self.engine.model.settings.matryoshka if isinstance(self.engine, RenderedEngine) else ()
        return *sorted(shorter), self.dimension

    @property
    def query_text(self) -> QueryText:
        """How this model wants queries that have an instruction to be cleaned; see `ModelSettings.query_text`."""
        return self.engine.model.settings.query_text if isinstance(self.engine, RenderedEngine) else "separate"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, template, tokenizer, pixel budgets, pooling and dtype."""
        return hashlib.sha256("\n".join(self.engine.fingerprint_parts()).encode()).hexdigest()[:16]

    def encode(
        self,
        items: Sequence[Item],
        side: Side = "candidate",
        instruction: None | str | Sequence[str | None] = None,
        dimension: int | None = None,
    ) -> Vectors:
        """Embed items, in any mixture of modalities.

        Args:
            items: what to embed.
            side: `"query"` or `"candidate"`.
            instruction: for queries: one for all rows, or one a row; None for none.
            dimension: one of `dimensions`, to which vectors are cut and scaled to unit length again; None for their own. In fewer
                bits: `umr.store.Quantiser`.

        Returns:
            float32, shape (N, D), rows of unit length, in input order.

        Raises:
            ModelError: a length that the model was not trained for; `load(dimension=...)` cuts all the same.
            RenderError: an item cannot be rendered, or an instruction stands on the candidate side.
            MediaError: an image or video cannot be read.
        """
        dimension = self.dimension if dimension is None else dimension
        if dimension not in self.dimensions:
            known = ", ".join(map(str, self.dimensions))
            raise ModelError(f"the model was not trained for vectors of {dimension} components, but for {known}; give one of these")
        items = list(items)
        if wrong := [item for item in items if not isinstance(item, Item)]:
            raise RenderError(f"encode takes items, not {type(wrong[0]).__name__}; write Item.of(text=...), Item.of(image=...)")
        instructions = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else list(instruction)
        if len(instructions) != len(items):
            raise ModelError(f"{len(instructions)} instructions for {len(items)} items; give one, or one for each")
        if not items:
            return np.zeros((0, dimension), np.float32)
        engine: Any = self.engine
        vectors_ND = batching.encode_stream(
            len(items),
            lambda start, stop: engine.prepare(items[start:stop], side, instructions[start:stop]),
            engine.cost,
            engine.forward,
            self.batch_tokens or batching.default_budget(next(engine.model.parameters()).device.type),
        )
        return shorten(vectors_ND, dimension)

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


def _assemble(
    network: Any, merged: ModelSettings, processor: Any, template: Template, family: str, latent: LatentAttention | None
) -> RenderedEngine:
    tokenizer = backbone.tokenizer_of(processor)
    vision = backbone.media_reader(processor, network.config, merged.image_tiles)
    renderer = Renderer(template, tokenizer, vision, merged.max_tokens, merged.pooling)
    return RenderedEngine(EmbeddingModel(network, merged, family, tokenizer.pad_token_id, latent), renderer, processor)


def _choose_template(folder: Path, given: str | Path | Template | None, family: str) -> Template:
    if given is not None:
        return templates.resolve(given)
    if (folder / templates.FILE_NAME).is_file():
        return Template.load(folder / templates.FILE_NAME)
    if family in backbone.QWEN_FAMILIES:
        return templates.CHAT
    return templates.MM_EMBED if family == llava.FAMILY else templates.PLAIN
