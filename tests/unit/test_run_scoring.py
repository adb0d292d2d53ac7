"""Scoring run files: against ir-measures, against a literal re-implementation of UniIR's scoring, and with bad files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.evaluation import evaluate
from umr.evaluation.outputs import uniir_table, write_outputs
from umr.evaluation.run_scoring import score_runs
from umr.progress import quiet
from unit.mbeir_fixture import BagEncoder, write_tree
from unit.text_set import write_set

SETTINGS = {"webqa_task1": ("text", "text", 2), "fashion200k_task3": ("image", "text", 1)}
"""Setting -> modalities and dataset id; one is measured at 5, the other at 10."""
QUERIES, POOL = 6, 24


def write(path: Path, lines) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def candidates(dataset: int) -> list[str]:
    return [f"{dataset}:{number}" for number in range(1, POOL + 1)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> MBeir:
    """Two settings whose queries have none to six positives, one of them in the other pool, and grades."""
    root, draw, everything = tmp_path_factory.mktemp("runs") / "M-BEIR", random.Random(0), []
    for name, (kind, _, dataset) in SETTINGS.items():
        pool = [{"did": did, "txt": f"text {did}", "img_path": None, "modality": "text"} for did in candidates(dataset)]
        everything += pool
        queries, judged = [], []
        for number in range(QUERIES):
            query = {"qid": f"{dataset}:{number}", "query_txt": "words", "query_img_path": None, "query_modality": kind}
            if kind == "image":
                query |= {"query_txt": None, "query_img_path": "image.png"}
            queries.append(query)
            positives = draw.sample(candidates(dataset), number)
            judged += [f"{query['qid']} 0 {did} {draw.choice((1, 1, 2))} {name[-1]}" for did in positives]
            judged.append(f"{query['qid']} 0 {next(did for did in candidates(dataset) if did not in positives)} 0 {name[-1]}")
        judged.append(f"{dataset}:5 0 {3 - dataset}:7 1 {name[-1]}")  # of the other dataset: unreachable in the local pool
        write(root / "query" / "test" / f"mbeir_{name}_test.jsonl", map(json.dumps, queries))
        write(root / "qrels" / "test" / f"mbeir_{name}_test_qrels.txt", judged)
        write(root / "cand_pool" / "local" / f"mbeir_{name}_cand_pool.jsonl", map(json.dumps, pool))
    write(root / "cand_pool" / "global" / "mbeir_union_test_cand_pool.jsonl", map(json.dumps, everything))
    return MBeir(root)


def a_run(draw: random.Random, dataset: int, task: int | None = None) -> list[str]:
    """Lines of a run with many equal scores, in which some queries are missing and lists differ in length."""
    lines = []
    for number in range(QUERIES):
        if draw.random() < 0.2:
            continue
        found = draw.sample(candidates(dataset), draw.randint(1, 15))
        scores = sorted((draw.choice((0.1, 0.25, 0.5, 0.75, 0.9)) for _ in found), reverse=True)
        lines += [f"{dataset}:{number} Q0 {did} {rank} {score} any" for rank, (did, score) in enumerate(zip(found, scores, strict=True), 1)]
    return [line if task is None else f"{line} {task}" for line in lines] or a_run(draw, dataset, task)


def uniir(run: list[str], qrels: list[str], queries: list[str]) -> dict[str, float]:
    """UniIR's "Recall@k" as it is computed there: ids as numbers, positives above zero, a hit or none, a mean rounded to four digits."""

    def number(id: str, per_dataset: int) -> int:
        dataset, _, within = id.partition(":")
        return int(dataset) * per_dataset + int(within)

    def name(value: int, per_dataset: int) -> str:
        return f"{value // per_dataset}:{value % per_dataset}"

    relevant: dict[str, list[str]] = {}
    for line in qrels:
        qid, _, did, relevance, _ = line.split()
        if int(relevance) > 0:
            relevant.setdefault(qid, []).append(did)
    retrieved: dict[int, list[int]] = {number(qid, 500_000): [] for qid in queries}
    for line in run:
        qid, _, did, _, _, _ = line.split()[:6]
        retrieved[number(qid, 500_000)].append(number(did, 10_000_000))
    means = {}
    for k in (1, 5, 10, 20, 50):
        hits = []
        for hashed, indices in retrieved.items():
            right = relevant.get(name(hashed, 500_000), [])
            first = {name(index, 10_000_000) for index in indices[:k]}
            hits.append(1.0 if right and first & set(right) else 0.0)
        means[f"Recall@{k}"] = round(sum(hits) / len(hits), 4)
    return means


