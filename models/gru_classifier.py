"""GRU classifier: which wave do three sensors see? A signal of any length and 3 channels -> 5 classes, 51,717 parameters.

The unit is that of K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", arXiv:1406.1078; the
signals are drawn (drawn.py).
"""

from __future__ import annotations

import torch
from torch import nn

UNITS = 128


class GruClassifier(nn.Module):
    """`signal` (batch, time, 3) -> logits (batch, 5), from the mean over time of what the GRU says."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, 5)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(signal)
        return self.output(states.mean(dim=1))


def gru_classifier() -> nn.Module:
    """The network with random weights, ready for inference."""
    return GruClassifier().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"signal": torch.randn(1, 60, 3)}
