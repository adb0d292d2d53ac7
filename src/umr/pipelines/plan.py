"""Which stages will run, and why. Nothing here touches the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from umr.errors import RecipeError
from umr.pipelines.manifest import Manifest, Record

Action = Literal["run", "resume", "skip", "perhaps"]
"""`perhaps`: finished or begun, and left so if the stages it uses, which run before it, end with the products they had."""
_SHOWN = 3
_LONGEST = 40


class Planned(Protocol):
    """What planning needs to know of a stage."""

    @property
    def name(self) -> str:
        """Of the stage."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides what it does."""
        ...

    @property
    def config_hash(self) -> str:
        """Of its kind and config."""
        ...

    @property
    def uses(self) -> tuple[str, ...]:
        """Stages whose products it takes."""
        ...


@dataclass(frozen=True)
class Decision:
    """What happens to a stage, and why, for people."""

    action: Action
    reason: str


def decide(step: Planned, record: Record, inputs: Mapping[str, str | None], forced: bool = False) -> Decision:
    """What to do with one stage.

    Args:
        step: the stage as it is asked for.
        record: what is on disk of it.
        inputs: fingerprint of each input; `None` for the product of a stage that will run and is not known yet.
        forced: run it from scratch whatever there is.
    """
    waiting = [name for name, value in inputs.items() if value is None]
    if record.finished is not None:
        return _of_finished(step, record.finished, record.product_there, inputs, waiting, forced)
    if record.begun is None:
        return Decision("run", "not run yet")
    if forced:
        return Decision("run", "--from; its unfinished run is removed when it begins")
    if record.begun.config_hash == step.config_hash and _same(record.begun.inputs, inputs):
        resumes = f"begun {record.begun.started} and not finished"
        return Decision("perhaps", f"{resumes}; goes on if {_or(waiting)} as before") if waiting else Decision("resume", resumes)
    return Decision("run", "an unfinished run of another config or other inputs is removed when it begins")


def _of_finished(
    step: Planned, done: Manifest, product_there: bool, inputs: Mapping[str, str | None], waiting: list[str], forced: bool
) -> Decision:
    old = "; the old output moves to replaced/ when it begins"
    if forced:
        return Decision("run", "--from" + old)
    if not product_there:
        return Decision("run", "its product is gone" + old)
    if done.config_hash != step.config_hash:
        return Decision("run", f"config changed ({difference(done.config, step.config)})" + old)
    if not _same(done.inputs, inputs):
        changed = sorted(name for name in done.inputs | dict(inputs) if name not in waiting and inputs.get(name) != done.inputs.get(name))
        return Decision("run", f"input changed ({', '.join(changed)})" + old)
    if waiting:
        return Decision("perhaps", f"skipped if {_or(waiting)} as before")
    return Decision("skip", f"finished {done.finished}")


def _same(before: Mapping[str, str], now: Mapping[str, str | None]) -> bool:
    """Whether the inputs are what they were, as far as is known yet."""
    return before.keys() == now.keys() and all(now[name] in (None, value) for name, value in before.items())


def _or(waiting: list[str]) -> str:
    return f"{' and '.join(waiting)}, run before it, come{'s' if len(waiting) == 1 else ''} out"


def plan(
    steps: Sequence[Planned],
    records: Mapping[str, Record],
    sources: Mapping[str, Mapping[str, str]],
    forced: frozenset[str] = frozenset(),
    only: str | None = None,
) -> dict[str, Decision]:
    """Decide for every stage from what is on disk now.

    Args:
        steps: the stages in order.
        records: what is on disk of each.
        sources: by stage, fingerprints of its inputs from outside.
        forced: stages to run from scratch.
        only: plan this stage alone; what it uses must be finished.

    Raises:
        RecipeError: with `only`, a stage that it uses has no product.
    """
    products: dict[str, str | None] = {}
    decisions: dict[str, Decision] = {}
    for step in steps:
        done = records[step.name].finished if records[step.name].product_there else None
        products[step.name] = done.product if done else None
        if only is not None and step.name != only:
            continue
        if only is not None and (absent := [name for name in step.uses if products[name] is None]):
            raise RecipeError(f"--only {only}: it uses stage {absent[0]!r}, which is not finished; run that first")
        inputs = {**{name: products[name] for name in step.uses}, **sources[step.name]}
        decisions[step.name] = decide(step, records[step.name], inputs, step.name in forced)
        if decisions[step.name].action != "skip":
            products[step.name] = None
    return decisions


def dependants(steps: Sequence[Planned], name: str) -> frozenset[str]:
    """The stage and everything that uses it, directly or not. Raises `RecipeError` for an unknown one."""
    if name not in {step.name for step in steps}:
        raise RecipeError(f"there is no stage {name!r}; the pipeline has {', '.join(step.name for step in steps)}")
    found = {name}
    for step in steps:
        if found & set(step.uses):
            found.add(step.name)
    return frozenset(found)


def ancestors(steps: Sequence[Planned], names: Sequence[str]) -> frozenset[str]:
    """The stages and everything that they use, directly or not."""
    found = set(names)
    for step in reversed(steps):
        if step.name in found:
            found |= set(step.uses)
    return frozenset(found)


def difference(old: Any, new: Any) -> str:
    """The keys that differ, with both values, shortened for one line."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = [key for key in before | after if key not in before or key not in after or before[key] != after[key]]
    shown = [f"{key}: {_brief(before.get(key, 'none'))} -> {_brief(after.get(key, 'none'))}" for key in keys[:_SHOWN]]
    return ", ".join(shown + ([f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []))


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, child in pairs for leaf in _leaves(child, f"{key}.{name}" if key else str(name))]
    return [(key, value)]


def _brief(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
