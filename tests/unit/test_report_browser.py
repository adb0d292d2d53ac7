"""The pages in a real browser, Debian's chromium without a window: no complaint on its console, no request, something to see."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from umr.progress import quiet
from umr.reports.comparison import compare
from umr.reports.comparison_page import html
from umr.reports.looking import Looking
from umr.reports.saved import load, load_several
from umr.reports.stored import benchmark_of
from umr.reports.writing import write_report
from unit.saved_evaluations import Saved, save_evaluations

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_evaluations(tmp_path_factory.mktemp("saved"))


@dataclass(frozen=True)
class Visit:
    """What a browser has seen: lines on its console, addresses that the page asked for, and the picture."""

    console: list[str]
    requests: list[str]
    picture: np.ndarray


def visit(page: Path, folder: Path, *options: str, size: str = "1200,2000") -> Visit:
    """Open a page; no name is resolved, so nothing leaves the machine."""
    log, picture = folder / "net.json", folder / "page.png"
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", f"--log-net-log={log}", f"--window-size={size}", f"--screenshot={picture}", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    parameters = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Requests of pages have an origin, "null" for files; those of the browser itself, for its dictionaries and the like, have none.
    asked = [one["url"] for one in parameters if "url" in one and one.get("initiator", "not an origin") != "not an origin"]
    return Visit(
        [line for line in done.stderr.splitlines() if ":CONSOLE:" in line], asked, np.asarray(PIL.Image.open(picture).convert("L"))
    )


def test_the_browser_would_tell(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!doctype html><img src='http://outside.invalid/x.png'><script>nonsense()</script>")
    seen = visit(tmp_path / "bad.html", tmp_path)
    assert seen.requests == ["http://outside.invalid/x.png"]
    assert any("nonsense is not defined" in line for line in seen.console)


def test_the_page_of_an_evaluation(saved: Saved, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with quiet():
        write_report(load(saved.reranked), page, saved.tree, saved.work)
    light, dark = (visit(page, tmp_path, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    assert (light.console, light.requests, dark.console, dark.requests) == ([], [], [], [])
    assert np.median(light.picture) > 240 and np.median(dark.picture) < 40
    assert min(np.std(light.picture), np.std(dark.picture)) > 15  # not a blank page


def test_the_page_of_a_comparison(saved: Saved, tmp_path: Path) -> None:
    loaded = load_several([saved.first, saved.poor])
    page = tmp_path / "comparison.html"
    page.write_text(html(compare(loaded), Looking.at(benchmark_of(loaded[0], saved.tree), loaded[0])))
    seen = visit(page, tmp_path, size="500,2000")
    assert (seen.console, seen.requests) == ([], [])
    assert np.std(seen.picture) > 15
