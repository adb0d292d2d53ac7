"""The demo from end to end with few training steps: what it writes, and that a second run reuses all of it."""

import json
from pathlib import Path

import pytest

from umr.demo import run_demo

FEW = {"captions": ["training.steps=3"], "instructed": ["training.steps=3"]}


@pytest.mark.slow
def test_demo_writes_its_report_and_reuses_what_is_done(tmp_path: Path, world: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    (out / "world").symlink_to(world)  # a finished World of the same seed is used as it is
    shown: list[object] = []
    content = run_demo(out, seed=0, show=shown.append, overrides=FEW)

    written = json.loads((out / "report.json").read_text())
    assert written == content
    assert set(written) == {"seconds", "machine", "seed", "stages"}
    assert [stage["name"] for stage in written["stages"]] == ["untrained", "captions", "instructed"]
    for stage in written["stages"]:
        assert len(stage["local"]) == len(stage["global"]) == 13
        hits = [scores["hit@5"] for scores in stage["local"].values()]
        assert all(0 <= hit <= 100 for hit in hits)
        assert stage["local_average"] == pytest.approx(sum(hits) / len(hits), abs=0.01)
        assert all(scores["pool size"] >= 500 for scores in stage["local"].values())
    page = (out / "report.html").read_text()
    assert page.count("class='card query'") == 10
    assert page.count("<img alt=") > 20
    assert "http" not in page.replace("http-equiv", "")
    assert any("report.html" in str(line) for line in shown)

    times = {path: path.stat().st_mtime_ns for path in (out / "instructed/model").iterdir()}
    evaluation = (out / "evaluation-instructed.json").read_bytes()
    again = run_demo(out, seed=0, overrides=FEW)
    assert {path: path.stat().st_mtime_ns for path in (out / "instructed/model").iterdir()} == times
    assert (out / "evaluation-instructed.json").read_bytes() == evaluation
    assert again == content
