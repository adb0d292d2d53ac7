"""Our models as mteb's, on mteb's own mock tasks; our benchmarks as mteb's tasks: scores are those of our own evaluation."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.mocks import mock_tasks
from mteb.models import CrossEncoderProtocol, EncoderProtocol, SearchProtocol
from mteb.types import PromptType
from torch.utils.data import DataLoader

from tiny import checkpoint, embedder, picture, text_checkpoint
from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import MediaError, ModelError, RecipeError, RenderError
from umr.evaluation import evaluate
from umr.evaluation.metrics import average_precision, hit_at, judge, ndcg_at
from umr.evaluation.mteb import BenchmarkTask, MtebEncoder, MtebReranker, benchmark_tasks, named_tasks, run, score_rows
from umr.evaluation.mteb.instructions import Instructions
from umr.evaluation.rerank import Reranking
from umr.items import Image, Item, Side
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.progress import quiet
from umr.protocols import Vectors
from umr.rendering.pairs import Pair
from unit.any_tree import SETTINGS, write_any_tree
from unit.text_set import write_set

WITHOUT_SOUND = [
    task
    for task in vars(mock_tasks).values()
    if isinstance(task, type) and issubclass(task, AbsTaskRetrieval) and "audio" not in task.metadata.modalities
]
WITH_LISTS = [task for task in WITHOUT_SOUND if "Reranking" in task.metadata.type or task.metadata.type == "VisionCentricQA"]
KINDS = ("t2t", "i2i", "i2t", "t2i", "it2t", "it2i", "i2it", "t2it", "it2it")


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_any_tree(tmp_path_factory.mktemp("any") / "any")


class Stored:
    """An encoder whose vectors are rounded as a store rounds them, so that mteb, which keeps fp32, ranks the same vectors as we do."""

    def __init__(self, encoder: Embedder) -> None:
        self.encoder, self.fingerprint, self.dimension = encoder, encoder.fingerprint, encoder.dimension

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        half_ND = self.encoder.encode(items, side, instruction).astype(np.float16).astype(np.float32)
        return half_ND / np.linalg.norm(half_ND, axis=1, keepdims=True)


class Recorder:
    """An encoder that remembers what it is given."""

    fingerprint, dimension = "recorder", 4

    def __init__(self) -> None:
        self.asked: list[tuple[str, Item, str | None]] = []

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        assert side == "query" or instruction is None
        wordings = instruction if isinstance(instruction, list) else [instruction] * len(items)
        self.asked += [(side, item, wording) for item, wording in zip(items, wordings, strict=True)]
        return np.eye(4, dtype=np.float32)[[len(item.text) % 4 for item in items]]

    def of(self, side: Side) -> dict[str | None, tuple[Item, str | None]]:
        return {item.id: (item, wording) for one, item, wording in self.asked if one == side}


class MadeTask(AbsTaskRetrieval):
    """A task of mteb's from tables in memory."""

    def __init__(self, category: str, queries: dict[str, list[Any]], corpus: dict[str, list[Any]], prompt: Any = None) -> None:
        kinds = sorted({{"t": "text", "i": "image", "v": "video", "a": "audio"}[letter] for letter in category.replace("2", "")})
        self.metadata = TaskMetadata(
            name=f"Made-{category}",
            description="made",
            type="Any2AnyRetrieval",
            category=category,
            modalities=kinds,
            dataset={"path": "none", "revision": "1"},
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt=prompt,
        )
        self.tables = queries, corpus
        super().__init__()

    def load_data(self, **options: Any) -> None:
        queries, corpus = map(Dataset.from_dict, self.tables)
        right = {qid: {did: 1} for qid, did in zip(queries["id"], corpus["id"], strict=False)}
        self.dataset = {"default": {"test": RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=right, top_ranked=None)}}
        self.data_loaded = True

    def unload_data(self) -> None:
        """Keep the metadata, which are this object's and not its class's."""
        self.data_loaded = False


