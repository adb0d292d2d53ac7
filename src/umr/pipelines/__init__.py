"""Chains of stages, described in a YAML file: `umr run`. Finished stages are skipped, broken ones go on where they stopped."""

from umr.pipelines.pipeline import Pipeline, load
from umr.pipelines.runner import Options, run

__all__ = ["Options", "Pipeline", "load", "run"]
