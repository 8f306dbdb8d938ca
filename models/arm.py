"""Regression with three outputs: where is the hand of an arm whose five joints stand so? 5 -> 3, 17,155 parameters.

Forward kinematics, with the arm of drawn.py; sizes are this project's own.
"""

from __future__ import annotations

import torch
from torch import nn


class Arm(nn.Module):
    """`angles` (batch, 5), -1 to 1 -> the hand's place (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(5, 64)
        self.hidden2 = nn.Linear(64, 128)
        self.hidden3 = nn.Linear(128, 64)
        self.output = nn.Linear(64, 3)

    def forward(self, angles: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.hidden2(torch.relu(self.hidden1(angles))))
        return self.output(torch.relu(self.hidden3(x)))


def arm() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Arm().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"angles": torch.rand(1, 5) * 2 - 1}
