import io
import sys
import threading

import pytest

from umr import progress as module
from umr.progress import progress, quiet, track


@pytest.fixture
def lines(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_say_how_far_how_fast_and_how_long(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("embedding", total=500) as bar:
        now[0] += 4
        bar.advance(120)
        now[0] += 96
        bar.advance(180)
    assert lines() == [
        "embedding: 120/500 items, 30/s, 13 s left",
        "embedding: 300/500 items, 3/s, 67 s left",
        "embedding: done, 300/500 items in 1 min 40 s, 3/s",
    ]


def test_lines_come_no_more_often_than_the_interval(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("reading", unit="files") as bar:
        for _ in range(25):
            now[0] += 1
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "reading: 10 files, 1/s",
        "reading: 20 files, 1/s",
        "reading: done, 25 files in 25 s, 1/s",
    ]


def test_track_yields_everything_and_counts_the_length_itself(lines):
    assert list(track("abc", "spelling", unit="letters")) == ["a", "b", "c"]
    assert lines()[-1].startswith("spelling: done, 3/3 letters in ")
    assert list(track(iter("abc"), "spelling")) == ["a", "b", "c"]
    assert lines()[-1].startswith("spelling: done, 3 items in ")
    assert list(track([], "nothing")) == []


def test_work_that_breaks_off_says_where(lines):
    def work():
        for number in track([1, 2, 3], "counting"):
            if number == 3:
                raise KeyError

    with pytest.raises(KeyError):
        work()
    written = lines()
    assert written[-1].startswith("counting: stopped at 2/3 items")


def test_quiet_silences_also_in_other_threads(lines):
    with quiet():
        with quiet():
            pass
        thread = threading.Thread(target=lambda: list(track([1], "inside")))
        thread.start()
        thread.join()
        assert list(track([1, 2], "inside")) == [1, 2]
    assert lines() == []
    list(track([1], "outside"))
    assert lines() != []


def test_advancing_from_many_threads_counts_all(lines):
    with progress("adding", total=4000) as bar:
        threads = [threading.Thread(target=lambda: [bar.advance() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "done, 4000/4000" in lines()[-1]


def test_terminal_gets_one_display_with_nested_bars(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    for _ in track([1, 2], "outer"):
        outer = module._live
        for _ in track([1, 2, 3], "inner", unit="rows"):
            assert module._live is outer
    assert module._live is None
    assert "outer" in terminal.getvalue()
    assert "inner" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_rich_is_not_imported_before_a_terminal_needs_it():
    import subprocess

    code = "import sys, umr.progress, umr.media, umr.items; print([m for m in ('rich', 'PIL', 'av', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert run.stdout.strip() == "[]"
