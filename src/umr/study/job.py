"""Running a study: every distinct stage once, several at a time where wished, in an order that their inputs allow.

<folder>/stages/<stage>-<hash>/      as in a pipeline
<folder>/vectors/                    vectors of all stages
<folder>/report.json, .md, .html     and a plot for each table
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from umr.errors import RecipeError, UmrError
from umr.pipelines.needs import missing
from umr.pipelines.pipeline import Mistakes
from umr.pipelines.plan import decide
from umr.pipelines.processes import alone_in
from umr.pipelines.runner import begin, finish, work
from umr.processes import end_with_parent
from umr.progress import quiet
from umr.study import report
from umr.study.definition import Study
from umr.study.nodes import Matrix, Node, matrix

Show = Callable[[str], None]


def run(study: Study, workers: int = 1, show: Show | None = None) -> dict[str, object]:
    """Run what is not done, and write the report, also of what there is when it is interrupted.

    Args:
        study: checked.
        workers: stages to run at a time; more than one run in processes of their own, which share the cores.
        show: gets a line for each stage.

    Returns:
        What `report.json` holds.

    Raises:
        Mistakes: something from outside is missing.
        RecipeError: another process runs the study, or a stage failed in a process of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("a study runs in one process; start it without torchrun, with --workers for several stages at a time")
    with alone_in(study.folder):
        whole = matrix(study)
        if lines := missing_for(whole):
            raise Mistakes(lines)
        try:
            _run_all(list(whole.nodes.values()), workers, show or _nowhere)
        finally:
            content = report.write(study, whole)
    return content


def missing_for(whole: Matrix) -> list[str]:
    """What the stages that are not done need from outside and is not there; a line for each."""
    todo = [node for node in whole.nodes.values() if not node.done]
    return missing(((node.step.name, need) for node in todo for need in node.step.needs), whole.sources)


def _run_all(nodes: list[Node], workers: int, show: Show) -> None:
    todo = [node for node in nodes if not node.done]
    total = len(todo)
    show(f"{len(nodes)} distinct stages, {len(nodes) - len(todo)} done")
    started = time.monotonic()

    def tell(node: Node, left: int) -> None:
        done = node.record.finished
        seconds = done.seconds if done else 0.0
        show(f"{node.key}: {seconds:.0f} s; {left} of {total} left after {time.monotonic() - started:.0f} s")

    if workers == 1:
        for number, node in enumerate(todo, 1):
            run_node(node)
            tell(node, len(todo) - number)
    else:
        _run_several(todo, workers, tell)


def run_node(node: Node) -> None:
    """Run or resume one stage whose inputs are finished."""
    inputs = {**{name: _product_of(used) for name, used in node.uses.items()}, **node.sources}
    decision = decide(node.step, node.record, inputs)
    if decision.action == "skip":
        return
    started = time.monotonic()
    begin(node.step, node.place, inputs, fresh=decision.action == "run")
    finish(node.step, node.place, work(node.step, node.place), time.monotonic() - started)


def _product_of(node: Node) -> str:
    done = node.record.finished
    if done is None:
        raise RecipeError(f"{node.place.folder}: stage {node.step.name} is not finished; run the study again")
    return done.product


def _run_several(todo: list[Node], workers: int, tell: Callable[[Node, int], None]) -> None:
    """After a failure nothing more is begun, and what runs comes to its end."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))  # for the processes that begin now
    failures: list[str] = []
    running: dict[Future[str | None], Node] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        try:
            while todo or running:
                for node in ready(todo, running.values(), 0 if failures else workers - len(running)):
                    todo.remove(node)
                    running[pool.submit(_attempt, node)] = node
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    node = running.pop(future)
                    failure = future.result()
                    if failure is None:
                        tell(node, len(todo) + len(running))
                    else:
                        failures.append(f"{node.key}: {failure}")
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failures:
        raise RecipeError("; ".join(failures))


def ready(todo: Iterable[Node], running: Iterable[Node], free: int) -> list[Node]:
    """Stages that may begin now, at most `free`: inputs finished, and no other stage writing vectors of the same model."""
    waiting = list(todo)
    unfinished = {node.key for node in (*waiting, *running)}
    models = {node.embeds for node in running}
    chosen: list[Node] = []
    for node in waiting:
        if (
            len(chosen) < free
            and not unfinished & {used.key for used in node.uses.values()}
            and (node.embeds not in models or not node.embeds)
        ):
            chosen.append(node)
            models.add(node.embeds)
    return chosen


def _prepare() -> None:
    # An interruption of the terminal reaches every process: the study's own ends these, which resume from what is on disk. Ended by
    # themselves, they could be missed before the interruption is noticed, as a broken pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _attempt(node: Node) -> str | None:
    """`run_node` in a process of its own: the failure as text, for not every exception can be sent back."""
    try:
        with quiet():
            run_node(node)
    except UmrError as error:
        return str(error)
    except Exception:
        return " ".join(traceback.format_exc().split())
    return None


def _nowhere(line: str) -> None:
    pass
