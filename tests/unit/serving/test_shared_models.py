"""Models that many threads share, as collections ask them: the results of `Embedder` and `Reranker`, ours and foreign ones."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiny
from umr.errors import MediaError, ModelError, RenderError
from umr.items import Item, Query
from umr.models.embedder import Embedder
from umr.rendering.pairs import Pair
from umr.serving.models import ServedEmbedder, ServedReranker
from umr.serving.runtime import Runtime, chunks_of
from unit.serving.live_server import reranker_of

TOLERANCE = 1e-5
ITEMS = [*tiny.sample_items().values(), tiny.LONGEST]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    found = Runtime()
    yield found
    found.close()


def foreign() -> Embedder:
    """A SentenceTransformer that sentence-transformers itself saved."""
    from sentence_transformers import SentenceTransformer

    folder = Path(tempfile.mkdtemp(dir=tiny.workplace())) / "model"
    SentenceTransformer(str(tiny.checkpoint("qwen3-vl")), device="cpu").save(str(folder))
    return Embedder.load(folder, device="cpu")


@pytest.mark.parametrize("kind", ["ours", "foreign"])
def test_threads_that_embed_together_get_what_each_would_get_alone(runtime: Runtime, kind: str):
    model = tiny.embedder("qwen3-vl") if kind == "ours" else foreign()
    items = ITEMS if kind == "ours" else [item for item in ITEMS if item.modality in ("text", "image", "image,text")]
    served = ServedEmbedder(kind, model, runtime)
    expected = {"candidate": model.encode(items), "query": model.encode(items, "query", tiny.INSTRUCTION)}

    def work(number: int) -> float:
        side = ("candidate", "query")[number % 2]
        order = np.random.default_rng(number).permutation(len(items))[:5]
        found = served.encode([items[index] for index in order], side, tiny.INSTRUCTION if side == "query" else None)
        return float(np.abs(found - expected[side][order]).max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(24))) <= TOLERANCE
    assert (served.dimension, served.fingerprint, served.query_text) == (model.dimension, model.fingerprint, model.query_text)
    assert served.encode([]).shape == (0, model.dimension)


def test_threads_that_rerank_together_get_what_each_would_get_alone(runtime: Runtime):
    served, items = ServedReranker("judge", reranker_of(), runtime), ITEMS[:6]
    expected = {query: reranker_of().score(items[query], items, tiny.INSTRUCTION) for query in range(3)}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: served.score(Query(items[number % 3], tiny.INSTRUCTION), items), range(9)))
    for number, scores in enumerate(found):
        np.testing.assert_allclose(scores, expected[number % 3], atol=TOLERANCE)
    pairs = [Pair(items[0], None, items[1]), Pair(items[2], tiny.INSTRUCTION, items[3])]
    np.testing.assert_allclose(served.score_pairs(pairs), reranker_of().score_pairs(pairs), atol=TOLERANCE)
    assert served.score_pairs([]).shape == (0,)


def test_what_cannot_be_embedded_fails_by_itself(runtime: Runtime):
    served = ServedEmbedder("tiny", tiny.embedder("qwen3-vl"), runtime)
    with pytest.raises(MediaError, match="not an image"):
        served.encode([ITEMS[0], Item.of(image=b"nonsense")])
    with pytest.raises(RenderError, match="instructions belong to the query side"):
        served.encode([ITEMS[0]], "candidate", "find it")
    with pytest.raises(ModelError, match="2 instructions for 1 items"):
        served.encode([ITEMS[0]], "query", ["a", "b"])
    assert served.encode([ITEMS[0]]).shape == (1, served.dimension)


def test_vectors_are_only_made_shorter(runtime: Runtime):
    for length in (0, 128, 129):
        with pytest.raises(ModelError, match="cannot shorten vectors of 128 components"):
            ServedEmbedder("tiny", tiny.embedder("qwen3-vl"), runtime, (length,))


def test_media_are_prepared_one_by_one_and_texts_together():
    text, image = ITEMS[0], tiny.sample_items()["image"]
    parts = list(chunks_of([text] * 40 + [image, image, text]))
    assert [(part.start, part.stop) for part in parts] == [(0, 32), (32, 41), (41, 42), (42, 43)]
