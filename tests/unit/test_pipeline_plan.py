"""Which stages run, on random pipelines: planning against a small simulation of running."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.errors import RecipeError
from umr.pipelines.manifest import Begun, Manifest, Record
from umr.pipelines.plan import Decision, ancestors, decide, dependants, difference, plan


@dataclass(frozen=True)
class Stage:
    """A stage whose product is decided by its config and inputs, or by nothing: `constant` ones end alike whatever they are fed."""

    name: str
    config: dict[str, Any]
    uses: tuple[str, ...]
    constant: bool = False

    @property
    def config_hash(self) -> str:
        return digest(self.config)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@dataclass
class Disk:
    """Records of stages, and which were worked on since the last look."""

    records: dict[str, Record] = field(default_factory=dict)
    worked: list[str] = field(default_factory=list)

    def inputs(self, stage: Stage) -> dict[str, str | None]:
        return {name: done.product if (done := self.records[name].finished) else None for name in stage.uses}

    def run(self, stages: list[Stage], forced: frozenset[str] = frozenset(), stop_in: str | None = None) -> None:
        """As `umr run` does: stage after stage, each decided on when its turn comes; `stop_in` is begun and not finished."""
        self.worked = []
        for stage in stages:
            inputs: dict[str, Any] = self.inputs(stage)
            if decide(stage, self.records.get(stage.name, Record()), inputs, stage.name in forced).action == "skip":
                continue
            self.worked.append(stage.name)
            if stage.name == stop_in:
                self.records[stage.name] = Record(None, Begun(stage.config_hash, inputs, "then", 1))
                return
            product = "same" if stage.constant else digest([stage.config, inputs])
            done = Manifest(stage.name, "init", stage.config, stage.config_hash, inputs, product, {}, {}, 1.0, "then", "now", 1)
            self.records[stage.name] = Record(done, None, True)

    def plan(self, stages: list[Stage], forced: frozenset[str] = frozenset(), only: str | None = None) -> dict[str, Decision]:
        records = {stage.name: self.records.get(stage.name, Record()) for stage in stages}
        return plan(stages, records, {stage.name: {} for stage in stages}, forced, only)


@st.composite
def pipelines(draw: st.DrawFn) -> list[Stage]:
    stages: list[Stage] = []
    for number in range(draw(st.integers(1, 7))):
        uses = draw(st.lists(st.sampled_from([stage.name for stage in stages]), unique=True, max_size=3)) if stages else []
        stages.append(Stage(f"s{number}", {"steps": draw(st.integers(0, 2))}, tuple(uses), draw(st.booleans())))
    return stages


def changed(stages: list[Stage], name: str) -> list[Stage]:
    return [replace(stage, config={"steps": stage.config["steps"] + 10}) if stage.name == name else stage for stage in stages]


some = st.integers(0, 6)


@given(pipelines())
def test_a_finished_pipeline_is_left_alone(stages: list[Stage]):
    disk = Disk()
    assert [one.action for one in disk.plan(stages).values()] == ["run"] * len(stages)
    disk.run(stages)
    assert {one.action for one in disk.plan(stages).values()} == {"skip"}
    disk.run(stages)
    assert disk.worked == []


@given(pipelines(), some)
def test_a_changed_stage_runs_again_and_the_rest_follows_only_where_products_differ(stages: list[Stage], which: int):
    disk, name = Disk(), stages[which % len(stages)].name
    disk.run(stages)
    before = {one: record.finished.product for one, record in disk.records.items() if record.finished}
    other = changed(stages, name)
    planned = disk.plan(other)
    assert planned[name].action == "run"
    assert {one for one, decision in planned.items() if decision.action != "skip"} == dependants(other, name)
    disk.run(other)
    straight = Disk()
    straight.run(other)
    assert {name: record.finished for name, record in disk.records.items()} == {n: r.finished for n, r in straight.records.items()}
    for stage in other:
        fed = any(disk.records[used].finished.product != before[used] for used in stage.uses)  # type: ignore[union-attr]
        assert (stage.name in disk.worked) == (stage.name == name or fed)


@given(pipelines(), some)
def test_what_is_planned_covers_what_is_done(stages: list[Stage], which: int):
    disk = Disk()
    disk.run(stages)
    other = changed(stages, stages[which % len(stages)].name)
    planned = disk.plan(other)
    disk.run(other)
    assert {name for name, one in planned.items() if one.action == "run"} <= set(disk.worked)
    assert set(disk.worked) <= {name for name, one in planned.items() if one.action != "skip"}


@given(pipelines(), some)
def test_a_broken_stage_is_resumed_and_ends_as_a_straight_run(stages: list[Stage], which: int):
    disk, name = Disk(), stages[which % len(stages)].name
    disk.run(stages, stop_in=name)
    planned = disk.plan(stages)
    assert planned[name].action == "resume"
    disk.run(stages)
    assert disk.worked == [stage.name for stage in stages[which % len(stages) :]]
    assert {one.action for one in disk.plan(stages).values()} == {"skip"}


@given(pipelines(), some)
def test_a_broken_stage_whose_config_changed_is_begun_anew(stages: list[Stage], which: int):
    disk, name = Disk(), stages[which % len(stages)].name
    disk.run(stages, stop_in=name)
    decision = disk.plan(changed(stages, name))[name]
    assert decision.action == "run"
    assert "removed" in decision.reason


@given(pipelines(), some)
def test_from_runs_a_stage_and_its_dependants_again_and_nothing_else(stages: list[Stage], which: int):
    disk, name = Disk(), stages[which % len(stages)].name
    disk.run(stages)
    forced = dependants(stages, name)
    assert {one for one, decision in disk.plan(stages, forced).items() if decision.action == "run"} == forced
    disk.run(stages, forced)
    assert set(disk.worked) == forced


@given(pipelines(), some)
def test_only_plans_one_stage_and_refuses_without_what_it_uses(stages: list[Stage], which: int):
    disk, stage = Disk(), stages[which % len(stages)]
    if stage.uses:
        with pytest.raises(RecipeError, match=f"uses stage '{stage.uses[0]}'"):
            disk.plan(stages, only=stage.name)
    disk.run(stages)
    assert {name: one.action for name, one in disk.plan(stages, only=stage.name).items()} == {stage.name: "skip"}


@given(pipelines(), some)
def test_ancestors_and_dependants_are_each_others_mirror(stages: list[Stage], which: int):
    name = stages[which % len(stages)].name
    for other in stages:
        assert (other.name in ancestors(stages, [name])) == (name in dependants(stages, other.name))


def test_a_product_that_is_gone_is_made_again():
    stage, disk = Stage("one", {}, ()), Disk()
    disk.run([stage])
    disk.records["one"] = replace(disk.records["one"], product_there=False)
    assert disk.plan([stage])["one"] == Decision("run", "its product is gone; the old output moves to replaced/ when it begins")


def test_a_change_of_files_from_outside_is_named():
    stage, disk = Stage("one", {}, ()), Disk()
    disk.run([stage])
    decision = plan([stage], disk.records, {"one": {"data.0.path x.csv": "new"}})["one"]
    assert decision.action == "run"
    assert "input changed (data.0.path x.csv)" in decision.reason


def test_a_difference_names_keys_and_values():
    old = {"recipe": {"training": {"steps": 1, "seed": 0}, "data": [{"path": "a"}]}}
    new = {"recipe": {"training": {"steps": 2, "seed": 0, "workers": 3}, "data": [{"path": "b"}]}}
    assert difference(old, new) == "recipe.training.steps: 1 -> 2, recipe.data.0.path: a -> b, recipe.training.workers: none -> 3"
    assert difference({"a": 1}, {"a": 1}) == ""


def test_an_unknown_stage_is_named():
    with pytest.raises(RecipeError, match="no stage 'nothing'; the pipeline has one"):
        dependants([Stage("one", {}, ())], "nothing")