def made_task(category: str, prompt: Any = None) -> MadeTask:
    """Four queries and eight candidates of the kinds that a category names."""
    columns = []
    for letters, count, width in zip(category.split("2"), (4, 8), (96, 64), strict=True):
        table: dict[str, list[Any]] = {"id": [f"{width}-{number}" for number in range(count)]}
        if "i" in letters:
            table["image"] = [picture(width, 64, number) for number in range(count)]
        if "t" in letters:
            table["text"] = [f"{'a ring ' * (number % 3)}circle {number * 37} left" for number in range(count)]
        columns.append(table)
    return MadeTask(category, *columns, prompt=prompt)


def plain_items(rows: Dataset) -> list[Item]:
    """What the rows of a task should become, without the adapter."""
    found = []
    for row in rows:
        text = row.get("text")
        if isinstance(text, list):
            text = "; ".join(f"{turn['role']}: {turn['content']}" for turn in text)
        if row.get("title"):
            text = f"{row['title']} {text}"
        found.append(Item.of(text=text, image=row.get("image"), id=row["id"]))
    return found


def plain_scores(encoder: Any, task: Any, subset: str, split: str, instruction: str) -> dict[str, float]:
    """Scores by our own metrics over all cosines, or those of the lists to rerank."""
    data = task.dataset[subset][split]
    queries, candidates = data["queries"], plain_items(data["corpus"])
    wordings = queries["instruction"] if "instruction" in queries.column_names else [instruction] * len(queries)
    cosines_QN = encoder.encode(plain_items(queries), "query", list(wordings)) @ encoder.encode(candidates).T
    rankings = {}
    for row, qid in enumerate(queries["id"]):
        pool = [n for n, one in enumerate(candidates) if not data["top_ranked"] or one.id in data["top_ranked"][qid]]
        rankings[qid] = [candidates[n].id for n in sorted(pool, key=lambda n, row=row: -cosines_QN[row, n])]
    judged = judge(list(queries["id"]), rankings, data["relevant_docs"], 10)
    found = {"ndcg_at_10": ndcg_at(judged, 10), "hit_rate_at_1": hit_at(judged, 1), "map_at_10": average_precision(judged)}
    return {name: float(values.mean()) for name, values in found.items()}


def compared(found: Any, expected: dict[str, float]) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_the_wrappers_are_what_mteb_asks_for() -> None:
    encoder, reranker = MtebEncoder(embedder("qwen3-vl")), MtebReranker(Reranker.load(checkpoint("qwen3-vl"), device="cpu"))
    assert isinstance(encoder, EncoderProtocol) and not isinstance(encoder, CrossEncoderProtocol | SearchProtocol)
    assert isinstance(reranker, CrossEncoderProtocol) and not isinstance(reranker, EncoderProtocol | SearchProtocol)
    for model, inner in ((encoder, encoder.encoder), (reranker, reranker.reranker)):
        assert (model.mteb_model_meta.revision, model.mteb_model_meta.modalities) == (inner.fingerprint, ["text", "image", "video"])
    assert encoder.mteb_model_meta.embed_dim == encoder.encoder.dimension
    assert MtebEncoder(Embedder.load(text_checkpoint(), device="cpu")).mteb_model_meta.modalities == ["text"]
    one_1D, other_1D = np.array([[3.0, 4.0]], np.float32), np.array([[0.0, 2.0]], np.float32)
    assert float(encoder.similarity(one_1D, other_1D)[0, 0]) == pytest.approx(0.8)
    assert float(encoder.similarity_pairwise(one_1D, other_1D)[0]) == pytest.approx(0.8)


def test_mteb_has_mock_tasks_of_many_kinds() -> None:
    assert {task.metadata.category for task in WITHOUT_SOUND} == {"t2t", "i2t", "t2i", "it2i", "t2v", "v2t"}
    assert len(WITHOUT_SOUND) >= 13 and len(WITH_LISTS) >= 6


