"""Zero-shot suites: readers of published file layouts, protocols, and published scores."""

from umr.evaluation.suites.evaluating import evaluate_suite
from umr.evaluation.suites.registry import SUITES, open_suite
from umr.evaluation.suites.reranking import SuiteReranking
from umr.evaluation.suites.result import SuiteResult
from umr.evaluation.suites.wordings import Wordings

__all__ = ["SUITES", "SuiteReranking", "SuiteResult", "Wordings", "evaluate_suite", "open_suite"]
