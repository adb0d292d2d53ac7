"""The sections of a recipe: model, data, loss and training, each with what it needs and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from umr.data.text_retrieval import INSTRUCTION as TEXT_INSTRUCTION

AdapterPart = Literal["language", "projector", "vision"]
Part = Literal["language", "projector", "vision", "pooling"]
PoolName = Literal["local", "global"]


class Section(BaseModel):
    """Keys that are not declared are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LatentSection(Section):
    """Sizes of latent attention, where the model has none yet; the defaults are NV-Embed's. See `LatentSizes`."""

    latents: int = Field(512, ge=1)
    heads: int = Field(8, ge=1)
    head_width: int | None = Field(None, ge=1)
    multiplier: int = Field(4, ge=1)


class ModelSection(Section):
    """What is trained. Arguments of `Embedder.load` (`Reranker.load` for a reranker); None leaves the folder's own setting."""

    path: str
    template: str | None = None
    """Name of a built-in, or a file whose name ends in .json."""
    attention: Literal["bidirectional", "causal"] | None = None
    positions: Literal["mrope", "flat"] | None = None
    pooling: Literal["mean", "last", "token_before_emb", "latent"] | None = None
    latent: LatentSection | None = None
    image_tiles: Literal["global", "anyres"] | None = None
    dimension: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=8)
    min_pixels: int | None = Field(None, ge=1)
    max_pixels: int | None = Field(None, ge=1)
    kernel: str = "sdpa"
    dtype: Literal["float32", "bfloat16"] = "float32"
    revision: str | None = None


class MBeirSection(Section):
    """Instructed queries of an M-BEIR tree (a real one, or World)."""

    kind: Literal["mbeir"]
    path: str
    settings: list[str] | None = None
    """Names such as `cirr_task7`; all training settings when None."""
    instructions: Literal["seeded", "first", "none"] = "seeded"
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of a setting relative to its number of queries; 1 when not named. To leave one out, list the others as `settings`."""
    negatives_for: list[str] | None = None
    """Settings whose queries bring `loss.negatives` explicit negatives; all when None."""
    mined: str | None = None
    """Folder that `umr mine` wrote: the negatives come from there instead of the queries' own `neg_cand_list`."""
    on_error: Literal["fail", "skip"] = "fail"


class CaptionsSection(Section):
    """Caption -> image pairs, in any layout that `umr.data.pairs` reads."""

    kind: Literal["captions"]
    path: str
    weight: float = Field(1.0, gt=0)


class TextPairsSection(Section):
    """Sentence -> entailed sentence pairs, perhaps with a contradiction each, in any layout that `umr.data.pairs` reads."""

    kind: Literal["text_pairs"]
    path: str
    weight: float = Field(1.0, gt=0)


class ScoredSection(Section):
    """Lists of candidates that a teacher has scored (`umr score`), for the training queries of an M-BEIR tree."""

    kind: Literal["scored"]
    path: str
    scores: str
    """Folder that `umr score` wrote."""
    revision: str | None = None
    """Fingerprint of the teacher, where the table holds several."""
    settings: list[str] | None = None
    pools: list[PoolName] = Field(default=["local", "global"], min_length=1)
    """Whose lists: the original took local ones only and lost 6.6 points on global COCO (spec/umarvel.md 4.4)."""
    instructions: Literal["seeded", "first", "none"] = "seeded"
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of a setting relative to its number of lists; 1 when not named."""
    on_error: Literal["fail", "skip"] = "fail"


class TextRetrievalSection(Section):
    """Training queries of a text-retrieval set in BEIR's or MTEB's layout (`umr.data.text_retrieval`), such as World's."""

    kind: Literal["text_retrieval"]
    path: str
    instruction: str | None = None
    """Of every query; None takes those of the folder, or `umr.data.text_retrieval.INSTRUCTION`."""
    instructions: Literal["seeded", "first", "none"] = "seeded"
    """Which of several wordings."""
    weight: float = Field(1.0, gt=0)
    """Share of the set relative to its number of queries."""
    mined: str | None = None
    """Folder that `umr mine` wrote: the negatives come from there instead of documents judged 0."""
    on_error: Literal["fail", "skip"] = "fail"

    @model_validator(mode="after")
    def _check(self) -> TextRetrievalSection:
        if self.instruction is not None and self.instructions == "none":
            raise ValueError("instruction has no effect with instructions=none; give one of them")
        return self


class TriplesSection(Section):
    """Queries with right and wrong passages, as MS MARCO gives them out (`umr.data.triples`)."""

    kind: Literal["triples"]
    path: str
    ids_in: str | None = None
    """Folder of `corpus.jsonl` and `queries.jsonl`, where the file holds ids."""
    instruction: str | None = TEXT_INSTRUCTION
    """Of every query; null for none."""
    weight: float = Field(1.0, gt=0)


class StatementsSection(Section):
    """Messages that are answered by yes or no (`umr.data.statements`), such as World's `statements/train.jsonl`."""

    kind: Literal["statements"]
    path: str
    images: str
    """Folder that image paths start from; of a World, its own."""
    weight: float = Field(1.0, gt=0)


DataSection = Annotated[
    MBeirSection | CaptionsSection | TextPairsSection | ScoredSection | TextRetrievalSection | TriplesSection | StatementsSection,
    Field(discriminator="kind"),
]


