"""What differs from the published way of measuring is said beside every number; the files of an evaluation; wordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from umr.cli import main
from umr.data.benchmark import open_benchmark
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.outputs import write_outputs
from umr.evaluation.wording import instruction_of
from umr.evaluation.wordings import Spread, evaluate_wordings, to_json
from umr.progress import quiet
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree
from unit.text_set import write_set


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("stamps") / "M-BEIR")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def result(tree: Path, work: Path) -> EvaluationResult:
    with quiet():
        return evaluate(BagEncoder(), tree, work_dir=work)


def test_a_pool_of_another_size_than_the_published_one_is_stamped(result: EvaluationResult):
    stamps = {one.setting: {pool: found.stamps for pool, found in one.pools.items()} for one in result.settings}
    assert stamps["wiki_task1"] == {"local": {}, "global": {}}
    assert stamps["fashioniq_task7"] == {
        "local": {"pool size differs": "36 candidates in place of 74,381"},
        "global": {"pool size differs": "112 candidates in place of 5,609,079"},
    }
    content = json.loads(result.to_json())
    assert content["stamps"] == {"local": ["pool size differs"], "global": ["pool size differs"]}
    assert content["settings"][2]["pools"]["local"]["stamps"] == stamps["fashioniq_task7"]["local"]
    lines = str(result).splitlines()
    row = next(line for line in lines if "fashioniq_task7" in line)
    assert row.count(" a ") == 2 and " a " not in next(line for line in lines if "wiki_task1" in line)
    assert all(line.count(" a ") == 2 for line in lines if line.strip().startswith("average"))
    assert "a: pool size differs" in " ".join(" ".join(lines).split())


def test_what_is_left_out_stamps_the_numbers_it_touches(tree: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    (copy / "mbeir_images" / "0-7.png").unlink()  # a candidate of shapes_task0
    (copy / "mbeir_images" / "q7-3.png").unlink()  # a query of fashioniq_task7
    with (copy / "qrels" / "test" / "mbeir_wiki_task1_test_qrels.txt").open("a") as file:
        file.write("1:2 0\n")
    found = evaluate(BagEncoder(), MBeir(copy, on_error="skip"))
    stamps = {one.setting: {pool: known.stamps for pool, known in one.pools.items()} for one in found.settings}
    assert stamps["shapes_task0"]["local"] == {"candidates left out": "1 missing media"}
    assert stamps["wiki_task1"] == {
        "local": {"judgements left out": "1 malformed"},
        "global": {"candidates left out": "1 missing media", "judgements left out": "1 malformed"},
    }
    assert stamps["fashioniq_task7"]["local"] == {
        "pool size differs": "36 candidates in place of 74,381",
        "queries left out": "1 missing media",
    }
    assert found.stamps("local") == ["candidates left out", "judgements left out", "pool size differs", "queries left out"]


def test_right_answers_that_cannot_be_found_are_counted(result: EvaluationResult):
    wiki = next(one for one in result.settings if one.setting == "wiki_task1")
    counts = {pool: (found.positives, found.unreachable, found.unanswerable) for pool, found in wiki.pools.items()}
    # 5 has no positive at all, 3 has one outside the local pool; 4 and 8 have two
    assert counts == {"local": (13, 1, 2), "global": (13, 0, 1)}
    assert "The local pool lacks 1 of 41 right answers" in " ".join(str(result).split())


def test_positives_of_other_datasets_can_be_left_out(tree: Path, work: Path, result: EvaluationResult):
    own = evaluate(BagEncoder(), open_benchmark(tree, own_positives=True), work_dir=work)
    wiki, plain = own.settings[1], result.settings[1]
    assert wiki.pools["local"].stamps == {"positives of other datasets not counted": "1 positives"}
    assert (wiki.pools["local"].positives, wiki.pools["local"].unreachable) == (12, 0)
    assert plain.pools["global"].metrics["hit@10"] == wiki.pools["global"].metrics["hit@10"]  # nobody finds 0:3 by its words
    assert own.settings[0] == result.settings[0] and own.data == result.data
    assert json.loads(own.to_json())["positives"] == "own" and json.loads(result.to_json())["positives"] == "all"
    assert MBeir(tree, own_positives=True).with_query_text("joined").qrels("wiki_task1", "test")["1:3"] == {}


def test_own_positives_of_a_text_set_would_have_no_effect(tmp_path: Path):
    with pytest.raises(DataError, match="own_positives has no effect"):
        open_benchmark(write_set(tmp_path / "things"), own_positives=True)


def test_judgements_of_unknown_queries_are_refused_before_anything_is_embedded(tree: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    path = copy / "qrels" / "test" / "mbeir_wiki_task1_test_qrels.txt"
    path.write_text(path.read_text() + "1:77 0 1:3 1 1\n")
    lines = len(path.read_text().splitlines())
    encoder = BagEncoder(fail_at_call=0)
    with pytest.raises(DataError, match=rf"mbeir_wiki_task1_test_qrels\.txt:{lines}: judges query '1:77'"):
        evaluate(encoder, copy)
    assert evaluate(BagEncoder(), MBeir(copy, on_error="skip")).settings[1].queries == 12


def test_all_files_of_an_evaluation(result: EvaluationResult, tree: Path, tmp_path: Path):
    paths = write_outputs(result, tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == {
        "result.json",
        "queries.parquet",
        "uniir.tsv",
        *(f"runs/{setting}_{pool}.{kind}" for setting in SETTINGS for pool in ("local", "global") for kind in ("trec", "uniir")),
    }
    line = (tmp_path / "runs" / "fashioniq_task7_global.uniir").read_text().splitlines()[0].split()
    assert len(line) == 7 and line[5:] == ["mbeir_fashioniq_task7_union_pool_test_k50", "7"]
    rows = [row.split("\t") for row in (tmp_path / "uniir.tsv").read_text().splitlines()]
    assert rows[0] == ["TaskID", "Task", "Dataset", "Split", "Metric", "CandPool", "Value", "UnionPool", "UnionValue", "Stamps"]
    assert [(row[2], row[4]) for row in rows[1:]] == [
        *((name, f"Recall@{k}") for name in ("shapes_task0", "wiki_task1") for k in (1, 5, 10)),
        *(("fashioniq_task7", f"Recall@{k}") for k in (10, 20, 50)),
    ]
    shown = {(row[2], row[4]): (row[5], float(row[6]), row[7], float(row[8])) for row in rows[1:]}
    wiki = result.settings[1].pools
    assert shown["wiki_task1", "Recall@5"] == (
        "wiki_task1",
        round(wiki["local"].metrics["hit@5"] / 100, 4),
        "union",
        round(wiki["global"].metrics["hit@5"] / 100, 4),
    )
    assert [row[9] for row in rows[1:]] == [*[""] * 6, *["pool size differs"] * 3]


def test_the_table_of_queries(result: EvaluationResult, tree: Path, tmp_path: Path):
    write_outputs(result, tmp_path)
    table = pq.read_table(tmp_path / "queries.parquet")
    assert table.num_rows == 3 * 2 * 12
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (about["model"], about["split"], about["positives"]) == (result.fingerprint, "test", "all")
    assert about["stamps fashioniq_task7 local"] == "pool size differs: 36 candidates in place of 74,381"
    rows = [row for row in table.to_pylist() if (row["setting"], row["pool"]) == ("wiki_task1", "global")]
    assert 100 * sum(row["main"] for row in rows) / 12 == pytest.approx(result.settings[1].pools["global"].metrics["hit@5"])
    assert {row["hit@20"] for row in rows} == {None}
    rankings, qrels = result.runs["wiki_task1", "global"].rankings(), MBeir(tree).qrels("wiki_task1", "test")
    for row in rows:
        relevant = qrels.get(row["qid"], {})
        ranks = [rank for rank, did in enumerate(rankings[row["qid"]], 1) if did in relevant]
        assert row["rank"] == (ranks[0] if ranks else None)
        assert row["right"] == (rankings[row["qid"]][ranks[0] - 1] if ranks else None)
        assert (row["first"], row["positives"], row["reachable"]) == (rankings[row["qid"]][0], len(relevant), len(relevant))
        assert (row["outcome"] == "right") == (row["rank"] == 1)


def test_wordings_by_place_and_by_seed(tree: Path):
    query = MBeir(tree).queries("wiki_task1", "test")[0]
    first, second = query.instructions
    assert [instruction_of(query, name) for name in ("first", "wording-1", "wording-2", "wording-3")] == [first, first, second, first]
    queries = MBeir(tree).queries("wiki_task1", "test")
    drawn = [tuple(instruction_of(queries[place], f"random-{seed}") for place in range(12)) for seed in range(6)]
    assert len(set(drawn)) > 3 and all(set(one) <= {first, second} for one in drawn)
    assert [instruction_of(one, "random-2023") for one in queries] == [instruction_of(one, "seeded") for one in queries]
    for bad in ("all", "random", "random-x", "wording-0", "second"):
        with pytest.raises(RecipeError, match="instruction must be one of first, seeded"):
            instruction_of(query, bad)


def test_all_wordings_give_a_mean_and_a_deviation(tree: Path, work: Path, result: EvaluationResult):
    encoder = BagEncoder()
    found = evaluate_wordings(
        lambda wording: {"M-BEIR": evaluate(encoder, tree, instruction=wording, work_dir=work)}, [open_benchmark(tree)], "test"
    )["M-BEIR"]
    assert [one.instruction for one in found.results] == ["wording-1", "wording-2"]
    assert sum(encoder.calls) == 3 * 12  # the second wording; all else is from the evaluation before
    for pool in ("local", "global"):
        one, two = (each.settings[1].pools[pool].metrics["hit@5"] for each in found.results)
        spread = found.setting("wiki_task1", pool)
        assert spread.scores == (one, two) and spread.mean == pytest.approx((one + two) / 2)
        assert spread.sd == pytest.approx(abs(one - two) / 2**0.5)
        means = [each.averages[pool]["main"] for each in found.results]
        assert found.group("all", pool).mean == pytest.approx(sum(means) / 2)
    content = json.loads(to_json({"M-BEIR": found}))
    assert content["instruction"] == "all" and content["wordings"] == dict.fromkeys(SETTINGS, 2)
    assert content["spread"]["local"]["stamps"] == ["pool size differs"] and len(content["results"]) == 2
    assert found.table().row_count == 3 + 5
    assert str(Spread.of([40.0])) == "40.0" and str(Spread.of([40.0, 42.0])) == "41.0 ± 1.4"


def test_a_tree_without_instructions_has_no_wordings(tree: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    (copy / "instructions" / "query_instructions.tsv").unlink()
    with pytest.raises(RecipeError, match="no query has an instruction"):
        evaluate_wordings(lambda wording: {}, [open_benchmark(copy)], "test")


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("query/test/mbeir_wiki_task1_test.jsonl", lambda text: text[:-30], r"_test\.jsonl:12: is not valid JSON"),
        ("cand_pool/local/mbeir_wiki_task1_cand_pool.jsonl", lambda text: text[:-30], r"_cand_pool\.jsonl:36: is not valid JSON"),
        ("query/test/mbeir_wiki_task1_test.jsonl", lambda text: text + text.splitlines()[4] + "\n", r"_test\.jsonl:13: .*'1:4'"),
        ("cand_pool/local/mbeir_wiki_task1_cand_pool.jsonl", lambda text: text + text.splitlines()[4] + "\n", r"pool\.jsonl:37: .*'1:4'"),
        ("qrels/test/mbeir_wiki_task1_test_qrels.txt", lambda text: text[:-5], r"_qrels\.txt:\d+: needs 4 or 5 columns"),
    ],
)
def test_truncated_files_and_doubled_ids_end_in_one_line(tree: Path, tmp_path: Path, file: str, spoil, words: str):
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    (copy / file).write_text(spoil((copy / file).read_text()))
    with pytest.raises(DataError, match=words) as caught:
        evaluate(BagEncoder(), copy, ("local",), ["wiki_task1"], work_dir=tmp_path / "work")
    assert "\n" not in str(caught.value)
    shutil.copy(tree / file, copy / file)  # mended, it goes on, and nothing was lost
    assert evaluate(BagEncoder(), copy, ("local",), ["wiki_task1"], work_dir=tmp_path / "work").settings[0].queries == 12


def test_check_data_says_which_pools_have_another_size(tree: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check-data", str(tree), "--split", "test"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pool size differs")]
    assert lines == [
        "pool size differs: mbeir_fashioniq_task7_cand_pool.jsonl: 36 candidates in place of the published 74,381",
        "pool size differs: mbeir_union_test_cand_pool.jsonl: 112 candidates in place of the published 5,609,079",
    ]


def test_the_command_measures_with_every_wording(
    tree: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("umr.models.embedder.Embedder.load", lambda *args, **options: BagEncoder())
    command = ["eval", "--model", "m", "--benchmark", str(tree), "--work", str(work), "--own-positives", "--on-error", "skip"]
    asked = ["--instruction", "all", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "all.json")]
    assert main([*command, *asked]) == 0
    assert "±" in capsys.readouterr().out
    content = json.loads((tmp_path / "all.json").read_text())
    assert content == json.loads((tmp_path / "out" / "wordings.json").read_text())
    for place in (1, 2):
        one = json.loads((tmp_path / "out" / f"wording-{place}" / "result.json").read_text())
        assert one == content["results"][place - 1] and one["positives"] == "own"
    assert (tmp_path / "out" / "wording-2" / "queries.parquet").is_file()
    assert main([*command, "--instruction", "best"]) == 1
    assert "instruction must be one of first, seeded" in capsys.readouterr().err
    assert main([*command, "--instruction", "all", "--heat-map", "x.png"]) == 1
    assert "--heat-map is of one wording" in capsys.readouterr().err
