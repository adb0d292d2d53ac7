"""What a recipe trains: a retriever or a reranker, from loading to saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from umr.errors import RecipeError
from umr.losses.temperature import DEFAULT, Temperature
from umr.models import parts
from umr.models.embedder import Embedder, RenderedEngine
from umr.models.exchange import image_text, jinja, writes_timestamps
from umr.models.latent_attention import LatentSizes
from umr.rendering.pair_template import PROMPTS_SUFFIXES
from umr.rendering.prompts import Prompts
from umr.rendering.renderer import Renderer
from umr.training.objectives import Answering, Contrastive, Objective, OwnLists, Reranking, Retriever, prefixes_of
from umr.training.recipe import Recipe
from umr.training.recipe_sections import (
    DistillationSection,
    GenerativeSection,
    InfoNceSection,
    ModelSection,
    RerankSection,
    TrainingSection,
)
from umr.training.statements import message_template

if TYPE_CHECKING:
    from umr.models.reranker import RerankEngine
    from umr.protocols import Encoder


class Learner(Protocol):
    """A model in training."""

    @property
    def module(self) -> torch.nn.Module:
        """What is optimised."""
        ...

    @property
    def objective(self) -> Objective:
        """What a step does."""
        ...

    @property
    def started_from(self) -> str:
        """Fingerprint of the model before its training."""
        ...

    @property
    def encoder(self) -> Encoder | None:
        """The retriever, for stored vectors; None for a reranker."""
        ...

    def temperature(self) -> float | None:
        """The softmax temperature at present; None for a loss without one."""
        ...

    def save(self, folder: Path) -> tuple[str, list[str]]:
        """Merge adapters and write the model: its fingerprint, and why plain sentence-transformers cannot load it."""
        ...


def load(recipe: Recipe) -> Learner:
    """Load what a recipe trains.

    Raises:
        ModelError: the model cannot be loaded.
        RecipeError: it cannot be trained like this.
    """
    if isinstance(recipe.loss, RerankSection | GenerativeSection):
        return RerankerLearner(recipe, recipe.loss)
    return RetrieverLearner(recipe)


class RetrieverLearner:
    """An embedding model and its temperature. See `Learner`."""

    def __init__(self, recipe: Recipe) -> None:
        assert not isinstance(recipe.loss, RerankSection | GenerativeSection)
        self._embedder = Embedder.load(recipe.model.path, **_given(recipe.model))
        engine = self._embedder.engine
        if not isinstance(engine, RenderedEngine):
            raise RecipeError("model.path: a foreign SentenceTransformer is trained with sentence-transformers itself")
        self._engine, self._training = engine, recipe.training
        self._shorter = _shorter(recipe.loss, engine.dimension)
        self.started_from, self.encoder = self._embedder.fingerprint, self._embedder
        engine.model.network = _prepare(engine.model.network, recipe.training)
        _prepare_pooling(engine.model.latent, recipe.training)
        start = recipe.loss.temperature or engine.model.settings.temperature or DEFAULT
        self.module = Retriever(engine.model, Temperature(start, recipe.loss.learn_temperature))
        self.objective: Objective
        if isinstance(recipe.loss, InfoNceSection) and recipe.loss.in_batch:
            self.objective = Contrastive(engine.renderer, recipe.loss, recipe.training)
        else:
            self.objective = OwnLists(engine.renderer, recipe.loss, recipe.training)

    def temperature(self) -> float | None:
        """The temperature at present."""
        return float(self.module.temperature().detach())

    def save(self, folder: Path) -> tuple[str, list[str]]:
        """Write the model with its temperature and the lengths that this training gave its vectors."""
        model = self._engine.model
        model.network = _finished(model.network, self._training)
        model.eval()
        temperature = round(float(self.module.temperature().detach()), 6)
        model.settings = replace(model.settings, temperature=temperature, matryoshka=self._shorter)
        reasons = self._embedder.save(folder)
        return self._embedder.fingerprint, reasons


class RerankerLearner:
    """A model that answers questions about a query and candidates. See `Learner`."""

    encoder = None

    def __init__(self, recipe: Recipe, loss: RerankSection | GenerativeSection) -> None:
        from umr.models.reranker import RerankEngine, Reranker

        given = {name: value for name, value in _given(recipe.model).items() if name not in ("positions", "pooling", "latent", "dimension")}
        self._reranker = Reranker.load(recipe.model.path, **given)
        engine = self._reranker.engine
        if not isinstance(engine, RerankEngine):
            raise RecipeError("model.path: a foreign CrossEncoder is trained with sentence-transformers itself")
        self._engine, self._training = engine, recipe.training
        self.started_from = self._reranker.fingerprint
        engine.model.network = _prepare(engine.model.network, recipe.training)
        self.module = engine.model
        self.objective: Objective
        if isinstance(loss, RerankSection):
            self.objective = Reranking(engine.renderer, loss, recipe.training)
        else:
            self.objective = _answering(engine, Path(recipe.model.template or ""), loss, recipe.training)

    def temperature(self) -> float | None:
        """None: probabilities come from the logits as they are."""
        return None

    def save(self, folder: Path) -> tuple[str, list[str]]:
        """Write the model."""
        self._engine.model.network = _finished(self._engine.model.network, self._training)
        self._engine.model.eval()
        reasons = self._reranker.save(folder)
        return self._reranker.fingerprint, reasons


def _shorter(loss: InfoNceSection | DistillationSection, dimension: int) -> tuple[int, ...]:
    """Lengths below the model's own that are trained, longest first. Raises `RecipeError` for one that is not below it."""
    lengths = prefixes_of(loss).lengths
    if lengths and lengths[0] >= dimension:
        raise RecipeError(
            f"loss.matryoshka.dimensions: {lengths[0]} is not below the model's own {dimension}, which is always trained; leave it out"
        )
    return lengths


