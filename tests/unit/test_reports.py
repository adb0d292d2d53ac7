"""The page of an evaluation: its numbers are those of the JSON, hostile texts stay texts, and nothing comes from outside."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umr.cli import main
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError, StoreError
from umr.evaluation import evaluate, published
from umr.evaluation.modality import OUTCOMES
from umr.evaluation.outputs import write_outputs
from umr.evaluation.run_scoring import score_runs
from umr.progress import quiet
from umr.reports.evaluation_page import html
from umr.reports.failures import EXAMPLES, failures
from umr.reports.saved import Evaluation, load
from umr.reports.writing import write_report
from unit.mbeir_fixture import BagEncoder
from unit.saved_evaluations import Saved, save_evaluations
from unit.text_set import write_set


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_evaluations(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def page(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("page") / "report.html"
    with quiet():
        write_report(load(saved.reranked), out, saved.tree, saved.work)
    return Page.of(out.read_text())


LOADING = ("src", "srcset", "href", "action", "data", "poster", "background")


class Page(HTMLParser):
    """Tables as rows of texts, attributes that load something, and the numbers for programs."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.numbers: Any = None
        self.text = ""
        self.heads: dict[int, list[str]] = {}
        self._inside = ""

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        page.feed(text)
        page.close()
        page.text = text
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.sources += [value or "" for name, value in attrs if name in LOADING]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "table":
            self._head = len(self.rows)
        if tag == "tr":
            self.rows.append([])
            self.heads[id(self.rows[-1])] = self.rows[self._head]
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.numbers = json.loads(data)
        elif self._inside in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, *beginning: str) -> list[list[str]]:
        return [row for row in self.rows if row[: len(beginning)] == list(beginning)]


def test_the_numbers_for_programs_are_the_result(saved: Saved, page: Page) -> None:
    assert page.numbers["evaluation"] == json.loads((saved.reranked / "result.json").read_text())
    assert len(page.numbers["costs"]) == 51  # three dimensions, three precisions, rescored or not but for the whole, reranking to 0, 10, 20


def test_the_tables_say_what_the_json_says(page: Page) -> None:
    content = page.numbers["evaluation"]
    for one in content["settings"]:
        for pool, found in one["pools"].items():
            metric, mark = one["main_metric"], "*" if found["stamps"] else ""
            rerank = [f"{content['rerank'][key][one['setting']][pool]:.1f}" for key in ("recall", "alone")]
            score, chance = f"{found['metrics'][metric]:.1f}{mark}", f"{found['chance'][metric]:.2g}"
            assert any(row[5] == metric and row[8] == str(found["size"]) for row in page.row(one["setting"], score, chance, *rerank))
            everything = [dict(zip(page.heads[id(row)], row, strict=True)) for row in page.row(one["setting"])]
            expected = {name: f"{value:.1f}{mark}" for name, value in found["metrics"].items()}
            assert any(expected.items() <= row.items() for row in everything)
        shares = one["pools"]["global"]["modality"]
        total = sum(shares["errors"].values())
        assert page.row(one["setting"], *(f"{100 * shares['errors'][kind] / total:.1f}" for kind in OUTCOMES))
    for found in content["groups"].values():
        for name, mean in found.items():
            assert any(row[1].rstrip("*") == f"{mean['score']:.1f}" for row in page.row(f"average: {name}"))
    for asked, shares in content["modality"]["global"]["shares"].items():
        count = sum(content["modality"]["global"]["matrix"][asked].values())
        assert page.row(f"{asked} ({count})", f"{shares['text']:.1f}", f"{shares['image']:.1f}")


def test_the_table_of_costs_says_what_the_json_says(page: Page) -> None:
    for one in page.numbers["costs"]:
        known = "" if one["known"] == 100 else f" ({one['known']:.0f} % known)"
        kept = one["precision"] + (", rescored" if one["rescored"] else "")
        (row,) = page.row(str(one["dimension"]), kept, str(one["bytes"]))
        assert f"{one['main']:.1f}*{known}" == row[{0: 3, 10: 4, 20: 5}[one["depth"]]]


def test_nothing_comes_from_outside(page: Page) -> None:
    assert page.sources and all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert page.tags.count("script") == 1 and "application/json" in page.text
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert "@import" not in page.text and "url(" not in page.text


def test_examples_are_failures_of_their_type(saved: Saved, page: Page) -> None:
    evaluation = load(saved.reranked)
    found = failures(evaluation)
    assert set(found) == {"type1", "type2", "type3"}
    counts = evaluation.content["modality"]["global"]["errors"]
    for kind, some in found.items():
        assert len(some) == min(EXAMPLES, counts[kind])
        for one in some:
            answers = evaluation.answers[one.setting, "global"]
            place = answers.qids.index(one.qid)
            assert answers.outcomes is not None
            assert (answers.outcomes[place], answers.first[place], answers.rank_Q[place]) == (kind, one.first, one.rank)
            assert f"query {one.qid}" in page.text and f"first: {one.first}" in page.text
    assert len({one.setting for one in found["type1"][:2]}) == 2  # settings take turns


def test_local_pools_alone_have_failures_without_a_type(saved: Saved) -> None:
    evaluation = load(saved.first)
    answers = {key: one for key, one in evaluation.answers.items() if key[1] == "local"}
    found = failures(Evaluation("local", evaluation.content, answers))
    assert list(found) == ["wrong"] and all(one.rank != 1 for one in found["wrong"])


