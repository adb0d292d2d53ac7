"""Many pools searched in one stream: against brute force with ties and tiny budgets, on torch, interrupted, and within its memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.errors import RecipeError, StoreError
from umr.store import (
    Among,
    ArrayRows,
    Asked,
    Cpu,
    Device,
    Engine,
    Laid,
    Saved,
    Streaming,
    TooLittle,
    VectorStore,
    default_engine,
    halves,
    saved,
)
from umr.store.best import nothing, numbers_of, scores_of
from umr.store.halves import WORTH
from umr.store.passes import Shape
from umr.store.rescoring import highest_left_out, slack
from umr.store.scanning import Part
from umr.store.streaming import Ranking

SHAPES = (Shape(16, 4), Shape(5, 2), Shape(1, 1))
ENGINES: dict[str, Callable[[], Engine]] = {
    "numpy": Cpu,
    "halves": lambda: Cpu(half=True),
    "torch": lambda: Device("cpu"),
    "torch, halves": lambda: Device("cpu", half=True),
}
engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))


def torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def small(engine: Engine | None = None, shapes: tuple[Shape, ...] = SHAPES) -> Engine:
    """An engine whose blocks are smaller than the pools of these tests."""
    engine = engine or Cpu()
    engine.shapes = shapes
    return engine


def one_shape() -> Engine:
    """An engine that saves memory by several passes alone."""
    return small(shapes=SHAPES[:1])


def memory_for(stream: Laid, asked: list[Asked], passes: int) -> int:
    """Memory with which `one_shape` needs that many passes."""
    whole = Streaming(stream, asked, engine=one_shape())
    cost = whole._planner.cost((0, whole._planner.queries))
    each = -(-cost // whole._planner.queries)
    return whole.plan.bytes - cost + -(-cost // passes) + each * SHAPES[0].group


def brute_force(queries: np.ndarray, candidates: np.ndarray, places: np.ndarray, k: int) -> Ranking:
    """Each pair on its own in double precision, then single; of equal scores the lower row of the pool first."""
    pairs = queries.astype(np.float64)[:, None] * candidates[places]
    scores = pairs.sum(axis=-1).astype(np.float32)
    rows = np.broadcast_to(np.arange(len(places)), scores.shape)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def same(found: list[list[Ranking]], expected: list[list[Ranking]]) -> bool:
    pairs = [(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True)]
    return all(a[0].tobytes() == b[0].tobytes() and a[1].tobytes() == b[1].tobytes() for a, b in pairs)


class Case:
    """Some settings with queries of their own, a local pool each, and a global one in another order that leaves a few out."""

    def __init__(self, seed: int, sizes: list[int], queries: list[int], depth: int, tied: bool, dimension: int = 4) -> None:
        rng = np.random.default_rng(seed)

        def draw(rows: int) -> np.ndarray:
            # Integers over a power of two tie often and exactly; copies of few vectors tie although their coordinates are any.
            plain = rng.standard_normal((rows, dimension))
            values = rng.integers(-2, 3, (rows, dimension)) / 4 if tied else plain[rng.integers(0, max(1, rows // 3), rows)]
            return values.astype(np.float32)

        self.candidates = draw(sum(sizes))
        self.queries, self.depth = [draw(count) for count in queries], depth
        starts = np.cumsum([0, *sizes])
        self.everything = rng.permutation(starts[-1])[: starts[-1] - rng.integers(0, 3)]
        self.places = [np.arange(starts[n], starts[n + 1]) for n in range(len(sizes))]
        self.stream = Laid([ArrayRows(self.candidates[starts[n] : starts[n + 1]]) for n in range(len(sizes))])
        whole = Among.of(self.everything)
        self.asked = [Asked(ArrayRows(q), [Among.of(p), whole], depth) for q, p in zip(self.queries, self.places, strict=True)]

    def expected(self) -> list[list[Ranking]]:
        pools = [[places, self.everything] for places in self.places]
        return [
            [brute_force(q, self.candidates, places, self.depth) for places in both] for q, both in zip(self.queries, pools, strict=True)
        ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    settings_=st.lists(st.tuples(st.integers(1, 45), st.integers(0, 7)), min_size=1, max_size=4),
    depth=st.integers(1, 12),
    tied=st.booleans(),
    tight=st.sampled_from([None, 0, 500, 3000]),
    half=st.booleans(),
)
def test_equals_brute_force_in_all_pools_whatever_the_memory(
    seed: int, settings_: list[tuple[int, int]], depth: int, tied: bool, tight: int | None, half: bool
):
    case = Case(seed, [size for size, _ in settings_], [count for _, count in settings_], depth, tied)
    memory = None
    if tight is not None and sum(count for _, count in settings_):
        with pytest.raises(TooLittle) as refused:
            Streaming(case.stream, case.asked, 1, small(Cpu(half)))
        memory = refused.value.needed + tight
    searching = Streaming(case.stream, case.asked, memory, small(Cpu(half)))
    assert memory is None or searching.plan.bytes <= memory
    assert same(searching.run(), case.expected())


@engines
def test_more_equal_candidates_than_the_first_scoring_keeps(engine: Callable[[], Engine]):
    """A matrix product scores equal vectors differently at different places of a block; the second scoring does not."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal((3, 48)).astype(np.float32)
    candidates = base[rng.integers(0, 3, 600)]
    candidates[rng.integers(0, 600, 40)] = np.nextafter(base[0], np.float32(9))  # a hair beside the others
    queries = np.concatenate([base, rng.standard_normal((4, 48)).astype(np.float32)])
    places = rng.permutation(600)
    found = Streaming(ArrayRows(candidates), [Asked(ArrayRows(queries), [Among.of(places)], 7)], engine=small(engine())).run()
    assert same(found, [[brute_force(queries, candidates, places, 7)]])