@pytest.mark.parametrize("kind", WITHOUT_SOUND, ids=lambda kind: kind.__name__)
def test_mock_tasks_give_the_scores_that_our_metrics_give(kind: type[AbsTaskRetrieval], tmp_path: Path) -> None:
    task, encoder = kind(), embedder("qwen3-vl")
    task.load_data()
    results = run(MtebEncoder(encoder, instructions={task.metadata.name: "Find it."}), [task], tmp_path)
    found = results.task_results[0].scores
    assert set(found) == set(task.metadata.eval_splits) and not results.exceptions
    for split, subsets in found.items():
        assert {one["hf_subset"] for one in subsets} == set(task.hf_subsets)
        for one in subsets:
            assert 0 < one["main_score"] <= 1
            if "video" not in task.metadata.modalities:
                compared(one, plain_scores(encoder, task, one["hf_subset"], split, "Find it."))


@pytest.mark.parametrize("category", KINDS)
def test_any_kind_on_either_side(category: str, tmp_path: Path) -> None:
    task, encoder = made_task(category, prompt={"query": "Find it."}), embedder("qwen3-vl")
    task.load_data()
    found = run(MtebEncoder(encoder), [task], tmp_path).task_results[0].scores["test"][0]
    compared(found, plain_scores(encoder, task, "default", "test", "Find it."))


@pytest.mark.parametrize("kind", WITH_LISTS, ids=lambda kind: kind.__name__)
def test_mock_tasks_with_lists_take_a_reranker(kind: type[AbsTaskRetrieval], tmp_path: Path) -> None:
    task, reranker = kind(), Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="short")
    task.load_data()
    results = run(MtebReranker(reranker, instructions={task.metadata.type: "Find it."}), [task], tmp_path).task_results[0]
    for split, subsets in results.scores.items():
        for one in subsets:
            data = task.dataset[one["hf_subset"]][split]
            candidates = {item.id: item for item in plain_items(data["corpus"])}
            rankings = {}
            for query, row in zip(plain_items(data["queries"]), data["queries"], strict=True):
                dids = data["top_ranked"][query.id]
                pairs = [Pair(query, row.get("instruction") or "Find it.", candidates[did]) for did in dids]
                rankings[query.id] = [dids[place] for place in np.argsort(-reranker.score_pairs(pairs), kind="stable")]
            judged = judge(list(rankings), rankings, data["relevant_docs"], 10)
            compared(one, {"ndcg_at_10": float(ndcg_at(judged, 10).mean()), "map_at_10": float(average_precision(judged).mean())})


def test_a_benchmark_through_mteb_has_our_scores(tree: Path, tmp_path: Path) -> None:
    encoder = Stored(embedder("qwen3-vl"))
    ours = {one.setting: one.pools for one in evaluate(encoder, tree).settings}
    chosen = benchmark_tasks(tree) + benchmark_tasks(tree, pools=["global"], tasks=["set8_task8", "set9_task9"])
    assert len(chosen) == len(SETTINGS) + 2 and len({task.metadata.name for task in chosen}) == len(chosen)
    names = {"ndcg@10": "ndcg_at_10", "hit@1": "hit_rate_at_1", "hit@5": "hit_rate_at_5", "hit@10": "hit_rate_at_10", "mrr": "mrr_at_1000"}
    seen = set()
    for task, result in zip(chosen, run(MtebEncoder(encoder), chosen, tmp_path).task_results, strict=True):
        _, setting, pool, _ = task.metadata.name.split("-")
        found, expected = result.scores["test"][0], ours[setting][pool].metrics
        for name in names if pool == "local" else set(names) - {"mrr"}:
            assert 100 * found[names[name]] == pytest.approx(expected[name], abs=1e-3), (task.metadata.name, name)
        assert found["main_score"] == found["hit_rate_at_5"]
        seen.add(round(expected["ndcg@10"], 3))
    assert len(seen) > 6  # neither all right nor all wrong


