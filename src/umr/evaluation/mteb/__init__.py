"""mteb's tasks with our models, and our benchmarks as mteb's tasks.

The package mteb is an extra (`pip install "umr[mteb]"`) and takes seconds to import, so nothing else in umr imports this one.

Example:
    >>> from umr.evaluation.mteb import MtebEncoder, named_tasks, run                                       # doctest: +SKIP
    >>> run(MtebEncoder(Embedder.load("run/model")), named_tasks(["NFCorpus"]), Path("runs/mteb"))          # doctest: +SKIP
"""

from umr.evaluation.mteb.installed import check_installed

check_installed()

from umr.evaluation.mteb.encoder import MtebEncoder  # noqa: E402  (mteb must be there)
from umr.evaluation.mteb.reranker import MtebReranker  # noqa: E402
from umr.evaluation.mteb.running import named_tasks, run, score_rows  # noqa: E402
from umr.evaluation.mteb.tasks import BenchmarkTask, benchmark_tasks  # noqa: E402

__all__ = ["BenchmarkTask", "MtebEncoder", "MtebReranker", "benchmark_tasks", "named_tasks", "run", "score_rows"]
