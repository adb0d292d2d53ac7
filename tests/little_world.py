"""A World that says it is tiny and has fewer of everything, as the tests that need one do not count."""

from dataclasses import replace
from pathlib import Path

from umr.data.world.generator import WorldSummary, _generate
from umr.data.world.settings import SCALES
from umr.progress import quiet

FEW = replace(
    SCALES["tiny"], pool=100, val=10, test=20, train=dict.fromkeys(SCALES["tiny"].train, 60), names=24, captions=100, text_pairs=200
)


def make(out: Path, seed: int = 0) -> WorldSummary:
    """Make it, or find it finished."""
    with quiet():
        return _generate(out, "tiny", FEW, seed, 1)
