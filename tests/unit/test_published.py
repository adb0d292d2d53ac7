"""M-BEIR as published: settings, pool sizes and scores, and the averages that papers report."""

from __future__ import annotations

import pytest

from umr.data.mbeir import MBeir
from umr.data.mbeir_records import TASKS
from umr.evaluation import published
from umr.evaluation.averages import GROUPS, averages, groups_of
from umr.evaluation.domains import domain_of


def tasks() -> dict[str, str]:
    return {name: " -> ".join(one.modalities) for name, one in published.settings().items()}


def system(name: str, pool: str) -> published.System:
    return next(one for one in published.systems() if (one.name, one.pool) == (name, pool))


def test_the_settings_are_those_of_m_beir(tmp_path):
    settings = published.settings()
    assert len(settings) == 16
    assert sum(one.pool_size for one in settings.values()) == published.pool_size("cirr_task7", "global", "test") == 5_609_079
    assert {one.task for one in settings.values()} == set(TASKS) - {9, 10}
    assert sorted(name for name, one in settings.items() if one.metric == "hit@10") == [
        "fashion200k_task0",
        "fashion200k_task3",
        "fashioniq_task7",
    ]
    assert len({one.dataset_id for one in settings.values()}) == 10
    assert {domain_of(name.rsplit("_task", 1)[0]) for name in settings} == {"news", "fashion", "wiki", "common"}


def test_a_reader_lists_them_in_the_order_of_the_tables(tmp_path):
    (tmp_path / "query" / "test").mkdir(parents=True)
    for name in sorted(published.settings()):
        (tmp_path / "query" / "test" / f"mbeir_{name}_test.jsonl").write_text("")
    found = [one.name for one in MBeir(tmp_path).settings("test")]
    assert found == list(published.settings())


@pytest.mark.parametrize("one", published.systems(), ids=lambda one: f"{one.name} {one.pool}")
def test_printed_averages_are_the_means(one):
    mean = sum(one.scores.values()) / 16
    known_slip = 0.08 if (one.name, one.pool) == ("U-MARVEL+ Qwen2-VL-7B", "global") else 0.051
    assert mean == pytest.approx(one.average, abs=known_slip)
    assert one.source and one.pool in ("local", "global")


def test_groups_are_those_that_papers_report():
    found = averages(system("MM-Embed", "global").scores, tasks())
    assert tuple(found) == GROUPS
    assert {name: round(one.score, 1) for name, one in found.items()} == {
        "all": 52.7,
        "single-modal queries": 56.1,
        "multi-modal queries": 47.0,
        "S->S": 50.9,
        "S->M": 76.9,
        "M->S": 40.0,
        "M->M": 60.9,
    }
    assert [one.counts for one in found.values()] == ["16", "10", "6", "8", "2", "4", "2"]
    assert found["M->M"].settings == ("oven_task8", "infoseek_task8") and found["M->M"].missing == ()


def test_averages_are_over_what_was_measured_and_say_what_was_not():
    scores = {"edis_task2": 60.0, "cirr_task7": 50.0}
    found = averages(scores, tasks())
    assert set(found) == {"all", "single-modal queries", "multi-modal queries", "S->M", "M->S"}
    assert found["all"].score == 55 and found["all"].counts == "2 of 16"
    assert (found["S->M"].score, found["S->M"].settings, found["S->M"].missing) == (60, ("edis_task2",), ("webqa_task2",))
    other = averages({"scenes_task0": 10.0, "clips_task9": 20.0}, {"scenes_task0": "text -> image", "clips_task9": "text -> video"})
    assert {name: one.counts for name, one in other.items()} == {"all": "2", "single-modal queries": "2", "S->S": "2"}
    assert groups_of("image,text", "image,text")[1:] == ("multi-modal queries", "M->M")


def test_sizes_that_are_not_published_are_not_expected():
    assert published.pool_size("mscoco_task0", "local", "test") == 5000
    assert published.pool_size("mscoco_task0", "local", "val") is None
    assert published.pool_size("cirr_task7", "local", "val") == 21_551
    assert published.pool_size("cirr_task7", "global-filtered", "val") is None
    assert published.pool_size("scenes_task0", "local", "test") is None
