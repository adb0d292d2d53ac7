"""The demo: a pipeline (`pipeline.yaml`, beside this file) from random weights to recall with reranking, and its report.

<out>/stages/         the pipeline's folder: one folder a stage, as `umr run` leaves it
<out>/report.json     scores of every stage that is measured
<out>/report.html     the same to look at, with pictures
<out>/collection.umr  some of the test candidates, for `umr search` and `umr serve`; <out>/things.jsonl lists them
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from umr.demo import answers, report
from umr.demo.chain import MEASURES, Chain
from umr.demo.search import Search
from umr.files import write_text
from umr.pipelines import Pipeline, load, run
from umr.pipelines.report import POOLS
from umr.pipelines.runner import finished

Show = Callable[[object], None]
PIPELINE = Path(__file__).with_name("pipeline.yaml")
STAGES = "stages"


def run_demo(out: Path, seed: int = 0, show: Show = lambda _: None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the demo, or what is missing of it; a finished stage is not repeated, an interrupted one goes on.

    Args:
        out: folder for everything it makes. What another seed has left there is replaced.
        seed: of the data, the weights and the training.
        show: called with texts and rich tables as they become known.
        overrides: changes to the pipeline, as for `umr run`: `stages.captions.training.steps=10`.

    Returns:
        What `<out>/report.json` holds: scores of each stage in percent.

    Raises:
        RecipeError: a change that the pipeline does not take, or another process works in `out`.
        UmrError: whatever a stage runs into.
    """
    pipeline = load(PIPELINE, [f"seed={seed}", *overrides], out / STAGES)
    teller = _Teller(pipeline, show)
    chain = Chain(pipeline, run(pipeline, show=teller.begins))
    teller.ended()
    content, search = chain.content(seed), Search(chain)
    write_text(out / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(out / "report.html", report.html(content, chain, search, out))
    show(report.summary(content))
    show(answers.three_answers(search))
    _search_things(search, out, show)
    show(f"{out / 'report.html'}: tables, curves and pictures; {content['seconds']:.0f} s in all")
    return content


def _search_things(search: Search, out: Path, show: Show) -> None:
    """Index and search some things, and say how to open the page."""
    if find_spec("lancedb") is None:  # an extra, which the chain does without
        show("to search files of your own: pip install 'umr[serve]'")
        return
    from umr.demo import collection

    with collection.index(search.tree, search.split, search.embedder, search.model, out) as things:
        for part in collection.searches(things, search.tree, search.split):
            show(part)
        command = f"umr serve --collection {shlex.quote(str(out / collection.FOLDER))}"
        show(f"a page to search these {len(things):,} things with: {command}")


class _Teller:
    """Says what happens to each stage, and after a stage that measures what it has found."""

    def __init__(self, pipeline: Pipeline, show: Show) -> None:
        self._pipeline, self._show, self._stage = pipeline, show, ""

    def begins(self, line: str) -> None:
        """A line about the stage whose turn it is, `name: what and why`."""
        self.ended()
        self._stage = line.partition(":")[0]
        self._show(line)

    def ended(self) -> None:
        """The stage before is done."""
        done = finished(self._pipeline).get(self._stage)
        if done is not None and done.kind == "eval":
            local, everything = (f"{done.metrics[f'{pool} hit@5']:.1f}" for pool in POOLS)
            name = self._stage.removeprefix(MEASURES)
            self._show(f"{name}: hit@5 of test queries {local} on local pools, {everything} on the global pool")
