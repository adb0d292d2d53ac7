"""Metrics, and the evaluation of an encoder on a benchmark."""

from umr.evaluation.mbeir import evaluate
from umr.evaluation.result import EvaluationResult

__all__ = ["EvaluationResult", "evaluate"]
