"""The plots of the demo's report."""

from __future__ import annotations

from typing import Any

from umr.evaluation.weights import Weights
from umr.gallery import plot
from umr.pipelines.report import POOLS, draw_averages

Logs = dict[str, list[dict[str, Any]]]
DASHES = ("-", "--", "-.", ":")


def curves(content: dict[str, Any], retrievers: Logs, rerankers: Logs) -> str:
    """Training losses, and the averages after each stage.

    Args:
        content: what `report.json` holds.
        retrievers: logs of the stages trained by InfoNCE.
        rerankers: logs of those trained by answers.
    """
    figure, (losses, answers, scores) = _pyplot().subplots(1, 3, figsize=(13, 3.8), layout="constrained", width_ratios=(4, 3, 4))
    _losses(losses, retrievers)
    losses.set(ylabel="InfoNCE", title="Loss of the retriever")
    _losses(answers, rerankers)
    answers.set(ylabel="answers and ranking, half each", title="Loss of the reranker")
    averages = ((stage["name"], {pool: stage[f"{pool}_average"] for pool in POOLS}) for stage in content["stages"])
    draw_averages(scores, list(averages))
    scores.set(ylabel="average hit@5, %", ylim=(0, 100))
    return plot(figure, "training losses, and average hit@5 by stage")


def _losses(axes: Any, logs: Logs) -> None:
    start = 0
    for number, (stage, log) in enumerate(logs.items()):
        axes.plot([start + line["step"] for line in log], [line["loss"] for line in log], DASHES[number % len(DASHES)], label=stage)
        start += log[-1]["step"] if log else 0
    axes.set(xlabel="step")
    axes.legend()


def weight_curves(weights: Weights) -> str:
    """What each weight of the reranker scores on the validation queries, relative to none, and the weights chosen."""
    figure, axes = _pyplot().subplots(figsize=(8, 3.8), layout="constrained")
    for setting, points in weights.curve.items():
        axes.plot([one.weight for one in points], [one.main - points[0].main for one in points], color="#bbbbbb", linewidth=0.8)
        chosen = next(one for one in points if one.weight == weights.of(setting))
        axes.plot(chosen.weight, chosen.main - points[0].main, "o", color="#b3452f", markersize=4)
    common = weights.common
    axes.plot([one.weight for one in common], [one.main - common[0].main for one in common], color="#2f5fb3", label="mean of the settings")
    axes.plot([], [], color="#bbbbbb", linewidth=0.8, label="a setting")
    axes.plot([], [], "o", color="#b3452f", markersize=4, label="its chosen weight")
    axes.set(xlabel="weight of P(Yes) beside the cosine", ylabel="points gained", title="Validation queries")
    axes.legend()
    return plot(figure, "scores of validation queries by weight of the reranker")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