@engines
def test_every_engine_gives_the_same_bytes(engine: Callable[[], Engine]):
    case = Case(11, [900, 700], [30, 20], 10, tied=False, dimension=32)
    expected = Streaming(case.stream, case.asked).run()
    assert same(Streaming(case.stream, case.asked, engine=small(engine())).run(), expected)
    assert same(Streaming(case.stream, case.asked, engine=engine()).run(), expected)


def test_rounding_is_that_of_bfloat16():
    import torch

    rng = np.random.default_rng(3)
    vectors = (rng.standard_normal((200, 33)) * 10.0 ** rng.integers(-20, 20, (200, 33))).astype(np.float32)
    vectors[0] = np.float32(1) + np.arange(33, dtype=np.float32) * np.float32(2.0**-9)  # every second one lies in the middle
    expected = torch.from_numpy(vectors).bfloat16().float().numpy()
    assert halves.rounded(vectors).tobytes() == expected.tobytes()
    lengths = np.linalg.norm(vectors.astype(np.float64) - expected, axis=1)
    np.testing.assert_allclose(halves.lost(vectors), lengths, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dimension=st.sampled_from([1, 3, 64, 300]), count=st.sampled_from([1, 7, 400]), spread=st.booleans())
def test_a_product_of_rounded_vectors_is_as_wrong_as_the_bound_says_at_most(seed: int, dimension: int, count: int, spread: bool):
    rng = np.random.default_rng(seed)
    queries, candidates = (rng.standard_normal((n, dimension)).astype(np.float32) for n in (5, count))
    if spread:  # a few large entries among small ones
        candidates *= (10.0 ** rng.integers(-3, 3, candidates.shape)).astype(np.float32)
    best = [nothing(5, count)]
    lists = Cpu(half=True).lists(queries, best, 2)
    lists.see(Cpu(half=True).put(candidates), [Part(0, np.arange(count, dtype=np.uint32), np.arange(count, dtype=np.uint32))])
    first = np.take_along_axis(scores_of(lists.keys(0)), np.argsort(numbers_of(lists.keys(0)), axis=1), 1)
    true = queries.astype(np.float64) @ candidates.T.astype(np.float64)
    rounding, longest = float(halves.lost(candidates).max()), float(np.linalg.norm(candidates, axis=1).max())
    bound = slack(queries, longest, max(rounding, 1e-38))
    assert (true <= highest_left_out(first, bound, 1.0)).all()  # a score as a floor: what was scored no higher
    assert (np.abs(true - first) <= bound + 1.01 * halves.ROUNDING * np.abs(first)).all()


