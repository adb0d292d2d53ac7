"""A matrix of changes to a pipeline and seeds, run as one job and reported with intervals and significance: `umr study`."""

from umr.study.definition import Study, load
from umr.study.job import run

__all__ = ["Study", "load", "run"]
