"""A small CNN for coloured pictures, 3x32x32 -> 10 classes, 33,210 parameters.

Source: L. Lai, N. Suda, V. Chandra, "CMSIS-NN: Efficient Neural Network Kernels for Arm Cortex-M CPUs",
arXiv:1801.06601, table 1: three 5x5 convolutions of 32, 16 and 32 channels with pooling, and one dense layer.
"""

from __future__ import annotations

import torch
from torch import nn


class Cnn(nn.Module):
    """`image` (batch, 3, 32, 32), 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 16, 5, padding=2)
        self.conv3 = nn.Conv2d(16, 32, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.output = nn.Linear(32 * 4 * 4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(image)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = self.pool(torch.relu(self.conv3(x)))
        return self.output(torch.flatten(x, 1))


def cnn() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Cnn().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 3, 32, 32)}
