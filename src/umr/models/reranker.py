"""`Reranker`: reads a query and a candidate together and says how likely the candidate is what was asked for."""

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
from umr.items import Item, Query
from umr.models import backbone, batching, reranker_exchange, settings
from umr.models.cross_encoder import CrossEncoderEngine, is_cross_encoder
from umr.models.rerank_model import ANSWERS, NO_TOKEN, RerankModel, answer_ids, check_head
from umr.models.settings import RerankSettings
from umr.rendering import pair_template as templates
from umr.rendering import prompts
from umr.rendering.llava_vision import ImageTiles
from umr.rendering.pair_template import PairTemplate
from umr.rendering.pairs import Pair, PairRenderer
from umr.rendering.renderer import Rendered
from umr.rendering.vision import VisionBlock

__all__ = ["ANSWERS", "RerankEngine", "RerankModel", "Reranker"]

Scores = npt.NDArray[np.float32]
KEPT_MEDIA_BYTES = 256 << 20
"""Patches of one call that are kept for the pairs to come; the ones unused for longest go first."""


class RerankEngine:
    """Scores through our own rendering: the engine of every checkpoint that is not a foreign CrossEncoder.

    Args:
        model: network and answers.
        renderer: what turns pairs into rows.
        processor: transformers' processor (or tokenizer), saved along.
    """

    def __init__(self, model: RerankModel, renderer: PairRenderer, processor: Any) -> None:
        self.model, self.renderer, self.processor = model, renderer, processor

    def prepare(self, pairs: Sequence[Pair], done: dict[str, VisionBlock]) -> list[Rendered]:
        """Decode, resize and tokenise; media in `done` are taken from there."""
        rows = self.renderer.render(pairs, done)
        _forget(done, KEPT_MEDIA_BYTES)
        return rows

    def cost(self, row: Rendered) -> batching.Cost:
        """Tokens in the language model, and a share for the patches through the vision tower, which are never padded."""
        return len(row.token_ids_L), row.patches // 4

    def forward(self, rows: list[Rendered]) -> np.ndarray:
        """Logits of `ANSWERS` of one batch, (R, 7)."""
        with torch.inference_mode():
            return self.model(rows).cpu().numpy()

    @staticmethod
    def log_odds(logits_RA: np.ndarray) -> np.ndarray:
        """(R,) of yes against no, from what `forward` gives."""
        return logits_RA[:, 0] - logits_RA[:, 1]

    def fingerprint_parts(self) -> list[str]:
        """Everything a score depends on, as text."""
        parts = backbone.fingerprint_parts(self.model.network, self.processor)
        return ["reranker", self.model.settings.text(), self.renderer.template.hash, *parts]


