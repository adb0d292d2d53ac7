"""What a step does with a batch: from examples to rendered rows, and from rows to gradients. One class a kind of loss.

An objective accumulates gradients of its device's share of the global mean, so that adding up the devices' gradients gives the
gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from umr.losses.answers import Questions, answer_loss
from umr.losses.gathered import gather_batch
from umr.losses.infonce import Columns, info_nce
from umr.losses.listwise import distillation, list_cosines, own_infonce
from umr.losses.matryoshka import Prefixes, over_prefixes
from umr.losses.ranking import ranking_loss
from umr.losses.temperature import Temperature
from umr.models.batching import pack
from umr.models.embedder import EmbeddingModel
from umr.rendering.renderer import Rendered, Renderer
from umr.training import batches, gradient_cache, lists, questions, statements
from umr.training.examples import Example, ListExample
from umr.training.recipe_sections import DistillationSection, GenerativeSection, InfoNceSection, RerankSection, TrainingSection

if TYPE_CHECKING:
    from umr.data.statements import Statement
    from umr.models.reranker import RerankModel
    from umr.rendering.pairs import PairRenderer

Precision = Callable[[], AbstractContextManager[object]]


class Retriever(torch.nn.Module):
    """What is optimised in a retriever: the embedding model and the temperature.

    Args:
        model: network and pooling.
        temperature: of the loss.
    """

    def __init__(self, model: EmbeddingModel, temperature: Temperature) -> None:
        super().__init__()
        self.model: EmbeddingModel = model
        self.temperature: Temperature = temperature


class Objective(Protocol):
    """One kind of training."""

    def build(self, examples: Sequence[Any]) -> Any:
        """Render a batch; called in worker processes."""
        ...

    def backward(self, module: Any, batch: Any, precision: Precision) -> torch.Tensor:
        """Accumulate the gradient of this device's share, and return its share of the mean loss."""
        ...


class Contrastive:
    """InfoNCE over the whole batch of all devices.

    Args:
        renderer: of the model in training.
        loss: settings of the loss.
        training: memory settings.
    """

    def __init__(self, renderer: Renderer, loss: InfoNceSection, training: TrainingSection) -> None:
        self.renderer, self.loss, self.training = renderer, loss, training
        self.prefixes = prefixes_of(loss)

    def build(self, examples: Sequence[Example]) -> batches.RetrievalBatch:
        """See `umr.training.batches.build`."""
        return batches.build(examples, self.renderer)

    def backward(self, module: Retriever, batch: batches.RetrievalBatch, precision: Precision) -> torch.Tensor:
        """One step with gradient caching, unless it is off."""
        return _embed_backward(module, batch.rows, self.training, precision, lambda rows_UD: self._loss(module, batch, rows_UD))

    def _loss(self, module: Retriever, batch: batches.RetrievalBatch, rows_UD: torch.Tensor) -> torch.Tensor:
        device = rows_UD.device
        columns = Columns(*(tensor.to(device) for tensor in vars(batch.columns).values()))
        query_BD, candidate_CD = rows_UD[batch.query_B.to(device)], rows_UD[batch.candidate_C.to(device)]
        query_BD, candidate_CD, columns, own = gather_batch(query_BD, candidate_CD, columns)
        how: dict[str, Any] = {"both_ways": self.loss.both_ways, "mask": self.loss.mask_false_negatives, "rows": own}
        temperature = module.temperature()
        return over_prefixes(lambda q_BD, c_CD: info_nce(q_BD, c_CD, columns, temperature, **how), query_BD, candidate_CD, self.prefixes)


class OwnLists:
    """A loss of each query over its own list: distillation, or InfoNCE without in-batch negatives.

    Memory does not grow with the lists: gradient caching embeds their candidates in chunks, like all rows.

    Args:
        renderer: of the model in training.
        loss: settings of the loss. Lists of a distillation come with a teacher's scores; others with their positive first.
        training: memory settings, and the size of the global batch.
    """

    def __init__(self, renderer: Renderer, loss: InfoNceSection | DistillationSection, training: TrainingSection) -> None:
        self.renderer, self.training = renderer, training
        self.scored, self.prefixes = loss.kind == "distillation", prefixes_of(loss)

    def build(self, examples: Sequence[Any]) -> lists.ListBatch:
        """See `umr.training.lists`."""
        of_examples: Sequence[ListExample] | Sequence[Example] = examples
        return lists.build_scored(of_examples, self.renderer) if self.scored else lists.build_own(of_examples, self.renderer)  # type: ignore[arg-type]

    def backward(self, module: Retriever, batch: lists.ListBatch, precision: Precision) -> torch.Tensor:
        """One step with gradient caching, unless it is off."""
        return _embed_backward(module, batch.rows, self.training, precision, lambda rows_UD: self._loss(module, batch, rows_UD))

    def _loss(self, module: Retriever, batch: lists.ListBatch, rows_UD: torch.Tensor) -> torch.Tensor:
        device = rows_UD.device
        candidate_CD = rows_UD if batch.stored_CD is None else batch.stored_CD.to(device)
        list_BK, teacher_BK = batch.list_BK.to(device), None if batch.teacher_BK is None else batch.teacher_BK.to(device)
        temperature = module.temperature()

        def loss(query_BD: torch.Tensor, candidate_CD: torch.Tensor) -> torch.Tensor:
            cosine_BK = list_cosines(query_BD, candidate_CD, list_BK)
            return own_infonce(cosine_BK, temperature) if teacher_BK is None else distillation(cosine_BK, teacher_BK, temperature)

        return over_prefixes(loss, rows_UD[batch.query_B.to(device)], candidate_CD, self.prefixes) / self.training.batch_size


