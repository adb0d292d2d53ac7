"""Actors of a real Ray: the bytes of one process, though one of them is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from umr.bulk.crew import Crew
from umr.bulk.embed import Counts, embed
from umr.bulk.on_ray import Share, share_of
from umr.bulk.work import Load
from umr.errors import RecipeError
from umr.progress import quiet
from unit.bulk.bags import COUNT, Bag, Deadly, contents, marks, write_manifest


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the actors
    with quiet():
        yield


def test_without_ray_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"pip install 'umr\[ray\]'"):
        embed(write_manifest(tmp_path), Bag(), tmp_path / "out", crew=Crew(ray="local"))


GPU_HOST, HEAD = {"CPU": 8, "GPU": 2}, {"CPU": 64}


@pytest.mark.parametrize(
    ("nodes", "asked", "given"),
    [
        ([{"CPU": 2}], (None, None), Share(1, 2, 0)),
        ([{"CPU": 2}], (2, None), Share(2, 1, 0)),
        ([{"CPU": 2}, {"CPU": 64}], (4, None), Share(4, 2, 0)),
        ([HEAD, GPU_HOST, GPU_HOST], (None, None), Share(4, 4, 1)),
        ([HEAD, GPU_HOST, GPU_HOST], (8, None), Share(8, 2, 0.5)),
        ([HEAD, GPU_HOST], (1, 3), Share(1, 3, 1)),
    ],
)
def test_workers_share_what_machines_have(nodes: list[dict[str, float]], asked: tuple[int | None, int | None], given: Share):
    assert share_of(nodes, *asked) == given


@pytest.mark.parametrize("asked", [(2, 5), (1, 9), (9, None)])
def test_more_than_the_machines_have_is_an_error(asked: tuple[int, int | None]):
    with pytest.raises(RecipeError, match=r"do not fit into a Ray cluster of machines with \[8\] cores"):
        share_of([HEAD, GPU_HOST], *asked)


@pytest.mark.slow
def test_a_killed_actor_changes_nothing(tmp_path: Path):
    pytest.importorskip("ray")
    manifest = write_manifest(tmp_path)
    embed(manifest, Bag(), tmp_path / "straight", rows=10)
    left = marks(tmp_path / "marks", 1)
    assert _embed_on_ray(manifest, Deadly(left, "thing 13"), tmp_path / "out") == Counts(COUNT, COUNT, 0)
    assert not list(left.iterdir())  # one was killed
    assert len(list((tmp_path / "pids").iterdir())) >= 2  # and another begun
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def _embed_on_ray(manifest: Path, load: Load, out: Path, tries: int = 3) -> Counts:
    """Ray gives its own processes 15 seconds to start, which on a busy machine may be too few; nothing has been done then."""
    try:
        return embed(manifest, load, out, rows=10, crew=Crew(workers=2, threads=1, ray="local"))
    except RecipeError:
        if tries == 1:
            raise
        return _embed_on_ray(manifest, load, out, tries - 1)