def test_texts_stay_texts(saved: Saved, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(saved.tree, tmp_path / "tree"))
    evil = "</script><img src=x onerror=alert(1)><b>\\u2028&amp;'\\\""
    for suffix, before, more in (("jsonl", "red ", evil), ("tsv", "Find ", "<i onclick=1>")):
        for path in tree.rglob(f"*.{suffix}"):
            path.write_text(path.read_text().replace(before, f"{before}{more} "))
    evaluation = load(saved.first, "<script>alert(1)</script>")
    content = json.loads(json.dumps(evaluation.content))
    content["data"]["fingerprint"] = MBeir(tree).fingerprint("test", [one["setting"] for one in content["settings"]])
    content["model"]["fingerprint"] = "</script><script>alert(2)</script>"
    write_report(Evaluation(evaluation.name, content, evaluation.answers), tmp_path / "evil.html", tree)
    found = Page.of((tmp_path / "evil.html").read_text())
    assert "&lt;img src=x onerror" in found.text and "&lt;i onclick" in found.text  # they are there
    assert found.tags.count("script") == 1 and "b" in found.tags and "i" not in found.tags
    assert found.numbers["evaluation"] == content
    assert all(source.startswith(("data:image/", "#")) for source in found.sources)


def test_published_systems_stand_beside_numbers_of_m_beir(saved: Saved) -> None:
    evaluation = load(saved.first)
    content = json.loads(json.dumps(evaluation.content))
    assert "MM-Embed" not in html(evaluation)  # most of its settings are none of M-BEIR's
    content["settings"] = [one for one in content["settings"] if one["setting"] == "fashioniq_task7"]
    answers = {key: one for key, one in evaluation.answers.items() if key[0] == "fashioniq_task7"}
    found = Page.of(html(Evaluation("m", content, answers)))
    for pool in ("local", "global"):
        systems = [one for one in published.systems() if one.pool == pool]
        assert ["setting", "this model", *(one.name for one in systems)] in found.rows
        ours = f"{content['settings'][0]['pools'][pool]['metrics']['hit@10']:.1f}*"
        assert found.row("fashioniq_task7", ours, *(f"{one.scores['fashioniq_task7']:.1f}" for one in systems))
        assert found.row("average of 1", ours.rstrip("*"), *(f"{one.scores['fashioniq_task7']:.1f}" for one in systems))
    content["data"]["split"] = "val"
    assert "MM-Embed" not in html(Evaluation("m", content, answers))


def test_what_does_not_fit_is_refused(saved: Saved, tmp_path: Path) -> None:
    evaluation, out = load(saved.first), tmp_path / "r.html"
    with pytest.raises(RecipeError, match="work has no effect without the benchmark"):
        write_report(evaluation, out, work=saved.work)
    with pytest.raises(StoreError, match=f"{tmp_path}: does not hold all vectors of bag-of-words:?"):
        write_report(evaluation, out, saved.tree, tmp_path)
    tree = Path(shutil.copytree(saved.tree, tmp_path / "tree"))
    with (tree / "instructions" / "query_instructions.tsv").open("a") as file:
        file.write("text\timage\tmore\t77\tAnother\tOne more\n")
    with pytest.raises(DataError, match="tree: is not the data that first was evaluated on"):
        write_report(evaluation, out, tree)
    assert not out.exists()


def test_the_command_writes_beside_the_result(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(saved.first, tmp_path / "copy"))
    assert main(["report", str(folder)]) == 0
    assert f"{folder / 'report.html'}: the report" in capsys.readouterr().out
    found = Page.of((folder / "report.html").read_text())
    assert found.numbers["costs"] == [] and "img" not in found.tags
    assert np.isclose(found.numbers["evaluation"]["averages"]["local"]["main"], load(folder).content["averages"]["local"]["main"])


def test_run_files_have_pages_without_costs(saved: Saved, tmp_path: Path) -> None:
    short = tmp_path / "run.trec"  # one query has two results, the others none
    lines = (saved.first / "runs" / "wiki_task1_global.trec").read_text().splitlines()
    short.write_text("\n".join(lines[:2]) + "\n")
    write_outputs(score_runs({"global": [short]}, saved.tree), tmp_path / "out")
    with quiet():
        write_report(load(tmp_path / "out"), tmp_path / "run.html", saved.tree, saved.work)
    found = Page.of((tmp_path / "run.html").read_text())
    assert found.numbers["costs"] == [] and "queries without results" in found.text
    assert found.row("wiki_task1", f"{found.numbers['evaluation']['settings'][0]['pools']['global']['metrics']['hit@5']:.1f}*")


def test_text_sets_have_pages(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    with quiet():
        result = evaluate(BagEncoder(), root, work_dir=tmp_path / "work")
        write_outputs(result, tmp_path / "out")
        write_report(load(tmp_path / "out"), tmp_path / "set.html", root, tmp_path / "work")
    found = Page.of((tmp_path / "set.html").read_text())
    assert found.row(result.settings[0].setting, f"{result.settings[0].pools['local'].metrics['ndcg@10']:.1f}")
    assert found.numbers["costs"][0]["main"] == pytest.approx(result.averages["local"]["main"])
    assert "Types of error" not in found.text


def test_what_was_left_out_is_left_out_again(saved: Saved, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(saved.tree, tmp_path / "tree"))
    (tree / "mbeir_images" / "q7-3.png").unlink()
    with quiet():
        result = evaluate(BagEncoder(), MBeir(tree, on_error="skip"), work_dir=tmp_path / "work")
        write_outputs(result, tmp_path / "out")
        write_report(load(tmp_path / "out"), tmp_path / "r.html", tree, tmp_path / "work")
    found = Page.of((tmp_path / "r.html").read_text())
    assert found.numbers["costs"][0]["main"] == pytest.approx(result.averages["local"]["main"])
    assert "queries left out" in found.text