def prefixes_of(loss: InfoNceSection | DistillationSection) -> Prefixes:
    """What a recipe wants trained besides whole vectors, longest first."""
    if loss.matryoshka is None:
        return Prefixes()
    lengths, weights = loss.matryoshka.dimensions, loss.matryoshka.weights or [1.0] * len(loss.matryoshka.dimensions)
    ordered = sorted(zip(lengths, weights, strict=True), reverse=True)
    return Prefixes(tuple(length for length, _ in ordered), tuple(weight for _, weight in ordered))


class Reranking:
    """Cross-entropy over a reranker's answers, and between a query's candidates.

    It falls apart by queries, so no chunk needs to wait for another.

    Args:
        renderer: of the model in training.
        loss: what is asked.
        training: memory settings, the size of the global batch, and the seed.
    """

    def __init__(self, renderer: PairRenderer, loss: RerankSection, training: TrainingSection) -> None:
        self.renderer, self.loss, self.training = renderer, loss, training

    def build(self, examples: Sequence[Example]) -> questions.QuestionBatch:
        """See `umr.training.questions.build`."""
        return questions.build(examples, self.renderer, self.loss, self.training.seed)

    def backward(self, module: RerankModel, batch: questions.QuestionBatch, precision: Precision) -> torch.Tensor:
        """One step, chunk by chunk."""

        def loss(logits_RA: torch.Tensor, places_R: torch.Tensor) -> torch.Tensor:
            asked = Questions(*(tensor[places_R].to(logits_RA.device) for tensor in vars(batch.questions).values()))
            answers = answer_loss(logits_RA, asked)
            if not self.loss.ranking:
                return answers
            odds_R = logits_RA[:, questions.YES] - logits_RA[:, questions.NO]
            return answers + self.loss.ranking * ranking_loss(odds_R, batch.query_R[places_R].to(odds_R.device))

        chunks = _chunks_of_groups(batch, self.training) if self.loss.ranking else _chunks(batch.rows, self.training)
        return _answer_backward(module, batch.rows, chunks, self.training, precision, loss)


class Answering:
    """Cross-entropy of the next token over the whole vocabulary, at the place of the answer, and between the statements of a group.

    Args:
        renderer: of messages, for the model in training.
        yes_id: token of the answer yes.
        no_id: token of the answer no.
        loss: share of the ranking loss.
        training: memory settings, and the size of the global batch.
    """

    def __init__(self, renderer: Renderer, yes_id: int, no_id: int, loss: GenerativeSection, training: TrainingSection) -> None:
        self.renderer, self.yes_id, self.no_id, self.loss, self.training = renderer, yes_id, no_id, loss, training

    def build(self, examples: Sequence[Sequence[Statement]]) -> statements.StatementBatch:
        """See `umr.training.statements.build`."""
        return statements.build(examples, self.renderer, self.yes_id, self.no_id)

    def backward(self, module: RerankModel, batch: statements.StatementBatch, precision: Precision) -> torch.Tensor:
        """One step, chunk by chunk."""

        def loss(logits_RV: torch.Tensor, places_R: torch.Tensor) -> torch.Tensor:
            next_R, weight_R, query_R = (one[places_R].to(logits_RV.device) for one in (batch.next_R, batch.weight_R, batch.query_R))
            answers = (F.cross_entropy(logits_RV, next_R, reduction="none") * weight_R).sum()
            if not self.loss.ranking:
                return answers
            odds_R = logits_RV[:, self.yes_id] - logits_RV[:, self.no_id]
            return (1 - self.loss.ranking) * answers + self.loss.ranking * ranking_loss(odds_R, query_R)

        chunks = _chunks_of_groups(batch, self.training) if self.loss.ranking else _chunks(batch.rows, self.training)
        return _answer_backward(module, batch.rows, chunks, self.training, precision, loss, vocabulary=True)


def _answer_backward(
    module: RerankModel,
    rows: Sequence[Rendered],
    chunks: Sequence[list[int]],
    training: TrainingSection,
    precision: Precision,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    vocabulary: bool = False,
) -> torch.Tensor:
    """Sum over chunks of the loss, which takes logits and places of rows, by the size of the global batch."""
    total = torch.zeros((), device=next(module.parameters()).device)
    for chunk in chunks:
        with precision():
            logits = module([rows[index] for index in chunk], vocabulary)
        share = loss(logits, torch.tensor(chunk)) / training.batch_size
        if share.requires_grad:  # not where only the vision tower is trained, and the chunk has no picture
            share.backward()  # type: ignore[no-untyped-call]
        total += share.detach()
    return total


def _chunks(rows: Sequence[Rendered], training: TrainingSection) -> list[list[int]]:
    return pack([len(row.token_ids_L) for row in rows], training.chunk_tokens, [row.patches // 4 for row in rows])


def _chunks_of_groups(batch: questions.QuestionBatch | statements.StatementBatch, training: TrainingSection) -> list[list[int]]:
    """Chunks that hold all rows of a query or none, about as many tokens each as those of `_chunks`."""
    groups = batch.groups
    tokens = [len(group) * max(len(batch.rows[row].token_ids_L) for row in group) for group in groups]
    patches = [sum(batch.rows[row].patches for row in group) // 4 for group in groups]
    return [[row for place in chunk for row in groups[place]] for chunk in pack(tokens, training.chunk_tokens, patches)]


def _embed_backward(
    module: Retriever,
    rows: Sequence[Rendered],
    training: TrainingSection,
    precision: Precision,
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    return gradient_cache.backward(rows, _chunks(rows, training), module.model, loss, training.gradient_cache, precision)
