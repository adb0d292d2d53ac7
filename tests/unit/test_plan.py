import random
from collections import Counter

import numpy as np
import pytest

from umr.errors import RecipeError
from umr.training.plan import Pick, Plan


def plan(sizes=(50, 20, 7), weights=(1.0, 2.0, 0.5), batch_size=12, steps=40, epochs=None, seed=0, tasks_per_batch=None) -> Plan:
    return Plan(list(sizes), list(weights), batch_size, steps, epochs, seed, tasks_per_batch)


@pytest.mark.parametrize("tasks", [None, 2])
def test_a_batch_is_a_function_of_its_step_alone(tasks: int | None):
    straight = [plan(tasks_per_batch=tasks).batch(step) for step in range(40)]
    other, order = plan(tasks_per_batch=tasks), list(range(40)) * 2
    random.Random(0).shuffle(order)
    assert all(other.batch(step) == straight[step] for step in order)
    resumed = plan(tasks_per_batch=tasks)
    assert [resumed.batch(step) for step in range(25, 40)] == straight[25:]
    assert all(len(batch) == 12 for batch in straight)


def test_the_seed_decides():
    def everything(seed: int) -> list[list[Pick]]:
        return [plan(seed=seed).batch(step) for step in range(40)]

    assert everything(0) == everything(0) != everything(1)
    assert [Counter(pick.source for pick in batch) for batch in everything(0)] != [
        Counter(pick.source for pick in batch) for batch in everything(1)
    ]


@pytest.mark.parametrize("tasks", [None, 2, 3])
def test_a_source_is_visited_whole_before_anything_is_repeated(tasks: int | None):
    made = plan(steps=100, tasks_per_batch=tasks)
    visits: dict[int, list[Pick]] = {0: [], 1: [], 2: []}
    for step in range(100):
        for pick in made.batch(step):
            visits[pick.source].append(pick)
    for source, size in enumerate((50, 20, 7)):
        picks = visits[source]
        assert [pick.epoch for pick in picks] == [position // size for position in range(len(picks))]
        rounds = [[pick.index for pick in picks[start : start + size]] for start in range(0, len(picks) - size + 1, size)]
        assert len(rounds) > 2 and all(sorted(each) == list(range(size)) for each in rounds)
        assert rounds[0] != rounds[1], "each pass has an order of its own"


def test_shares_follow_size_times_weight():
    counts = plan(batch_size=60, steps=500).counts_SN.sum(0)
    expected = np.array([50 * 1.0, 20 * 2.0, 7 * 0.5])
    assert counts / counts.sum() == pytest.approx(expected / expected.sum(), abs=0.01)


def test_tasks_come_in_equal_parts_and_in_their_shares():
    made = plan(sizes=(30, 20, 25, 15, 10), weights=(1,) * 5, batch_size=12, steps=300, tasks_per_batch=3)
    for step in range(300):
        parts = Counter(pick.source for pick in made.batch(step))
        assert list(parts.values()) == [4, 4, 4]
    share = made.counts_SN.sum(0) / made.counts_SN.sum()
    assert share == pytest.approx([0.30, 0.20, 0.25, 0.15, 0.10], abs=0.003)
    # ... evenly over time: no stretch of 20 batches is without any of them.
    assert all((made.counts_SN[start : start + 20].sum(0) > 0).all() for start in range(280))


def test_a_source_larger_than_its_part_takes_one_part_of_every_batch_and_the_rest_is_shared_as_weighted():
    made = plan(sizes=(600, 300, 100), weights=(1, 1, 1), batch_size=12, steps=400, tasks_per_batch=2)
    assert made.counts_SN.sum(0) / made.counts_SN.sum() == pytest.approx([0.5, 0.375, 0.125], abs=0.003)


def test_an_empty_source_is_never_drawn():
    for tasks in (None, 2):
        made = plan(sizes=(90, 10, 0), weights=(1, 1, 1), batch_size=4, steps=200, tasks_per_batch=tasks)
        assert made.counts_SN[:, 2].sum() == 0
        assert all(made.batch(step) for step in range(200))


def test_epochs_become_steps():
    assert plan(sizes=(50, 20), weights=(1, 2), batch_size=9, steps=None, epochs=3).steps == 30
    assert plan(sizes=(3,), weights=(1,), batch_size=100, steps=None, epochs=1).steps == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 10, "tasks_per_batch": 3}, "batch_size=10 is no multiple of training.tasks_per_batch=3"),
        ({"tasks_per_batch": 4}, "tasks_per_batch=4, but the data has only 3 settings"),
        ({"sizes": (5, 0, 4), "tasks_per_batch": 3}, "has only 2 settings"),
        ({"sizes": (0, 0, 0)}, "no training example"),
    ],
)
def test_what_cannot_be_planned(changes: dict, says: str):
    with pytest.raises(RecipeError, match=says):
        plan(**changes)