def test_hit_rates_are_uniirs_on_a_thousand_random_runs(tree: MBeir, tmp_path: Path):
    draw, seen = random.Random(1), set()
    for trial in range(1000):
        setting, (_, _, dataset) = draw.choice(list(SETTINGS.items()))
        lines = a_run(draw, dataset, int(setting[-1]) if trial % 2 else None)
        expected = uniir(lines, tree.qrels_path(setting, "test").read_text().splitlines(), tree.queries(setting, "test").ids)
        draw.shuffle(lines)  # the order of lines says nothing; ranks do
        result = score_runs({"local": [write(tmp_path / "run.txt", lines)]}, tree)
        (one,) = result.settings
        for k in (1, 5, 10):
            assert round(one.pools["local"].metrics[f"hit@{k}"] / 100, 4) == expected[f"Recall@{k}"], (trial, k)
        for row in uniir_table(result).splitlines()[1:]:
            cells = row.split("\t")
            assert float(cells[6]) == expected[cells[4]]
        assert one.main_metric == ("hit@10" if dataset == 1 else "hit@5")
        seen.add(expected["Recall@5"])
    assert len(seen) > 4  # from none to nearly all


@pytest.mark.parametrize("order", [None, "score"])
def test_every_metric_is_that_of_ir_measures(tree: MBeir, tmp_path: Path, order):
    import ir_measures

    names = {"hit@1": "Success@1", "hit@5": "Success@5", "hit@10": "Success@10", "recall@5": "R@5", "recall@10": "R@10"}
    measures = {ours: ir_measures.parse_measure(theirs) for ours, theirs in {**names, "ndcg@10": "nDCG@10", "mrr": "RR"}.items()}
    draw = random.Random(2)
    for trial in range(60):
        lines = a_run(draw, 2)
        if order is None:  # trec_eval breaks ties by id, ranks break them here: compare where there are none
            lines = [" ".join([*line.split()[:4], str(-int(line.split()[3])), "any"]) for line in lines]
        path = write(tmp_path / "run.txt", lines)
        result = score_runs({"local": [path]}, tree, order=order)
        found = result.queries["webqa_task1", "local"]
        qrels = {qid: dict(of) for qid, of in tree.qrels("webqa_task1", "test").items() if of}
        theirs = {
            (one.query_id, one.measure): one.value
            for one in ir_measures.iter_calc(measures.values(), qrels, list(ir_measures.read_trec_run(str(path))))
        }
        for name, measure in measures.items():
            for qid, value in zip(found.qids, found.values[name], strict=True):
                assert value == pytest.approx(theirs.get((qid, measure), 0.0), abs=1e-9), (trial, name, qid)
            mean = sum(theirs.get((qid, measure), 0.0) for qid in found.qids) / QUERIES
            assert result.settings[0].pools["local"].metrics[name] == pytest.approx(100 * mean, abs=1e-7)


