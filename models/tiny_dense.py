"""A dense classifier of the smallest kind, 8-6-6-4: 8 features -> 4 classes, 124 parameters.

The layer sizes are those of textbook drawings of fully connected networks; the data are drawn (drawn.py).
"""

from __future__ import annotations

import torch
from torch import nn


class TinyDense(nn.Module):
    """`features` (batch, 8) -> logits (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(8, 6)
        self.hidden2 = nn.Linear(6, 6)
        self.output = nn.Linear(6, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.hidden2(torch.relu(self.hidden1(features)))))


def tiny_dense() -> nn.Module:
    """The network with random weights, ready for inference."""
    return TinyDense().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"features": torch.randn(1, 8)}
