"""Real processes that begin warm: forked from a server that has imported what `umr` needs, once a worker instead of once a process.

They can be killed, interrupted and waited for like any other; only the seconds of imports are saved. What is told of the start itself
(`python -m umr`, torchrun) is tested with `subprocess`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORTED = ["umr.cli", "umr.pipelines", "umr.study", "umr.training.run", "umr.models.reranker", "umr.evaluation", "umr.mining.mine", "peft"]


class Warm:
    """A process that was started; what it wrote to stdout and stderr can be read when it has ended."""

    def __init__(self, process: BaseProcess, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process, self._kept, self._folder = process, folder, Path(folder.name)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or `None` while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self.wait()

    def wait(self, timeout: float = 300) -> int:
        """Its exit code. One that takes longer (seconds) is killed, and the test fails."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"still running after {timeout} s: {self.stderr[-2000:]}")
        return code


def umr(*words: str | Path, environment: Mapping[str, str] | None = None, session: bool = False) -> Warm:
    """Start `umr WORDS`. With `session` its pid is also the id of a process group, with everything that it starts."""
    return _start(_umr, [str(word) for word in words], environment, session)


def script(text: str, *arguments: str | Path) -> Warm:
    """Start a Python script, indented or not, whose `sys.argv[1:]` are the arguments. It can import what tests import."""
    return _start(_script, [textwrap.dedent(text), *map(str, arguments)], None, False)


def ranks(count: int, *words: str | Path) -> list[Warm]:
    """Start `umr WORDS`, or a `.py` file with arguments, in processes that find each other as torchrun's do, on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common["CUDA_VISIBLE_DEVICES"] = ""
    action = _file if str(words[0]).endswith(".py") else _umr
    return [
        _start(action, [str(word) for word in words], common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, False) for rank in range(count)
    ]


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _start(action: Any, words: Sequence[str], environment: Mapping[str, str] | None, session: bool) -> Warm:
    folder = tempfile.TemporaryDirectory(prefix="umr-warm-")
    process = _server().Process(target=_run, args=(action, list(words), dict(environment or {}), session, Path(folder.name)))
    process.start()
    return Warm(process, folder)


def _run(action: Any, words: list[str], environment: dict[str, str], session: bool, folder: Path) -> None:
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests in the background makes their children deaf to it
    multiprocessing.set_start_method(None, force=True)  # its own children begin as those of any process
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    action(words)


def _umr(words: list[str]) -> None:
    from umr.cli import main

    sys.exit(main(words))


def _script(words: list[str]) -> None:
    text, *arguments = words
    sys.argv = ["script", *arguments]
    exec(compile(text, "script", "exec"), {"__name__": "__main__"})


def _file(words: list[str]) -> None:
    import runpy

    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