def test_a_search_that_began_in_halves_and_goes_on_without_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As when the second machine has no hardware for them: what the lists left out was rounded."""
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    rng = np.random.default_rng(4)
    queries = rng.standard_normal((6, 24)).astype(np.float32)
    candidates = np.concatenate([queries + rng.normal(0, 1e-4, (6, 24)) for _ in range(60)]).astype(np.float32)  # nearer than rounding sees
    asked = [Asked(ArrayRows(queries), [Among.run(0, 360)], 5)]
    with pytest.raises(Stop):
        Streaming(ArrayRows(candidates), asked, None, small(Cpu(half=True)), Saved(tmp_path, "x")).run(StopAfter(350))
    found = Streaming(ArrayRows(candidates), asked, None, small(), Saved(tmp_path, "x")).run()
    assert same(found, [[brute_force(queries, candidates, np.arange(360), 5)]])


def test_only_long_searches_are_rounded():
    assert not default_engine(WORTH - 1).half
    assert default_engine(WORTH).half == (True if torch_sees_a_gpu() else halves.quicker_here())


def test_one_pass_reads_every_candidate_once_for_all_pools():
    case = Case(1, [40, 50, 60], [3, 4, 5], 10, tied=False)
    assert Streaming(case.stream, case.asked).plan.reads == 150
    assert Streaming(case.stream, case.asked, engine=small()).plan.reads == 150


def test_passes_are_as_few_as_memory_allows():
    case = Case(1, [300, 300], [40, 40], 10, tied=False)
    one = Streaming(case.stream, case.asked, engine=one_shape()).plan
    assert len(Streaming(case.stream, case.asked, one.bytes, one_shape()).plan.passes) == 1
    less = Streaming(case.stream, case.asked, one.bytes - 1, one_shape()).plan
    assert (len(less.passes), less.reads) == (2, 1200)
    third = Streaming(case.stream, case.asked, memory_for(case.stream, case.asked, 3), one_shape()).plan
    assert (len(third.passes), third.reads) == (3, 1800)
    # Smaller blocks, which leave room for more queries, are better than another pass.
    assert len(Streaming(case.stream, case.asked, one.bytes - 1, small()).plan.passes) == 1


def test_local_pools_alone_are_not_read_for_the_queries_of_others():
    """Two settings that fit one at a time: a pass for each reads its own pool; filling passes up would read one of them twice."""
    case = Case(1, [320, 320], [40, 40], 10, tied=False)
    local = [Asked(one.queries, one.pools[:1], one.depth) for one in case.asked]
    memory = memory_for(case.stream, local, 2) + 20 * (80 + 24 * 42)  # one setting and a third of the other
    both = Streaming(case.stream, local, memory, one_shape()).plan
    assert both.passes == ((0, 40), (40, 80))
    assert both.reads == 640


def test_too_little_memory_says_how_much_would_do():
    case = Case(1, [300], [40], 10, tied=False)
    with pytest.raises(RecipeError, match=r"^memory 1MiB is too little for this search: give at least \d+MiB$"):
        Streaming(case.stream, case.asked, 1000)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[VectorStore]:
    """3000 and 2000 vectors in shards of 1000."""
    rng, made = np.random.default_rng(2), []
    for name, count in (("a", 3000), ("b", 2000)):
        store = VectorStore.create_or_resume(tmp_path_factory.mktemp("stores") / name, fingerprint="m", dimension=64)
        for start in range(0, count, 1000):
            ids = [f"{name}{n}" for n in range(start, start + 1000)]
            store.append(ids, ["text"] * 1000, rng.standard_normal((1000, 64)).astype(np.float32))
        made.append(store)
    return made


def of_stores(stores: list[VectorStore], queries: int) -> tuple[Laid, list[Asked]]:
    asked = np.random.default_rng(3).standard_normal((2, queries, 64)).astype(np.float32)
    parts, whole = [Among.run(0, 3000), Among.run(3000, 2000)], Among.run(0, 5000)
    return Laid(stores), [Asked(ArrayRows(asked[n]), [parts[n], whole], 50) for n in range(2)]


@pytest.mark.parametrize("least", [False, True])
def test_memory_is_what_the_plan_says(stores: list[VectorStore], least: bool):
    """Everything that NumPy allocates is counted here; the mapped files are let go of block by block."""
    engine = small(shapes=(Shape(1024, 128), Shape(512, 64)))
    stream, asked = of_stores(stores, 150 if least else 500)
    limit = Streaming(stream, asked, engine=engine).plan.bytes
    if least:
        with pytest.raises(TooLittle) as refused:
            Streaming(stream, asked, 1, engine)
        limit = refused.value.needed + 400_000
    searching = Streaming(stream, asked, limit, engine)
    assert (len(searching.plan.passes) > 1) == least
    stream.read(0, 1)
    tracemalloc.start()
    try:
        searching.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.3 * limit < peak <= limit


def test_files_are_closed_while_it_streams(stores: list[VectorStore]):
    stream, asked = of_stores(stores, 3)
    opened: list[int] = []

    class Watch:
        def advance(self, n: int = 1) -> None:
            opened.append(sum(len(store._mapped) for store in stores))

    Streaming(stream, asked, engine=small(shapes=(Shape(1024, 16),))).run(Watch())
    assert len(opened) >= 5
    assert max(opened) <= 3  # what a block of 1024 rows covers
    assert not any(store._mapped for store in stores)


class Stop(Exception):
    """An interruption."""


class StopAfter:
    """A bar that interrupts after some candidates."""

    def __init__(self, count: float) -> None:
        self.left, self.read = count, 0

    def advance(self, n: int = 1) -> None:
        self.left -= n
        self.read += n
        if self.left < 0:
            raise Stop


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("moment", [0.2, 0.5, 0.9])
def test_interrupted_and_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: int, moment: float):
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    case = Case(7, [150, 90], [24, 24], 10, tied=True)
    memory = memory_for(case.stream, case.asked, passes)

    def search() -> Streaming:
        return Streaming(case.stream, case.asked, memory, one_shape(), Saved(tmp_path, "label"))

    first = search()
    assert len(first.plan.passes) == passes
    bar = StopAfter(moment * first.plan.reads)
    with pytest.raises(Stop):
        first.run(bar)
    again, counted = search(), StopAfter(float("inf"))
    found = again.run(counted)
    assert same(found, case.expected())
    files = sorted(path.name for path in (tmp_path / "label").iterdir())
    assert files and all(name.startswith("found-") for name in files)
    last = search()
    assert last.plan.passes == ()
    assert same(last.run(), found)


def test_an_interrupted_pass_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    reads: list[int] = []

    class Counted(ArrayRows):
        def read(self, start: int, stop: int) -> np.ndarray:
            reads.append(start)
            return super().read(start, stop)

    rng = np.random.default_rng(0)
    candidates, queries = rng.standard_normal((160, 4)), rng.standard_normal((6, 4))
    asked = [Asked(ArrayRows(queries), [Among.run(0, 160)], 3)]
    with pytest.raises(Stop):
        Streaming(Counted(candidates), asked, None, small(), Saved(tmp_path, "x")).run(StopAfter(90))
    assert reads == [0, 16, 32, 48, 64, 80]
    reads.clear()
    # With other blocks than before, too: as when less memory is free.
    engine = small(shapes=(Shape(40, 4),))
    found = Streaming(Counted(candidates), asked, None, engine, Saved(tmp_path, "x")).run()
    assert reads == [96, 120]
    assert same(found, [[brute_force(queries.astype(np.float32), candidates.astype(np.float32), np.arange(160), 3)]])


def test_a_short_search_writes_nothing(tmp_path: Path):
    case = Case(7, [50], [4], 10, tied=True)
    Streaming(case.stream, case.asked, saved=Saved(tmp_path, "label")).run()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_a_search_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    case = Case(7, [50], [4], 10, tied=True)
    Streaming(case.stream, case.asked, saved=Saved(tmp_path, "label")).run()
    (path,) = (tmp_path / "label").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"found-0-4.npz: damaged .*delete it and search again$"):
        Streaming(case.stream, case.asked, saved=Saved(tmp_path, "label")).run()


def test_vectors_of_different_models_are_not_compared(tmp_path: Path):
    parts = [VectorStore.create_or_resume(tmp_path / name, fingerprint=name, dimension=2) for name in "ab"]
    for store in parts:
        store.append(["x"], ["text"], np.ones((1, 2), np.float32))
    with pytest.raises(StoreError, match=r"^vectors of different models cannot be searched together: .*model a.*model b.*one model$"):
        Laid(parts)
    with pytest.raises(StoreError, match="different models"):
        Streaming(parts[0], [Asked(parts[1], [Among.run(0, 1)], 1)])
    with pytest.raises(StoreError, match=r"^vectors of 2 and 3 numbers cannot be compared"):
        Streaming(parts[0], [Asked(ArrayRows(np.ones((1, 3), np.float32)), [Among.run(0, 1)], 1)])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_damaged_vectors_are_named(tmp_path: Path, value: float):
    """A file of the right size whose contents went bad."""
    store = VectorStore.create_or_resume(tmp_path / "s", fingerprint="m", dimension=4)
    for first in (0, 5):
        store.append([f"c{n}" for n in range(first, first + 5)], ["text"] * 5, np.ones((5, 4), np.float32))
    path = tmp_path / "s" / "00001.npy"
    vectors = np.load(path)
    vectors[2] = value
    np.save(path, vectors)
    asked = [Asked(ArrayRows(np.ones((1, 4), np.float32)), [Among.run(0, 10)], 1)]
    with pytest.raises(StoreError, match=r"^\S+00001.npy: the vector of 'c7' is zero or not finite; delete the folder and embed again$"):
        Streaming(VectorStore(tmp_path / "s"), asked).run()
    with pytest.raises(StoreError, match="'c7' is zero or not finite"):
        VectorStore(tmp_path / "s").take(np.array([1, 7]))