def test_world_through_mteb_has_our_scores(world: Path, tmp_path: Path) -> None:
    encoder, setting = Stored(embedder("qwen3-vl")), "edits_task7"
    ours = evaluate(encoder, world, pools=["local"], tasks=[setting], split="val", depth=1000).settings[0].pools["local"].metrics
    chosen = benchmark_tasks(world, "val", tasks=[setting])
    found = run(MtebEncoder(encoder), chosen, tmp_path).task_results[0].scores["val"][0]
    assert chosen[0].metadata.category == "it2i" and ours["mrr"] > 0
    assert [100 * found[name] for name in ("ndcg_at_10", "hit_rate_at_5", "hit_rate_at_10", "mrr_at_1000")] == pytest.approx(
        [ours[name] for name in ("ndcg@10", "hit@5", "hit@10", "mrr")], abs=1e-3
    )


@pytest.mark.parametrize("layout", [False, True], ids=["beir", "mteb"])
def test_a_text_set_through_mteb_has_our_scores(layout: bool, tmp_path: Path) -> None:
    root, encoder = write_set(tmp_path / "things", mteb=layout), Stored(embedder("qwen3-vl"))
    ours = evaluate(encoder, root).settings[0].pools["local"].metrics
    [task] = benchmark_tasks(root)
    found = run(MtebEncoder(encoder), [task], tmp_path / "out").task_results[0].scores["test"][0]
    assert (task.metadata.type, task.metadata.main_score, task.ignore_identical_ids) == ("Retrieval", "ndcg_at_10", True)
    assert [100 * found[name] for name in ("ndcg_at_10", "hit_rate_at_5", "recall_at_10")] == pytest.approx(
        [ours[name] for name in ("ndcg@10", "hit@5", "recall@10")], abs=1e-3
    )


def test_two_stages_end_in_the_order_of_the_reranker_alone(tree: Path, tmp_path: Path) -> None:
    encoder, reranker = Stored(embedder("qwen3-vl")), Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="short")
    setting = "set7_task7"
    ours = evaluate(encoder, tree, pools=["local"], tasks=[setting], depth=10, rerank=Reranking(reranker, 10)).rerank
    [task] = benchmark_tasks(tree, tasks=[setting])
    mteb.evaluate(MtebEncoder(encoder), task, cache=None, prediction_folder=tmp_path, show_progress_bar=False)
    again = task.convert_to_reranking(tmp_path, top_k=10)
    found = mteb.evaluate(MtebReranker(reranker), again, cache=None, show_progress_bar=False)[0].scores["test"][0]
    assert ours is not None
    assert 100 * found["main_score"] == pytest.approx(ours.alone[setting]["local"], abs=1e-3)


def test_image_and_text_of_a_row_are_one_item_and_only_queries_have_instructions(tmp_path: Path) -> None:
    recorder = Recorder()
    task = made_task("it2it", prompt={"query": "Find it.", "document": "never shown"})
    run(MtebEncoder(recorder), [task], tmp_path)
    assert {item.modality for item, _ in recorder.of("query").values()} == {"image,text"}
    assert {wording for _, wording in recorder.of("query").values()} == {"Find it."}
    item = recorder.of("candidate")["64-5"][0]
    assert (item.text, item.parts[0].open().tobytes()) == ("a ring a ring circle 185 left", picture(64, 64, 5).tobytes())


