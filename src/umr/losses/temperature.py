"""The softmax temperature: fixed, or learned as a clamped logarithm."""

from __future__ import annotations

import math

import torch

from umr.errors import RecipeError

DEFAULT = 0.05
"""Where a model starts that has none yet (spec/umarvel.md 1.5)."""
LOWEST, HIGHEST = 0.005, 1.0
"""Bounds of a learned temperature. Below the lower one, fp32 logits of unit vectors lose their resolution."""


class Temperature(torch.nn.Module):
    """A positive scale for logits.

    The original learns the value itself, in bf16 and without bounds (arXiv 2507.14902); the logarithm keeps it positive and makes
    its steps relative.

    Args:
        value: initial temperature. A fixed one is used as it is; a learned one is kept between `LOWEST` and `HIGHEST`.
        learned: train it with the model.

    Raises:
        RecipeError: a value to learn from that lies outside the bounds.
    """

    def __init__(self, value: float, learned: bool) -> None:
        super().__init__()
        if learned and not LOWEST <= value <= HIGHEST:
            raise RecipeError(f"loss.temperature={value:g}: a learned temperature is kept between {LOWEST:g} and {HIGHEST:g}; start there")
        self.log_value = torch.nn.Parameter(torch.tensor(math.log(value)), requires_grad=learned)

    def forward(self) -> torch.Tensor:
        """The temperature, in fp32 (fp64 for an fp64 module)."""
        if self.log_value.requires_grad:
            # The value itself is brought back, not a copy of it: a copy would have no gradient beyond a bound, and never return.
            with torch.no_grad():
                self.log_value.clamp_(math.log(LOWEST), math.log(HIGHEST))
        return self.log_value.to(torch.promote_types(self.log_value.dtype, torch.float32)).exp()
