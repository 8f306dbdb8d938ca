"""A dense network with two hidden layers: is a 4-bit number even or odd? 4 -> 2 classes, 272 parameters.

The bits come as analogue levels with noise (drawn.py).  A task of the first lessons on networks, known from parity
(M. Minsky, S. Papert, "Perceptrons", 1969); sizes are this project's own.
"""

from __future__ import annotations

import torch
from torch import nn


class EvenOdd(nn.Module):
    """`bits` (batch, 4), lowest first, about 0 or 1 -> logits (batch, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(4, 16)
        self.hidden2 = nn.Linear(16, 10)
        self.output = nn.Linear(10, 2)

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.hidden2(torch.relu(self.hidden1(bits)))))


def even_odd() -> nn.Module:
    """The network with random weights, ready for inference."""
    return EvenOdd().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"bits": torch.rand(1, 4)}