def test_images_reach_the_model_as_they_are_on_disk(tree: Path, tmp_path: Path) -> None:
    recorder, setting = Recorder(), "set9_task9"
    run(MtebEncoder(recorder), benchmark_tasks(tree, tasks=[setting, "set8_task8"]), tmp_path)
    for name in (setting, "set8_task8"):
        benchmark = MBeir(tree)
        for item in benchmark.pool(name, "test").items():
            assert recorder.of("candidate")[item.id][0].digest == item.digest
        for query in (benchmark.queries(name, "test")[place] for place in range(6)):
            assert recorder.of("query")[query.qid][0].digest == query.item.digest
            assert recorder.of("query")[query.qid][1] == query.instructions[0]


def test_instructions_of_rows_and_several_wordings(tree: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    run(MtebEncoder(recorder), [mock_tasks.MockInstructionRetrieval()], tmp_path)
    assert {qid: (item.text, wording) for qid, (item, wording) in recorder.of("query").items()} == {
        "q1": ("This is a test sentence", "This is a test instruction"),
        "q2": ("This is another test sentence", "This is another test instruction"),
    }
    for wording in ("seeded", "none"):
        recorder = Recorder()
        run(MtebEncoder(recorder), benchmark_tasks(tree, tasks=["set0_task0"], instruction=wording), tmp_path)
        found = {wording for _, wording in recorder.of("query").values()}
        assert found == ({"Find the image.", "Which image fits."} if wording == "seeded" else {None})


@pytest.mark.parametrize(
    ("given", "prompt", "category", "expected"),
    [
        ({}, {"query": "Own."}, "t2i", "Own."),
        ({}, "Own.", "t2i", "Own."),
        ({}, {"document": "Other side."}, "t2i", "Retrieve images based on user query."),
        ({}, None, "i2t", "Retrieve text based on user query."),
        ({}, None, "t2it", "Retrieve images with text based on user query."),
        ({"Any2AnyRetrieval": "By type."}, "Own.", "t2i", "By type."),
        ({"Any2AnyRetrieval": "By type.", "Made-t2i": "By name."}, "Own.", "t2i", "By name."),
        ({"Made-t2i": None}, "Own.", "t2i", None),
    ],
)
def test_which_instruction(given: dict[str, str | None], prompt: Any, category: str, expected: str | None) -> None:
    assert Instructions(given).of(made_task(category, prompt).metadata) == expected
    if not given and not (isinstance(prompt, str) or (prompt or {}).get("query")):
        assert Instructions(default=False).of(made_task(category, prompt).metadata) is None


def test_a_row_without_content_and_a_row_with_several_images(tmp_path: Path) -> None:
    recorder = Recorder()
    candidates = {"id": ["a", "b"], "text": ["", "some"]}
    run(MtebEncoder(recorder), [MadeTask("t2t", {"id": ["q"], "text": ["what"]}, candidates)], tmp_path)
    assert [recorder.of("candidate")[did][0].text for did in "ab"] == [" ", "some"]
    queries = {"id": ["q"], "image": [[picture(32, 32, 1), picture(32, 32, 2)]], "text": ["what"]}
    run(MtebEncoder(recorder), [MadeTask("it2t", queries, candidates)], tmp_path)
    assert [type(part) for part in recorder.of("query")["q"][0].parts[:2]] == [Image, Image]


def test_results_are_kept_by_model_instructions_and_data(tree: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    tasks = benchmark_tasks(tree, tasks=["set1_task1"])
    for _ in range(2):
        found = run(MtebEncoder(recorder), tasks, tmp_path)
    assert len(recorder.asked) == 18  # the second time nothing was embedded
    assert next(score_rows(found, tasks))[:3] == (tasks[0].metadata.name, "test", "hit_rate_at_5")
    run(MtebEncoder(recorder, instructions={"Retrieval": "Other."}), tasks, tmp_path)
    assert len(recorder.asked) == 36
    other = write_any_tree(tmp_path / "again" / "any")
    path = other / "qrels" / "test" / "mbeir_set1_task1_test_qrels.txt"
    path.write_text(path.read_text().replace("1:0 0 1:0", "1:0 0 1:7"))
    assert benchmark_tasks(other, tasks=["set1_task1"])[0].metadata.name != tasks[0].metadata.name


def test_what_is_refused(tree: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(RecipeError, match="the instruction of 'Retreival' has no effect: it is neither"):
        run(MtebEncoder(recorder, instructions={"Retreival": "x"}), benchmark_tasks(tree), tmp_path)
    with pytest.raises(ModelError, match="task MockAny2AnyRetrievalA2T has audio, which this model does not take"):
        run(MtebEncoder(recorder), [mock_tasks.MockAny2AnyRetrievalA2TTask()], tmp_path)
    with pytest.raises(RecipeError, match="mteb: CrossEncoder search requires top_ranked"):
        run(MtebReranker(Reranker.load(checkpoint("qwen3-vl"), device="cpu")), [mock_tasks.MockRetrievalTask()], tmp_path)
    with pytest.raises(RecipeError, match="mteb has no task 'NFCorpse'"):
        named_tasks(["NFCorpse"])
    with pytest.raises(RecipeError, match="names like 'organization/model'"):
        MtebEncoder(recorder, "model")
    options: Any = {"task_metadata": made_task("t2t").metadata, "hf_split": "test", "hf_subset": "default", "prompt_type": PromptType.query}
    with pytest.raises(RecipeError, match="precision='int8' has no effect"):
        MtebEncoder(recorder).encode(DataLoader([{"text": "a"}]), precision="int8", **options)
    with pytest.raises(RenderError, match="sounds"):
        MtebEncoder(recorder).encode(DataLoader([{"audio": 1}]), **options)
    for kind in ("image", "video"):
        with pytest.raises(MediaError, match=f"an? {kind} in mteb's batch is a Tensor"):
            MtebEncoder(recorder).encode(DataLoader([{kind: 1}]), **options)


def test_without_the_extra_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("umr.evaluation.mteb") or name == "mteb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ModelError, match="pip install"):
        importlib.import_module("umr.evaluation.mteb")
    assert main(["mteb", "--model", "m", "--task", "NFCorpus", "--out", "o"]) == 1
    assert capsys.readouterr().err == 'umr: error: mteb is not installed: pip install "umr[mteb]"\n'


def test_the_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mteb", "--model", checkpoint("qwen3-vl"), "--benchmark", tree, "--tasks", "set0_task0", "--out", tmp_path / "out"]
    assert main([str(word) for word in [*words, "--instruction", "Any2AnyRetrieval=Find it."]]) == 0
    shown = capsys.readouterr().out
    assert "any-set0_task0-local-" in shown and "hit_rate_at_5" in shown
    assert len(list(tmp_path.glob("out/results/umr__*/*/experiments/*/any-set0_task0-local-*.json"))) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--task", "NFCorpus"], "give a --model or a --reranker, one of them"),
        (["--model", "m", "--reranker", "r", "--task", "NFCorpus"], "give a --model or a --reranker, one of them"),
        (["--model", "m"], "there is nothing to measure: give a --task or a --benchmark"),
        (["--model", "m", "--task", "t", "--split", "val"], "--pool, --tasks and --split have no effect without a --benchmark"),
        (["--reranker", "m", "--benchmark", "t"], "a reranker needs candidates to rerank"),
        (["--model", "m", "--task", "NFCorpus", "--instruction", "x"], "--instruction wants NAME=TEXT"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mteb", "--out", "o", *words]) == 1
    assert capsys.readouterr().err.startswith(f"umr: error: {line}")


def test_tasks_can_be_loaded_again_after_mteb_forgot_them(tree: Path) -> None:
    [task] = benchmark_tasks(tree, tasks=["set0_task0"])
    task.load_data()
    task.unload_data()
    assert isinstance(task, BenchmarkTask) and not task.data_loaded and task.metadata.main_score == "hit_rate_at_5"
    task.load_data()
    assert len(task.dataset["default"]["test"]["corpus"]) == 12