def test_ranks_or_scores_decide(tree: MBeir, tmp_path: Path):
    right = [line.split()[2] for line in tree.qrels_path("webqa_task1", "test").read_text().splitlines() if line.startswith("2:1 ")]
    wrong = next(did for did in candidates(2) if did not in right)
    path = write(tmp_path / "run.txt", [f"2:1 Q0 {wrong} 1 0.2 a", f"2:1 Q0 {right[0]} 2 0.7 a"])
    with pytest.raises(DataError, match=r"run\.txt:2: has a better score than the rank before it"):
        score_runs({"local": [path]}, tree)
    hits = {
        order: score_runs({"local": [path]}, tree, order=order).settings[0].pools["local"].metrics["hit@1"] for order in ("rank", "score")
    }
    assert hits == {"rank": 0, "score": pytest.approx(100 / 6)}


def test_what_an_evaluation_writes_scores_the_same(tmp_path: Path):
    root = write_tree(tmp_path / "tree")
    with quiet():
        result = evaluate(BagEncoder(), root)
    write_outputs(result, tmp_path / "out")
    for suffix in ("trec", "uniir"):
        runs = {pool: sorted((tmp_path / "out" / "runs").glob(f"*_{pool}.{suffix}")) for pool in ("local", "global")}
        again = score_runs(runs, root)
        assert again.settings == result.settings
        assert again.averages == result.averages and again.groups == result.groups
        assert again.dimension is None and again.fingerprint.startswith("run:")
        assert {key: run.rankings() for key, run in again.runs.items()} == {key: run.rankings() for key, run in result.runs.items()}


def test_queries_without_results_score_zero_and_are_stamped(tree: MBeir, tmp_path: Path):
    right = next(iter(tree.qrels("webqa_task1", "test")["2:1"]))
    result = score_runs({"global": [write(tmp_path / "run.txt", [f"2:1 Q0 {right} 1 1 a"])]}, tree)
    (one,) = result.settings
    found = one.pools["global"]
    assert one.queries == 6 and found.metrics["hit@5"] == pytest.approx(100 / 6)
    assert found.stamps["queries without results"] == "5 of 6" and found.stamps["few results a query"] == "at most 1"
    assert found.modality is not None and found.modality.errors == {"right": 1, "type1": 0, "type2": 0, "type3": 0}
    assert result.queries["webqa_task1", "global"].outcomes == (None, "right", None, None, None, None)
    assert "queries without results" in str(result)


def test_files_of_several_settings_and_a_choice_of_tasks(tree: MBeir, tmp_path: Path):
    draw = random.Random(3)
    one, two = a_run(draw, 2), a_run(draw, 1)
    both = write(tmp_path / "both.txt", one + two)
    whole = score_runs({"local": [both]}, tree)
    assert [found.setting for found in whole.settings] == ["webqa_task1", "fashion200k_task3"]
    parts = [write(tmp_path / "one.txt", one), write(tmp_path / "two.txt", two)]
    assert score_runs({"local": parts}, tree).settings == whole.settings
    assert score_runs({"local": [both]}, tree, ["fashion200k_task3"]).settings == whole.settings[1:]
    with pytest.raises(DataError, match=r"one\.txt: has no query of fashion200k_task3"):
        score_runs({"local": parts[:1]}, tree, ["fashion200k_task3"])
    with pytest.raises(DataError, match=r"one\.txt:1: has candidate '2:\d+' twice"):
        score_runs({"local": [parts[0], parts[0]]}, tree)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2:0 Q0 2:9 1 0.5", "needs 6 columns .* has 5"),
        ("2:0 Q0 2:9 1 0.5 a 1 more", "needs 6 columns .* has 8"),
        ("2:0 Q0 2:9 first 0.5 a", "rank must be a whole number, not 'first'"),
        ("2:0 Q0 2:9 1 high a", "score must be a number, not 'high'"),
        ("2:0 Q0 2:9 1 nan a", "score must be a finite number, not 'nan'"),
        ("2:0 Q0 2:9 1 -inf a", "score must be a finite number"),
        ("8:0 Q0 2:9 1 0.5 a", "query '8:0' is none of the queries of .*another benchmark or split"),
        ("2:0 Q0 2:99 1 0.5 a", r"candidate '2:99' is not in .*webqa_task1_cand_pool\.jsonl"),
        ("2:0 Q0 1:9 1 0.5 a", "candidate '1:9' is not in .*another pool"),
        ("2:1 Q0 2:3 9 0.1 a", "has candidate '2:3' twice"),
        ("2:1 Q0 2:8 2 0.1 a", "has rank 2 twice"),
        ("2:1 Q0 2:8 9 0.9 a", "has a better score than the rank before it"),
        ("2:0 Q0 2:9 1 0.5 a 3", "says task 3, but query '2:0' is of webqa_task1"),
    ],
)
def test_bad_lines_are_named(tree: MBeir, tmp_path: Path, line: str, words: str):
    path = write(tmp_path / "run.txt", ["2:1 Q0 2:3 1 0.5 a", "", "2:1 Q0 2:4 2 0.5 a", line])
    with pytest.raises(DataError, match=rf"run\.txt:4: {words}") as caught:
        score_runs({"local": [path]}, tree)
    assert "\n" not in str(caught.value)


