"""The softmax temperature: fixed, or learned as a clamped logarithm."""

from __future__ import annotations

import math

import torch

LOWEST, HIGHEST = 0.005, 1.0
"""Bounds of a learned temperature. Below the lower one, fp32 logits of unit vectors lose their resolution."""


class Temperature(torch.nn.Module):
    """A positive scale for logits.

    The original learns the value itself, in bf16 and without bounds (spec/umarvel.md 1.4); the logarithm keeps it positive and makes
    its steps relative.

    Args:
        value: initial temperature.
        learned: train it with the model.
    """

    def __init__(self, value: float, learned: bool) -> None:
        super().__init__()
        self.log_value = torch.nn.Parameter(torch.tensor(math.log(value)), requires_grad=learned)

    def forward(self) -> torch.Tensor:
        """The temperature, in fp32."""
        return self.log_value.float().clamp(math.log(LOWEST), math.log(HIGHEST)).exp()
