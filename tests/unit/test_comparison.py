"""Evaluations compared: the statistics over the right values, refusals, and what the terminal, the JSON and the page say."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.evaluation import evaluate
from umr.evaluation.outputs import write_outputs
from umr.evaluation.per_query import QueryScores
from umr.progress import quiet
from umr.reports.comparison import compare
from umr.reports.comparison_page import html
from umr.reports.comparison_table import tables
from umr.reports.looking import Looking
from umr.reports.saved import Evaluation, load, load_several
from umr.study.statistics import bootstrap, sign_flip
from unit.mbeir_fixture import SETTINGS, BagEncoder
from unit.saved_evaluations import PoorEncoder, Saved, save_evaluations
from unit.text_set import write_set


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_evaluations(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def content(saved: Saved) -> dict[str, Any]:
    return compare(load_several([saved.first, saved.poor, saved.reranked]))


def hits(saved: Saved, name: str, setting: str, pool: str) -> np.ndarray:
    """The main metric of each query by a loop over rankings and judgements."""
    result = saved.results[name]
    depth = 10 if setting.startswith("fashioniq") else 5
    qrels = MBeir(saved.tree).qrels(setting, "test")
    rankings = result.runs[setting, pool].rankings()
    return np.array([float(bool(set(dids[:depth]) & set(qrels.get(qid, {})))) for qid, dids in rankings.items()])


@pytest.mark.parametrize("pool", ["local", "global"])
@pytest.mark.parametrize("other", ["poor", "reranked"])
def test_scores_tests_and_counts_are_those_of_each_query(saved: Saved, content: dict[str, Any], pool: str, other: str) -> None:
    differences = []
    for row, setting in zip(content["pools"][pool]["settings"], SETTINGS, strict=True):
        mine, theirs = hits(saved, "first", setting, pool), hits(saved, other, setting, pool)
        against = row["against"][other]
        differences.append(theirs - mine)
        assert row["setting"] == setting
        assert row["scores"]["first"]["mean"] == pytest.approx(100 * mine.mean())
        assert row["scores"][other]["mean"] == pytest.approx(100 * theirs.mean())
        assert against["mean"] == pytest.approx(100 * (theirs - mine).mean())
        assert (against["wins"], against["losses"], against["ties"]) == tuple(
            int((np.sign(theirs - mine) == sign).sum()) for sign in (1, -1, 0)
        )
        assert against["p"] == sign_flip([theirs - mine]) <= against["p_holm"] <= 1
    average = content["pools"][pool]["average"]
    assert average["queries"] == 36
    assert average["scores"][other]["mean"] == pytest.approx(saved.results[other].averages[pool]["main"])
    assert average["against"][other]["p"] == sign_flip(differences)
    assert [average["against"][other][end] for end in ("low", "high")] == pytest.approx([100 * end for end in bootstrap(differences)])
    assert any(np.concatenate(differences) != 0) or pool == "local"  # else this would show nothing


def test_modalities_are_those_of_the_evaluations(saved: Saved, content: dict[str, Any]) -> None:
    for name, result in saved.results.items():
        assert result.diagnosis is not None
        assert content["modality"]["global"][name]["matrix"] == result.diagnosis.matrix
        assert content["modality"]["global"][name]["errors"] == result.diagnosis.errors


def test_the_order_of_queries_makes_no_difference(saved: Saved) -> None:
    first, poor = load_several([saved.first, saved.poor])
    order = np.random.default_rng(0).permutation(12)
    mixed = Evaluation(poor.name, poor.content, {key: shuffled(one, order) for key, one in poor.answers.items()})
    assert compare([first, mixed]) == compare([first, poor])


def shuffled(one: QueryScores, order: np.ndarray) -> QueryScores:
    def pick(values: tuple[str | None, ...]) -> Any:
        return tuple(values[place] for place in order)

    return replace(
        one,
        qids=pick(one.qids),
        values={name: values[order] for name, values in one.values.items()},
        first=pick(one.first),
        right=pick(one.right),
        rank_Q=one.rank_Q[order],
    )


def test_nothing_has_changed_between_an_evaluation_and_itself(saved: Saved) -> None:
    first = load(saved.first, "one")
    found = compare([first, Evaluation("two", first.content, first.answers)])
    assert found["changed"] == {"two": {"better": [], "worse": []}}
    assert {row["against"]["two"]["p"] for pool in found["pools"].values() for row in pool["settings"]} == {1.0}


def test_what_changed_most_is_what_the_rankings_say(saved: Saved, content: dict[str, Any]) -> None:
    assert content["changed"]["poor"]["better"] and content["changed"]["poor"]["worse"]
    for name, changed in content["changed"].items():
        for way, sign in (("better", 1), ("worse", -1)):
            gains = []
            for one in changed[way]:
                qrels = MBeir(saved.tree).qrels(one["setting"], "test")[one["qid"]]
                for place, evaluation in enumerate(("first", name)):
                    dids = saved.results[evaluation].runs[one["setting"], one["pool"]].rankings()[one["qid"]]
                    assert one["first"][place] == dids[0]
                    assert one["rank"][place] == next((rank for rank, did in enumerate(dids, 1) if did in qrels), None)
                before, after = (1 / rank if rank else 0.0 for rank in one["rank"])
                gains.append((sign * (one["main"][1] - one["main"][0]), sign * (after - before)))
            assert gains == sorted(gains, reverse=True)
            assert len({(one["setting"], one["qid"]) for one in changed[way]}) == len(gains)
            assert all(gain > (0, 0) for gain in gains)


def changed_content(first: Evaluation, change: dict[str, Any]) -> Evaluation:
    content = copy.deepcopy(first.content)
    for path, value in change.items():
        *keys, last = path.split(".")
        part: Any = content
        for key in keys:
            part = part[int(key)] if isinstance(part, list) else part[key]
        part[int(last) if isinstance(part, list) else last] = value
    return Evaluation("other", content, first.answers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data.split": "val", "data.fingerprint": "x"}, "splits differ: test and val"),
        ({"settings.0.main_metric": "hit@10"}, "metrics differ: shapes_task0: hit@5 and hit@10"),
        ({"instruction": "random-7"}, "instruction wordings differ: first and random-7"),
        ({"data.fingerprint": "another"}, "data fingerprints differ: .* and another"),
        ({"positives": "own"}, "right answers counted differ: all and own"),
        ({"data.left_out": {"queries": 1}}, "records left out differ"),
        ({"settings.1.pools.local.size": 35}, "pool sizes differ: wiki_task1 local: 36 and 35"),
    ],
)
def test_numbers_that_mean_something_else_are_refused(saved: Saved, change: dict[str, Any], words: str) -> None:
    first = load(saved.first)
    with pytest.raises(RecipeError, match=f"^first and other cannot be compared, for their {words}[^\n]*; evaluate both in the same way$"):
        compare([first, changed_content(first, change)])


def test_other_pools_tasks_and_queries_are_refused(saved: Saved) -> None:
    first = load(saved.first)
    content = copy.deepcopy(first.content)
    for one in content["settings"]:
        one["pools"]["global-filtered"] = one["pools"].pop("global")
    with pytest.raises(RecipeError, match="pools differ: global, local and global-filtered, local"):
        compare([first, Evaluation("other", content, first.answers)])
    with pytest.raises(RecipeError, match="tasks differ: shapes_task0, wiki_task1, fashioniq_task7 and shapes_task0, wiki_task1"):
        compare([first, Evaluation("other", {**first.content, "settings": first.content["settings"][:2]}, first.answers)])
    answers = {key: replace(one, qids=("0:99", *one.qids[1:])) for key, one in first.answers.items()}
    with pytest.raises(RecipeError, match="their queries of shapes_task0 differ in spite of one data fingerprint"):
        compare([first, Evaluation("other", first.content, answers)])
    with pytest.raises(RecipeError, match="at least two"):
        compare([first])


def test_damaged_and_foreign_folders_are_named(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing/result\.json|nothing: cannot be read"):
        load(tmp_path / "nothing")
    folder = Path(shutil.copytree(saved.first, tmp_path / "copy"))
    (folder / "queries.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"queries\.parquet: cannot be read .*umr eval --out"):
        load(folder)
    pq.write_table(pa.table({"qid": ["1"]}), folder / "queries.parquet")
    with pytest.raises(DataError, match=r"queries\.parquet: has no column 'first'"):
        load(folder)
    table = pq.read_table(saved.first / "queries.parquet")
    pq.write_table(table.slice(5), folder / "queries.parquet")
    with pytest.raises(DataError, match=r"queries\.parquet: is not of the evaluation in result\.json"):
        load(folder)
    (folder / "result.json").write_text("[]")
    with pytest.raises(DataError, match=r"result\.json: is no evaluation"):
        load(folder)
    (folder / "result.json").write_text('{"benchmarks": [1, 2]}')
    with pytest.raises(DataError, match=r"holds 2 benchmarks"):
        load(folder)
    with pytest.raises(DataError, match="is given twice"):
        load_several([saved.first, saved.first])


def test_folders_of_one_name_are_called_by_their_paths(saved: Saved, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(saved.poor, tmp_path / "first"))
    assert [one.name for one in load_several([saved.first, twin])] == [str(saved.first), str(twin)]
    assert load(saved.first / "result.json").name == "first"


def test_every_number_of_the_page_and_the_tables_is_one_of_the_json(saved: Saved, content: dict[str, Any]) -> None:
    first = load(saved.first)
    text = html(content, Looking.at(MBeir(saved.tree), first))
    assert json.loads(re.search(r"id=numbers>(.*?)</script>", text).group(1)) == json.loads(json.dumps(content))  # type: ignore[union-attr]
    terminal = "".join(cell for table in tables(content) for column in table.columns for cell in map(str, column.cells))
    for pool in content["pools"].values():
        for row in (*pool["settings"], pool["average"]):
            for name, against in row["against"].items():
                said = f"{against['mean']:+.1f} [{against['low']:+.1f}, {against['high']:+.1f}]"
                scores = [row["scores"][one] for one in ("first", name)]
                cells = [f"{one['mean']:.1f}{'*' if one['stamps'] else ''} [{one['low']:.1f}, {one['high']:.1f}]" for one in scores]
                p = against.get("p_holm", against["p"])
                cells += [said, f"{p:.4f}" if p >= 0.0002 else "&lt; 0.0002", *(str(against[key]) for key in ("wins", "losses", "ties"))]
                assert "".join(f"<td>{cell}</td>" for cell in cells) in text
                assert all(cell in terminal for cell in (said, cells[0]))
    assert text.count("<img") > 5


def test_the_command_writes_both_files(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [saved.first, saved.poor, "--json", tmp_path / "c.json", "--report", tmp_path / "c.html", "--benchmark", saved.tree]
    assert main(["compare", *map(str, words)]) == 0
    shown = capsys.readouterr().out
    assert "poor against first, local" in shown and "queries that changed most with poor" in shown
    written = json.loads((tmp_path / "c.json").read_text())
    assert written == json.loads(json.dumps(compare(load_several([saved.first, saved.poor]))))
    assert "<h2>Worse with poor</h2>" in (tmp_path / "c.html").read_text()
    assert main(["compare", str(saved.first), str(saved.poor), "--benchmark", str(saved.tree)]) == 1
    assert "--benchmark has no effect without --report" in capsys.readouterr().err


def test_text_sets_are_a_pool_of_their_own(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    for name, encoder in (("one", BagEncoder()), ("two", PoorEncoder("poor"))):
        with quiet():
            write_outputs(evaluate(encoder, root), tmp_path / name)
    found = compare(load_several([tmp_path / "one", tmp_path / "two"]))
    assert list(found["pools"]) == ["text"] and found["modality"] == {}
    assert found["pools"]["text"]["settings"][0]["metric"] == "ndcg@10"
    assert "<h2>Text retrieval</h2>" in html(found, None)