def test_bad_files_and_arguments(tree: MBeir, tmp_path: Path):
    empty, binary = write(tmp_path / "empty.txt", [""]), tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, words in ((empty, "has no lines"), (binary, "not valid UTF-8"), (tmp_path / "none.txt", "cannot be read")):
        with pytest.raises(DataError, match=words):
            score_runs({"local": [path]}, tree)
    for runs in ({}, {"village": [empty]}):
        with pytest.raises(RecipeError, match="runs must be files of local or global pools"):
            score_runs(runs, tree)


def test_the_command_scores_without_a_model(tree: MBeir, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "run.txt", a_run(random.Random(4), 2))
    command = ["eval", "--benchmark", str(tree.root), "--run", str(path)]
    assert main([*command, "--pool", "local", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "one.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "webqa_task1" in shown and "a: pool size differs" in shown and "15 of M-BEIR's 16 are missing" in shown
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "out" / "result.json").read_bytes()
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["model"].keys() == {"fingerprint"} and content["instruction"] == "unknown"
    for words, message in (
        ([], "--run needs one --pool"),
        (["--pool", "local", "--pool", "global"], "--run needs one --pool"),
        (["--pool", "local", "--model", "m"], "--model has no effect with --run"),
        (["--pool", "local", "--memory", "8GiB"], "--memory has no effect with --run"),
        (["--pool", "local", "--instruction", "all"], "--instruction has no effect with --run"),
        (["--pool", "local", "--heat-map", "x.png"], "--heat-map has no effect without the global pool"),
        (["--pool", "local", "--benchmark", str(tree.root)], "--run takes one --benchmark"),
    ):
        assert main([*command, *words]) == 1
        assert message in capsys.readouterr().err
    assert main(["eval", "--benchmark", str(tree.root), "--model", "m", "--order", "rank"]) == 1
    assert "--order has no effect without --run" in capsys.readouterr().err


def test_a_text_set_leaves_a_query_out_of_its_own_results(tmp_path: Path):
    root = write_set(tmp_path / "things")
    for path in root.rglob("*.*"):  # ids in a run file have no blanks
        path.write_text(path.read_text().replace("doc ", "doc-").replace("doc-11", "q/11"))
    with quiet():
        result = evaluate(BagEncoder(), root)
    paths = write_outputs(result, tmp_path / "out")
    assert not any(path.name == "uniir.tsv" for path in paths)
    run = next(path for path in paths if path.suffix == ".trec")
    assert "q/11 Q0 q/11" not in run.read_text()
    with run.open("a") as file:
        file.write("q/11 Q0 q/11 0 9 umr\n")  # the query itself, first of all
    again = score_runs({"local": [run]}, root)
    found, known = (one.settings[0].pools["local"] for one in (again, result))
    assert {name: found.metrics[name] for name in known.metrics} == known.metrics
    assert found.chance == known.chance
    with pytest.raises(RecipeError, match="one pool of texts"):
        score_runs({"global": [run]}, root)