def _answering(engine: RerankEngine, file: Path, loss: GenerativeSection, training: TrainingSection) -> Answering:
    """Train on messages in the frame of a prompts file, which is what the model's chat template says from then on."""
    prompts, tokenizer = Prompts.load(file), engine.renderer.tokenizer
    template = message_template(prompts.frame_for(engine.processor, file))
    if prompts.frame is not None:
        engine.processor.chat_template = jinja(template, writes_timestamps(engine), image_text(engine))
    renderer = Renderer(template, tokenizer, engine.renderer.vision, engine.model.settings.max_tokens, "last")
    yes, no = engine.model.answer_ids[:2]
    return Answering(renderer, yes, no, loss, training)


def _given(section: ModelSection) -> dict[str, Any]:
    given = section.model_dump(exclude={"path"})
    if section.template is not None and section.template.endswith((".json", *PROMPTS_SUFFIXES)):
        given["template"] = Path(section.template)
    if section.latent is not None:
        given["latent"] = LatentSizes(**given["latent"])
    return given


def _prepare(network: Any, training: TrainingSection) -> Any:
    """Choose what is trained, and how its activations are kept."""
    if training.lora is not None:
        lora, full = training.lora, training.parts or ()
        network = parts.add_lora(network, lora.rank, lora.alpha, lora.dropout, lora.parts, full)
    elif training.parts is not None:
        parts.freeze_all_but(network, training.parts)
    if training.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        if training.lora is not None:
            network.enable_input_require_grads()
    return network


def _prepare_pooling(latent: torch.nn.Module | None, training: TrainingSection) -> None:
    """Train a pooling's weights in full, with adapters too, unless `training.parts` leaves them out."""
    named = training.parts is not None and parts.POOLING in training.parts
    if latent is None and named:
        raise RecipeError("training.parts: this model has no pooling part; its pooling has no weights (model.pooling=latent gives it some)")
    if latent is not None:
        latent.requires_grad_(training.parts is None or named)


def _finished(network: Any, training: TrainingSection) -> Any:
    """Merge adapters, and undo what was for training only."""
    network = parts.merge_lora(network)
    if training.gradient_checkpointing:
        network.gradient_checkpointing_disable()
    return network
