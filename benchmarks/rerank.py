"""Pairs a second of `Reranker.score_pairs` against plain `CrossEncoder.predict`, with the same weights on a mixed set of pairs.

    python benchmarks/rerank.py [--queries N] [--candidates N] [--runs N] [--size tiny|small|base] [--family FAMILY] [--template NAME]

Every query is scored with the same number of candidates, as after a retrieval. Both sides get the same in-memory texts and images,
taking turns (ours, theirs, ours, theirs, ...), after a check that their scores agree. sentence-transformers runs as it comes, with its
batches of 32; ours with its default token budget of a CPU. Prints a table and writes benchmarks/results/rerank.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from encode import Row, describe, draw_image, machine, make_corpus, seconds, spread

from umr.items import Item
from umr.models.reranker import Reranker
from umr.models.tiny import FAMILIES, SIZES, make_checkpoint
from umr.rendering.pair_template import BUILT_IN
from umr.rendering.pairs import Pair

RESULT = Path(__file__).parent / "results" / "rerank.json"
TOLERANCE = 1e-4
INSTRUCTION = "Find what shows the same thing."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--family", choices=FAMILIES, default="qwen3-vl")
    parser.add_argument("--template", choices=list(BUILT_IN), default="umarvel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary), arguments)
    print_table(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from sentence_transformers import CrossEncoder

    asked = make_pairs(arguments.queries, arguments.candidates)
    texts = [text for query, candidate in asked for _, text, _ in (query, candidate)]
    parameters = make_checkpoint(arguments.family, folder / "init", [*texts, INSTRUCTION], arguments.size)
    ours = Reranker.load(folder / "init", device="cpu", template=arguments.template)
    if reasons := ours.save(folder / "model"):
        raise SystemExit(f"the model cannot be loaded by sentence-transformers: {reasons}")
    theirs = CrossEncoder(str(folder / "model"), device="cpu")

    def run_ours() -> np.ndarray:
        return ours.score_pairs(as_pairs(asked))

    def run_theirs() -> np.ndarray:
        scores: np.ndarray = theirs.predict(as_inputs(asked), prompt=INSTRUCTION, show_progress_bar=False)
        return scores

    difference = float(np.abs(run_ours() - run_theirs()).max())  # also warms both up
    if difference > TOLERANCE:
        raise SystemExit(f"the two give different scores (by {difference:.1e}); a comparison of their speed would mean nothing")
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(arguments.runs):
        for side, run in (("ours", run_ours), ("theirs", run_theirs)):
            start = time.process_time()
            rates[side].append(len(asked) / seconds(run))
            cpu_seconds[side].append(time.process_time() - start)
    engine: Any = ours.engine
    corpus = describe([candidate for _, candidate in asked], engine.prepare(as_pairs(asked), {}))
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "model": {"family": arguments.family, "size": arguments.size, "parameters": parameters, "dtype": "float32", "kernel": "sdpa"},
        "pairs": {"queries": arguments.queries, "template": arguments.template, "pairs": corpus.pop("items"), **corpus},
        "largest_difference": difference,
        "pairs_per_second": {side: spread(values) for side, values in rates.items()},
        "ratio": spread([mine / other for mine, other in zip(rates["ours"], rates["theirs"], strict=True)]),
        # Steadier than the ratio of rates where other programs run on the same cores.
        "cpu_seconds": {side: spread(values) for side, values in cpu_seconds.items()},
        "cpu_ratio": spread([other / mine for mine, other in zip(cpu_seconds["ours"], cpu_seconds["theirs"], strict=True)]),
    }


def make_pairs(queries: int, candidates: int) -> list[tuple[Row, Row]]:
    """Each query, a text or an image with a text, beside candidates of every kind, drawn from a pool that queries share."""
    draw, pool = random.Random(1), make_corpus(2 * queries + candidates)
    asked: list[Row] = []
    for number in range(queries):
        text = f"a scene like number {number} with another season"
        asked.append(("image and text", text, draw_image(draw)) if number % 2 else ("short text", text, None))
    return [(query, candidate) for query in asked for candidate in draw.sample(pool, candidates)]


def as_pairs(asked: list[tuple[Row, Row]]) -> list[Pair]:
    """Fresh items, so that no content hash is left over from an earlier run; a row that occurs twice is one item."""
    items = {id(row): Item.of(text=row[1], image=row[2]) for pair in asked for row in pair}
    return [Pair(items[id(query)], INSTRUCTION, items[id(candidate)]) for query, candidate in asked]


def as_inputs(asked: list[tuple[Row, Row]]) -> list[Any]:
    def one(row: Row) -> Any:
        return {**({"image": row[2]} if row[2] is not None else {}), **({"text": row[1]} if row[1] else {})}

    return [(one(query), one(candidate)) for query, candidate in asked]


def print_table(result: dict[str, Any]) -> None:
    about, pairs, model = result["machine"], result["pairs"], result["model"]
    print(f"\n{result['date']}, {about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}")
    print(f"{model['family']}, {model['parameters'] / 1e6:.1f} M parameters, fp32; scores agree to {result['largest_difference']:.0e}")
    print(f"{pairs['pairs']} pairs of {pairs['queries']} queries, {pairs['tokens']} tokens, {pairs['patches']} patches")
    print(f"\n{'':28}{'median':>10}{'lowest':>10}{'highest':>10}")
    for side, name in (("ours", "Reranker.score_pairs"), ("theirs", "CrossEncoder.predict")):
        row = result["pairs_per_second"][side]
        print(f"{name:28}{row['median']:10.1f}{row['lowest']:10.1f}{row['highest']:10.1f}  pairs/s")
    for name in ("ratio", "cpu_ratio"):
        row = result[name]
        print(f"{name.replace('cpu_', 'CPU time, '):28}{row['median']:10.2f}{row['lowest']:10.2f}{row['highest']:10.2f}")


if __name__ == "__main__":
    main()
