"""Which domain a query or a candidate comes from: that of its dataset, which its id names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from umr.data.benchmark import Benchmark
from umr.data.instructions import Instructions
from umr.data.mbeir_records import dataset_of
from umr.evaluation.modality import Flags

_MBEIR = {
    "visualnews": "news",
    "edis": "news",
    "fashion200k": "fashion",
    "fashioniq": "fashion",
    "webqa": "wiki",
    "oven": "wiki",
    "infoseek": "wiki",
    "nights": "common",
    "cirr": "common",
    "mscoco": "common",
}
"""Of UniIR's error analysis (Wei et al., ECCV 2024)."""


def domain_of(dataset: str) -> str:
    """What kind of material a dataset is: for M-BEIR as UniIR says, for World as it says itself, else a domain of its own.

    Args:
        dataset: its name, such as `"mscoco"`; capitals make no difference.
    """
    name = dataset.lower()
    return _MBEIR.get(name) or _world().get(name, name)


@cache
def _world() -> dict[str, str]:
    from umr.data.world.settings import SETTINGS

    return {one.dataset: one.domain for one in SETTINGS}


def domains(benchmark: Benchmark, asked: Mapping[str, Sequence[str]]) -> dict[int, str]:
    """Domains by dataset id, the number before the colon of qids and dids.

    Names of datasets come from the table of instructions and from the settings asked; a dataset without a name is a domain of
    its own.

    Args:
        benchmark: whose ids.
        asked: by dataset, the qids of queries that are evaluated.
    """
    table = benchmark.instructions_path
    named = dict(Instructions(table).datasets) if table.is_file() and not benchmark.one_pool else {}
    for dataset, qids in asked.items():
        number = dataset_of(qids[0])
        if number is not None:
            named[number] = dataset
    return {number: domain_of(name) for number, name in named.items()}


def same_domain(qids: Sequence[str], dids: Sequence[str], known: Mapping[int, str]) -> Flags:
    """Whether each query and the candidate beside it come from one domain. Shape (Q,).

    Args:
        qids: ids of Q queries.
        dids: ids of Q candidates.
        known: domains by dataset id.
    """
    return np.array([_domain(qid, known) == _domain(did, known) for qid, did in zip(qids, dids, strict=True)], bool)


def _domain(id: str, known: Mapping[int, str]) -> str | int | None:
    dataset = dataset_of(id)
    return dataset if dataset is None else known.get(dataset, dataset)
