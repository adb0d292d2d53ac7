"""What comes first in a mixed pool: counted by hand, against a plain loop, and in an evaluation's result."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from umr.data.mbeir import MBeir
from umr.data.world.settings import DATASETS
from umr.errors import RecipeError
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.charts import figure_of, heat_map
from umr.evaluation.domains import domain_of, domains, same_domain
from umr.evaluation.modality import MODALITIES, OUTCOMES, Diagnosis, accuracy_at, codes_of, confusion, outcomes
from umr.evaluation.tables import modality_table
from umr.progress import quiet
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree

T, I, IT, V = MODALITIES  # noqa: E741


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "M-BEIR")


@pytest.fixture(scope="module")
def result(tree: Path) -> EvaluationResult:
    with quiet():
        return evaluate(BagEncoder(), tree)


def test_a_small_case_by_hand():
    """Six queries with four results each, over a pool of two datasets; qids and dids of 0 are news, those of 9 common."""
    found = [
        (T, I, "0:1 0:1", True, [I, T, I, I]),  # right
        (T, I, "0:2 0:2", False, [T, I, I, T]),  # type 1
        (T, I, "0:3 9:3", False, [T, T, T, T]),  # type 1, although the domain is wrong, too
        (IT, I, "0:4 9:4", False, [I, I, I, T]),  # type 2
        (IT, T, "9:5 9:6", False, [T, IT, IT, IT]),  # type 3
        (I, T, "9:7 9:7", True, [I, T, V, T]),  # right, of another modality than the task says
    ]
    asked_Q, wanted_Q = (codes_of([row[place] for row in found]) for place in (0, 1))
    found_QK = np.stack([codes_of(row[4]) for row in found])
    right_Q = np.array([row[3] for row in found])
    qids, dids = zip(*(row[2].split() for row in found), strict=True)
    domain_Q = same_domain(qids, dids, {0: "news", 9: "common"})
    types_Q = outcomes(right_Q, found_QK[:, 0] == wanted_Q, domain_Q)
    assert [OUTCOMES[place] for place in types_Q] == ["right", "type1", "type1", "type2", "type3", "right"]
    assert accuracy_at(found_QK, wanted_Q, 1).tolist() == [1, 0, 0, 1, 1, 0]
    assert accuracy_at(found_QK, wanted_Q, 4).tolist() == [3 / 4, 2 / 4, 0, 3 / 4, 1 / 4, 2 / 4]
    assert accuracy_at(found_QK, wanted_Q, 10).tolist() == accuracy_at(found_QK, wanted_Q, 4).tolist()
    diagnosis = Diagnosis.of(asked_Q, found_QK[:, 0], types_Q)
    assert diagnosis.errors == {"right": 2, "type1": 2, "type2": 1, "type3": 1}
    assert diagnosis.matrix == {
        T: {T: 2, I: 1, IT: 0, V: 0},
        I: {T: 0, I: 1, IT: 0, V: 0},
        IT: {T: 1, I: 1, IT: 0, V: 0},
    }
    assert diagnosis.shares[T] == {T: pytest.approx(200 / 3), I: pytest.approx(100 / 3), IT: 0, V: 0}
    twice = Diagnosis.sum([diagnosis, diagnosis])
    assert twice.shares == diagnosis.shares and twice.errors["type1"] == 4 and twice.matrix[T][T] == 4


ROWS = st.lists(
    st.tuples(
        *[st.sampled_from(MODALITIES)] * 2,
        st.booleans(),
        st.sampled_from(["0", "1", "2"]),
        st.sampled_from(["0", "1", "2"]),
        st.lists(st.sampled_from(MODALITIES), min_size=3, max_size=3),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, k=st.integers(1, 3))
def test_a_plain_loop_counts_the_same(rows: list[tuple[str, str, bool, str, str, list[str]]], k: int):
    known = {0: "news", 1: "news", 2: "wiki"}
    share, matrix, errors = [], {}, dict.fromkeys(OUTCOMES, 0)
    right_of_another = 0
    for asked, wanted, right, own, other, results in rows:
        share.append(sum(one == wanted for one in results[:k]) / k)
        row = matrix.setdefault(asked, dict.fromkeys(MODALITIES, 0))
        row[results[0]] += 1
        if right:
            errors["right"] += 1
            right_of_another += results[0] != wanted
        elif results[0] != wanted:
            errors["type1"] += 1
        elif known[int(own)] != known[int(other)]:
            errors["type2"] += 1
        else:
            errors["type3"] += 1
    asked_Q, wanted_Q = (codes_of([row[place] for row in rows]) for place in (0, 1))
    found_QK = np.stack([codes_of(row[5]) for row in rows])
    domain_Q = same_domain([f"{row[3]}:1" for row in rows], [f"{row[4]}:2" for row in rows], known)
    types_Q = outcomes(np.array([row[2] for row in rows]), found_QK[:, 0] == wanted_Q, domain_Q)
    diagnosis = Diagnosis.of(asked_Q, found_QK[:, 0], types_Q)
    assert accuracy_at(found_QK, wanted_Q, k) == pytest.approx(share)
    assert diagnosis.errors == errors
    assert diagnosis.matrix == {name: matrix[name] for name in MODALITIES if name in matrix}
    # The identity: 1 - type 1 is modality accuracy@1, but for positives of another modality than the task's.
    assert 1 - errors["type1"] / len(rows) == pytest.approx(accuracy_at(found_QK, wanted_Q, 1).mean() + right_of_another / len(rows))
    assert confusion(asked_Q, found_QK[:, 0]).sum() == len(rows) == sum(errors.values())
    for name, row in diagnosis.shares.items():
        assert sum(row.values()) == pytest.approx(100), name


def test_unknown_modalities_are_refused():
    assert codes_of([]).shape == (0,)
    with pytest.raises(ValueError, match="none of text, image"):
        codes_of(["text", "audio"])


class TestDomains:
    def test_of_datasets(self):
        names = ("VisualNews", "edis", "Fashion200K", "fashioniq", "WebQA", "oven", "INFOSEEK", "nights", "CIRR", "mscoco")
        assert [domain_of(name) for name in names] == ["news"] * 2 + ["fashion"] * 2 + ["wiki"] * 3 + ["common"] * 3
        assert (domain_of("scenes"), domain_of("catalog"), domain_of("my_own")) == ("common", "shop", "my_own")

    def test_of_a_benchmark(self, tree: Path, tmp_path: Path):
        shutil.copytree(tree, tmp_path / "world")
        lines = [f"text\ttext\t{name}\t{number}\tFind it" for number, name in enumerate(DATASETS[:9])]
        (tmp_path / "world" / "instructions" / "query_instructions.tsv").write_text("header\n" + "\n".join(lines))
        known = domains(MBeir(tmp_path / "world"), {})
        assert known == {0: "common", 1: "shop", 2: "wiki", 3: "news", 4: "common", 5: "nature", 6: "studio", 7: "puzzle", 8: "film"}
        assert domains(MBeir(tree), {"wiki": ["1:0"]}) == {0: "shapes_task0", 1: "wiki", 7: "fashioniq_task7"}

    def test_without_instructions_the_settings_name_datasets(self, tree: Path, tmp_path: Path):
        copy = tmp_path / "copy"
        shutil.copytree(tree, copy)
        (copy / "instructions" / "query_instructions.tsv").unlink()
        assert domains(MBeir(copy), {"mscoco": ["9:1"], "mine": ["a"]}) == {9: "common"}

    def test_ids_without_a_number_share_a_domain(self):
        assert same_domain(["a", "a", "3:1", "3:1"], ["b", "3:1", "3:2", "4:2"], {}).tolist() == [True, False, True, False]


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_evaluation_says_what_a_plain_loop_finds(tree: Path, result: EvaluationResult, setting: str):
    benchmark, run = MBeir(tree), result.runs[setting, "global"]
    pool, qrels = benchmark.global_pool("test"), benchmark.qrels(setting, "test")
    task = SETTINGS[setting]
    errors, first, share = dict.fromkeys(OUTCOMES, 0), dict.fromkeys(MODALITIES, 0), dict.fromkeys((1, 5, 10), 0.0)
    for query in benchmark.queries(setting, "test"):
        found = run.rankings()[query.qid]
        kinds = [pool.modality(did) for did in found]
        first[kinds[0]] += 1
        for k in share:
            share[k] += sum(kind == query.target_modality for kind in kinds[:k]) / k
        if qrels.get(query.qid, {}).get(found[0], 0) > 0:
            errors["right"] += 1
        elif kinds[0] != query.target_modality:
            errors["type1"] += 1
        elif int(found[0].split(":")[0]) != task:  # datasets of the tree are each their own domain
            errors["type2"] += 1
        else:
            errors["type3"] += 1
    one = next(one for one in result.settings if one.setting == setting)
    mixed = one.pools["global"]
    assert mixed.modality is not None and one.pools["local"].modality is None
    assert mixed.modality.errors == errors
    assert list(mixed.modality.matrix.values()) == [first]
    for k, total in share.items():
        assert mixed.metrics[f"modality_accuracy@{k}"] == pytest.approx(100 * total / 12)
    for name in OUTCOMES[1:]:
        assert mixed.metrics[name] == pytest.approx(100 * errors[name] / 12)
    assert not {"type1", "modality_accuracy@1"} & one.pools["local"].metrics.keys()


def test_the_whole_is_the_sum_and_averages_are_means(result: EvaluationResult):
    content = json.loads(result.to_json())
    parts = [one["pools"]["global"] for one in content["settings"]]
    whole = content["modality"]["global"]
    assert whole["errors"] == {name: sum(part["modality"]["errors"][name] for part in parts) for name in OUTCOMES}
    assert sum(whole["errors"].values()) == 36
    assert whole["matrix"][T][I] == sum(part["modality"]["matrix"].get(T, {}).get(I, 0) for part in parts)
    for name in ("modality_accuracy@1", "modality_accuracy@10", "type1", "type3"):
        assert content["averages"]["global"][name] == pytest.approx(np.mean([part["metrics"][name] for part in parts]))
    assert content["averages"]["local"].keys() == {"main", "hit@5"}
    assert all("modality" not in one["pools"]["local"] for one in content["settings"]) and "search" not in content


def test_the_table_fits_a_terminal(result: EvaluationResult):
    out = StringIO()
    Console(width=80, file=out).print(modality_table(result))
    rows = {line.split()[0]: line.split() for line in out.getvalue().splitlines() if line.split()}
    for one in result.settings:
        found = one.pools["global"]
        assert found.modality is not None
        scores = [f"{found.metrics[name]:.1f}" for name in ("modality_accuracy@1", "modality_accuracy@5", "modality_accuracy@10", "type1")]
        assert rows[one.setting][-10:-6] == scores  # a mark may follow the name
        assert rows[one.setting][-4:] == [
            f"{100 * sum(row[name] for row in found.modality.matrix.values()) / 12:.0f}" for name in MODALITIES
        ]
    assert "…" not in out.getvalue()
    assert f"{result.averages['global']['type1']:.1f}" in rows["average"]


def test_the_heat_map_says_its_numbers(result: EvaluationResult, tmp_path: Path):
    left, right = figure_of(result).axes
    assert [label.get_text().split()[0] for label in left.get_yticklabels()] == list(SETTINGS)
    columns = [label.get_text() for label in left.get_xticklabels()]
    assert columns == [T, I]
    cells = iter(text.get_text() for text in left.texts)
    for one in result.settings:
        found = one.pools["global"].modality
        assert found is not None
        counts = [sum(row[name] for row in found.matrix.values()) for name in columns]
        assert [next(cells) for _ in columns] == [f"{100 * count / 12:.1f}" for count in counts]
    assert len(left.patches) == 3  # one frame a setting
    assert result.diagnosis is not None
    assert right.texts[0].get_text() == f"{result.diagnosis.shares[T][T]:.1f}\n{result.diagnosis.matrix[T][T]}"
    heat_map(result, tmp_path / "map.png")
    with PIL.Image.open(tmp_path / "map.png") as image:
        assert image.format == "PNG" and min(image.size) > 200


def test_without_a_global_pool_there_is_nothing_to_say(tree: Path, tmp_path: Path):
    with quiet():
        local = evaluate(BagEncoder(), tree, ("local",))
    assert local.diagnosis is None and "modality" not in json.loads(local.to_json())
    with pytest.raises(RecipeError, match="add it to the pools"):
        modality_table(local)
    with pytest.raises(RecipeError, match="add it to the pools"):
        heat_map(local, tmp_path / "map.png")
