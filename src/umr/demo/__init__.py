"""The whole story, offline: make a benchmark, train a retriever from nothing, measure each stage, search with it."""

from umr.demo.story import run_demo

__all__ = ["run_demo"]