class Reranker:
    """Judges candidates one by one, or chooses among a few.

    Make one with `Reranker.load`. The score of a pair does not depend on the other pairs of a call (to 1e-5 in fp32).

    Example:
        >>> reranker = Reranker.load(Path("runs/reranker/model"))                                     # doctest: +SKIP
        >>> reranker.score(Item.of(text="a red circle"), [Item.of(image=Path("1.png"))])              # doctest: +SKIP
    """

    def __init__(self, engine: RerankEngine | CrossEncoderEngine, batch_tokens: int | None = None) -> None:
        self.engine, self.batch_tokens = engine, batch_tokens

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str | Path | PairTemplate | None = None,
        attention: backbone.Attention | None = None,
        max_tokens: int | None = None,
        image_tiles: ImageTiles | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        kernel: str = "sdpa",
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
        revision: str | None = None,
    ) -> Reranker:
        """Load a folder of ours, a plain Qwen-VL, LLaVA-NeXT or text checkpoint, a retriever with tied embeddings, or any CrossEncoder.

        A folder that we saved knows its own settings; arguments that are given override them (and change the fingerprint).

        Args:
            path: folder, or hub id.
            template: built-in name, `Path` of a template file (`.json`), file of zero-shot prompts (`.yaml`; `"zero-shot"` for those
                that come with this package), or a `PairTemplate`. Default: the folder's, else `umarvel` for Qwen-VL
                backbones, else `plain`. A CrossEncoder brings its own, unless one is given: then its weights are read as a plain
                checkpoint's.
            attention: `"causal"` or `"bidirectional"`. Default: what the folder was made with.
            max_tokens: longest row, 2048 by default.
            image_tiles: `"global"` (default) or `"anyres"`, for LLaVA-NeXT alone; see `Embedder.load`.
            min_pixels: images with a smaller area are enlarged to it. Default: the processor's.
            max_pixels: images and video frames with a larger area are reduced to it. Default: the processor's.
            kernel: attention of the language model: `"sdpa"`, `"eager"`, another that transformers knows, or `"packed"`: rows in one line
                without padding (`umr.models.packing`), equal results.
            dtype: `"float32"`, `"bfloat16"` or `"float16"`.
            device: torch device. Default: cuda when there is one, else cpu.
            batch_tokens: token budget of a batch. Default: 16384 on a GPU, 1024 on a CPU, whose caches larger batches overflow.
            revision: of a hub id.

        Raises:
            ModelError: the folder is no model, a part is missing, an answer is no single token, or a setting has no effect.
        """
        batching.check_budget(batch_tokens)
        weights_type, device = backbone.pick_dtype(dtype), backbone.pick_device(device)
        folder = backbone.local_folder(path, revision)
        config = backbone.load_config(folder)
        ours = any((folder / name).is_file() for name in (settings.FILE_NAME, settings.RERANKER_FILE_NAME))
        given: dict[str, Any] = {
            name: value
            for name, value in dict(attention=attention, max_tokens=max_tokens, image_tiles=image_tiles).items()
            if value is not None
        }
        if not ours and template is None and is_cross_encoder(folder, config):
            if given or min_pixels or max_pixels:
                raise ModelError(
                    f"{path}: a CrossEncoder brings its own rendering, so {', '.join([*given] or ['pixel budgets'])} would have "
                    "no effect; leave it out, or give a template to render with"
                )
            return cls(CrossEncoderEngine.load(folder, device, weights_type, kernel), batch_tokens)
        merged = replace(_settings(folder, config), **given)
        merged.check(config.model_type, path)
        check_head(config, path)
        processor = backbone.load_processor(folder, config)
        backbone.set_pixel_budget(processor, min_pixels, max_pixels, path)
        tokenizer = backbone.tokenizer_of(processor)
        vision = backbone.media_reader(processor, config, merged.image_tiles)
        renderer = PairRenderer(_choose_template(folder, template, config.model_type, processor), tokenizer, vision, merged.max_tokens)
        ids = answer_ids(renderer, path)
        network: Any = backbone.load_language_model(folder, config, merged.attention, kernel, weights_type).to(device)
        model = RerankModel(network, merged, config.model_type, tokenizer.pad_token_id, ids)
        return cls(RerankEngine(model, renderer, processor), batch_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, template, tokenizer, pixel budgets, attention and dtype."""
        return hashlib.sha256("\n".join(self.engine.fingerprint_parts()).encode()).hexdigest()[:16]

    @property
    def answers(self) -> tuple[str, str] | None:
        """The two words whose logits are compared, with a space before them where the tokenizer has them so; None for a CrossEncoder."""
        if not isinstance(self.engine, RerankEngine):
            return None
        return self.engine.renderer.template.yes, self.engine.renderer.template.no

    def score(self, query: Item | Query, items: Sequence[Item], instruction: str | None = None) -> Scores:
        """How well each item answers a query: P(Yes), float32 (N,), in the items' order. See `score_pairs`.

        Args:
            query: what was searched for; a `Query` brings its instruction.
            items: candidates in any mixture of modalities.
            instruction: for a query that is an `Item`; None for none.
        """
        item, instruction = _parts_of(query, instruction)
        return self.score_pairs([Pair(item, instruction, candidate) for candidate in items])

    def score_pairs(self, pairs: Sequence[Pair]) -> Scores:
        """P(Yes) of each pair, float32 (N,), in the pairs' order: the softmax over the two answers' logits.

        Pairs may mix queries and modalities. Media that occur in several pairs are decoded once where those pairs stand
        close to each other (256 MB of patches are kept).

        Raises:
            RenderError: a pair cannot be rendered.
            MediaError: an image or video cannot be read.
        """
        pairs = list(pairs)
        if wrong := [pair for pair in pairs if not (isinstance(pair.query, Item) and isinstance(pair.candidate, Item))]:
            kinds = f"{type(wrong[0].query).__name__} and {type(wrong[0].candidate).__name__}"
            raise RenderError(f"a pair holds a query item and a candidate item, not {kinds}; write Item.of(text=...)")
        if not pairs:
            return np.zeros(0, np.float32)
        engine: Any = self.engine
        done: dict[str, VisionBlock] = {}
        logits_NA = batching.encode_stream(
            len(pairs),
            lambda start, stop: engine.prepare(pairs[start:stop], done),
            engine.cost,
            engine.forward,
            self.batch_tokens or batching.default_budget(next(engine.model.parameters()).device.type),
            spare_core=False,  # media are decoded once for many pairs, and so take little beside the model
        )
        return sigmoid(engine.log_odds(logits_NA))

    def choose(self, query: Item | Query, items: Sequence[Item], instruction: str | None = None) -> Scores:
        """Probability that each of 2 to 5 items is the one that answers the query: float32 (N,), sum 1, in the items' order.

        The items are shown together, numbered; only a reranker that was trained so gives probabilities worth reading.

        Raises:
            ModelError: the model cannot name candidates: it is a CrossEncoder, or lacks single tokens for the numbers.
            RenderError: too few or too many items, or a template without a listwise layout.
        """
        if not isinstance(self.engine, RerankEngine):
            raise ModelError("a CrossEncoder scores one candidate at a time and cannot choose among several; use score")
        item, instruction = _parts_of(query, instruction)
        row = self.engine.renderer.render_choices(item, instruction, items)
        wanted = slice(2, 2 + len(items))
        for answer, token in zip(ANSWERS[wanted], self.engine.model.answer_ids[wanted], strict=True):
            if token == NO_TOKEN:
                raise ModelError(f"the answer {answer!r} is not a single token of this tokenizer, so it cannot be chosen; use score")
        logits_N = self.engine.forward([row])[0, wanted].astype(np.float64)
        odds_N = np.exp(logits_N - logits_N.max())
        return (odds_N / odds_N.sum()).astype(np.float32)

    def save(self, folder: Path) -> list[str]:
        """Write a folder that `Reranker.load`, and where possible plain `CrossEncoder`, load with the same scores.

        Returns:
            Reasons why plain sentence-transformers cannot load it; empty when it can.

        Raises:
            ModelError: the model is a foreign CrossEncoder, which saves itself.
        """
        if not isinstance(self.engine, RerankEngine):
            raise ModelError("this model is a foreign CrossEncoder; save it with its own save_pretrained")
        self.__dict__.pop("fingerprint", None)
        return reranker_exchange.save(self.engine, folder)


def sigmoid(log_odds_N: np.ndarray) -> Scores:
    """P(yes), float32, of log-odds of any shape."""
    return (0.5 * (1 + np.tanh(log_odds_N.astype(np.float64) / 2))).astype(np.float32)


def _parts_of(query: Item | Query, instruction: str | None) -> tuple[Item, str | None]:
    if not isinstance(query, Query):
        return query, instruction
    if instruction is not None:
        raise RenderError("the query brings its own instruction; leave the other one out")
    return query.item, query.instruction


def _settings(folder: Path, config: Any) -> RerankSettings:
    if (folder / settings.RERANKER_FILE_NAME).is_file():
        return RerankSettings.load(folder)
    causal = getattr(config.get_text_config(), "is_causal", None) is not False
    return RerankSettings(attention="causal" if causal else "bidirectional")


def _choose_template(folder: Path, given: str | Path | PairTemplate | None, family: str, processor: Any) -> PairTemplate:
    if not isinstance(given, PairTemplate | None) and (found := prompts.resolve(given)) is not None:
        return found[0].template(processor, found[1])
    if given is not None:
        return templates.resolve(given)
    if (folder / templates.FILE_NAME).is_file():
        return PairTemplate.load(folder / templates.FILE_NAME)
    return templates.UMARVEL if family in backbone.QWEN_FAMILIES else templates.PLAIN


def _forget(done: dict[str, VisionBlock], budget: int) -> None:
    total = sum(block.patches_PC.nbytes for block in done.values())
    for digest in list(done):
        if total <= budget:
            break
        total -= done.pop(digest).patches_PC.nbytes
