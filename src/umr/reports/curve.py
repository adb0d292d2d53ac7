"""`umr eval --curve`: quality against bytes and time, from the vectors of one evaluation.

<folder>/curve.json     every way to keep vectors: its score, the bytes that a search goes through, the time of a query
<folder>/curve.png      the same drawn
"""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umr.data.benchmark import Benchmark
from umr.errors import RecipeError
from umr.files import write_bytes, write_text
from umr.reports import cost_plots, latency
from umr.reports.costs import QUERIES, Cost, costs
from umr.reports.saved import Evaluation
from umr.reports.stored import stored_vectors
from umr.store.smaller import RESCORED

FORMAT = 1
JSON, PNG = "curve.json", "curve.png"
HEAD = ("dimensions", "kept as", "bytes", "average, %", "ms a query")


@dataclass(frozen=True)
class Curve:
    """Ways to keep vectors, and what each costs and gives.

    Attributes:
        evaluation: where the vectors come from.
        pool: what was searched.
        costs: ways and their scores.
        timed: how long a query took, over how many candidates.
    """

    evaluation: Evaluation
    pool: str
    costs: list[Cost]
    timed: latency.Latencies

    def milliseconds(self, cost: Cost) -> float:
        """Median time of a query, as measured."""
        return self.timed.milliseconds[cost.dimension, cost.precision, cost.rescored]

    def rows(self) -> list[tuple[object, ...]]:
        """Cells of `HEAD`, as shown at the terminal."""
        return [
            (one.dimension, cost_plots.kind_of(one), one.bytes, f"{one.main:.1f}", f"{self.milliseconds(one):.3g}") for one in self.costs
        ]

    def to_json(self) -> str:
        """Everything as JSON. Scores are the same for the same vectors; times are measured anew."""
        content = self.evaluation.content
        about = {"format": FORMAT, "model": content["model"], "data": content["data"], "instruction": content["instruction"]}
        about |= {"pool": self.pool, "stamps": content["stamps"][self.pool], "queries": QUERIES, "rescored": RESCORED}
        about["latency"] = {"setting": self.timed.setting, "candidates": self.timed.candidates, **_machine()}
        names = ("dimension", "precision", "rescored", "bytes", "main")
        points = [{**{name: asdict(one)[name] for name in names}, "milliseconds": self.milliseconds(one)} for one in self.costs]
        return json.dumps({**about, "points": points}, indent=1) + "\n"

    def write(self, folder: Path) -> None:
        """Write both files."""
        write_text(folder / JSON, self.to_json())
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        write_bytes(folder / PNG, buffer.getvalue())

    def figure(self) -> Any:
        """Score by bytes, and by time."""
        figure, (left, right) = cost_plots.axes(2)
        cost_plots.by_bytes(left, self.costs)
        cost_plots.lines(right, self.costs, self.milliseconds)
        left.set_title(f"{self.pool} pool{'s' if self.pool == 'local' else ''}, search alone")
        right.set_xscale("log")
        right.set(xlabel="milliseconds a query, measured", title=f"{self.timed.candidates:,} candidates of {self.timed.setting}")
        return figure


def curve(evaluation: Evaluation, benchmark: Benchmark, work: Path, trained: Sequence[int] = ()) -> Curve:
    """Search the vectors of an evaluation with fewer dimensions and bits, and measure how long that takes.

    Args:
        evaluation: of an embedder; what a reranker did to it is left out.
        benchmark: what was evaluated on.
        work: folder of its vectors.
        trained: lengths that the model was trained for (`Embedder.dimensions`), tried beside halves of the whole.

    Raises:
        RecipeError: no pool was searched plainly.
        StoreError: not all vectors are there.
    """
    stored = stored_vectors(evaluation, benchmark, work)
    if stored is None:
        raise RecipeError("a curve needs vectors that were searched without filter and offsets; search the local pools, too")
    found = costs(stored.searches, stored.queries, stored.targets, None, trained)
    timed = latency.measure(stored.searches, stored.queries, stored.targets, found)
    return Curve(evaluation, stored.searches.names[0], found, timed)


def _machine() -> dict[str, Any]:
    import torch

    return {"queries": latency.QUERIES, "processors": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