class MatryoshkaSection(Section):
    """Train prefixes of the vectors, too, so that they may be cut (`umr.losses.matryoshka`)."""

    dimensions: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Lengths of prefixes, below the model's own, which is always trained."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """Of the loss of each, in the same order, where that of the whole vector weighs 1; None for 1 each."""

    @model_validator(mode="after")
    def _check(self) -> MatryoshkaSection:
        if twice := sorted({one for one in self.dimensions if self.dimensions.count(one) > 1}):
            raise ValueError(f"dimensions names {twice[0]} twice; name each length once")
        if self.weights is not None and len(self.weights) != len(self.dimensions):
            raise ValueError(f"{len(self.weights)} weights for {len(self.dimensions)} dimensions; give one for each, or leave weights out")
        return self


class InfoNceSection(Section):
    """InfoNCE over in-batch and explicit negatives, and its temperature."""

    kind: Literal["infonce"]
    temperature: float | None = Field(None, gt=0)
    """Start value; None goes on from the temperature that the model carries, and from 0.05 where it carries none."""
    learn_temperature: bool = False
    both_ways: bool = False
    mask_false_negatives: bool = True
    negatives: int = Field(0, ge=0)
    """Explicit hard negatives a query, from the data; 0 for in-batch negatives only."""
    in_batch: bool = True
    """Use the other queries' candidates as negatives; False leaves each query its own explicit negatives alone."""
    matryoshka: MatryoshkaSection | None = None
    """Shorter vectors to train as well; None for none."""


class DistillationSection(Section):
    """KL divergence from a teacher's scores over each query's own list (spec/umarvel.md 1.10)."""

    kind: Literal["distillation"]
    temperature: float | None = Field(None, gt=0)
    """As in InfoNCE. It is learned through the student alone: the teacher's is detached."""
    learn_temperature: bool = False
    weight: float | str = 1.0
    """w of the teacher, (cosine + w * P(Yes)) / (1 + w): a number, or the file of `umr eval --choose-weights` with one a setting."""
    list_length: int = Field(50, ge=2)
    """Candidates a list: its first, by the retriever's rank."""
    vectors: str | None = None
    """Folder of vectors (that of `umr mine` and `umr score`) from which candidates are taken as they were before this stage, without
    gradient; None embeds them anew with gradient."""
    matryoshka: MatryoshkaSection | None = None
    """Shorter vectors to train as well, towards the same teacher; None for none."""


class RerankSection(Section):
    """A reranker's cross-entropy over its answers: Yes or No for one candidate, a number for one among several."""

    kind: Literal["rerank"]
    negatives: int = Field(1, ge=0)
    """Wrong candidates a query from the data, drawn anew each epoch."""
    strangers: int = Field(0, ge=0)
    """Further wrong candidates a query: answers to other queries of its setting, drawn at random. They are easy, which a model needs
    that starts from nothing (docs/decisions.md)."""
    choices: int = Field(0, ge=0, le=5)
    """Candidates of a listwise question, one of them right; 0 for none."""
    ranking: float = Field(0.0, ge=0, lt=1)
    """Share of a ranking loss between a query's candidates (`umr.losses.ranking`) in the loss of the questions about one candidate.
    0 trains as published; a model that starts from nothing learns several times sooner with 0.5 (docs/decisions.md)."""

    @model_validator(mode="after")
    def _check(self) -> RerankSection:
        if self.choices == 1:
            raise ValueError("loss.choices=1 leaves nothing to choose from; use 2 to 5, or 0 for none")
        if not self.negatives and not self.strangers and not self.choices:
            raise ValueError("loss.negatives=0, loss.strangers=0 and loss.choices=0 leave nothing to learn; set one of them")
        if self.ranking and not self.negatives and not self.strangers:
            raise ValueError("loss.ranking has no effect without wrong candidates; set loss.negatives or loss.strangers")
        return self


class GenerativeSection(Section):
    """A language model's cross-entropy over its whole vocabulary, at the place where a statement is answered."""

    kind: Literal["generative"]
    ranking: float = Field(0.0, ge=0, lt=1)
    """Share of a ranking loss between the statements of a group (`umr.losses.ranking`), of which their cross-entropies have the rest."""


LossSection = Annotated[InfoNceSection | DistillationSection | RerankSection | GenerativeSection, Field(discriminator="kind")]


class LoraSection(Section):
    """Low-rank adapters on the linear layers of some parts; everything else is frozen, but for a trained pooling and `training.parts`."""

    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    parts: list[AdapterPart] = Field(default=["language"], min_length=1)


class TrainingSection(Section):
    """The optimisation."""

    batch_size: int = Field(ge=2)
    """Queries in the global batch, over all devices."""
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    """Passes over the (weighted) data; give this or `steps`."""
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    chunk_tokens: int = Field(16384, ge=1)
    """Padded tokens in one forward pass; larger is faster until memory ends."""
    gradient_cache: bool = True
    """Two forward passes, memory of one chunk; False keeps all chunks' activations and is faster where they fit. Rerankers need none."""
    tasks_per_batch: int | None = Field(None, ge=1)
    """Draw each batch from so many settings in equal parts, so that in-batch negatives are of the same kind; None mixes all."""
    parts: list[Part] | None = None
    """Train only these parts in full; None for all. With lora: further parts, trained in full beside the adapters; None for none. The
    weights of latent attention are a part of their own, `pooling`: trained when this is None, with lora too, else when it is named."""
    lora: LoraSection | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    save_every: int = Field(500, ge=1)
    log_every: int = Field(10, ge=1)
    workers: int = Field(1, ge=0)
    """Background processes that decode and tokenise."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> TrainingSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either training.steps or training.epochs")
        if self.lora is not None and (twice := sorted(set(self.lora.parts) & set(self.parts or ()))):
            raise ValueError(f"training.parts and training.lora.parts both name {twice[0]}; train it in full or by adapters")
        return self
