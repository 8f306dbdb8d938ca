"""CLDNN, convolution + LSTM + dense: spoken words from filter-bank energies, 60x40 -> 12 classes, 89,468 parameters.

Source: T. Sainath, O. Vinyals, A. Senior, H. Sak, "Convolutional, Long Short-Term Memory, Fully Connected Deep Neural
Networks", ICASSP 2015, figure 1: convolution along frequency with pooling, a linear layer that narrows, LSTM, dense
layers.  One LSTM layer instead of two; the words are drawn (drawn.py), and may have any length.
"""

from __future__ import annotations

import torch
from torch import nn

BANDS, CHANNELS, NARROW, UNITS, HIDDEN, CLASSES = 40, 24, 64, 96, 64, 12


class Cldnn(nn.Module):
    """`features` (batch, time, 40) -> logits (batch, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, (5, 8), padding=(2, 0))
        self.pool = nn.MaxPool2d((1, 3))
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, (3, 4), padding=(1, 0))
        self.narrow = nn.Linear(CHANNELS * 8, NARROW)
        self.lstm = nn.LSTM(NARROW, UNITS, batch_first=True)
        self.hidden = nn.Linear(UNITS, HIDDEN)
        self.output = nn.Linear(HIDDEN, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(features.unsqueeze(1))))  # (batch, 24, time, 11)
        x = torch.relu(self.conv2(x)).transpose(1, 2)  # (batch, time, 24, 8)
        states, _ = self.lstm(self.narrow(x.flatten(2)))
        return self.output(torch.relu(self.hidden(states.mean(dim=1))))


def cldnn() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Cldnn().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"features": torch.randn(1, 60, BANDS)}
