"""A dense network: handwritten digits, 64 pixels -> 10 classes, 17,610 parameters.

Two hidden layers of 128 and 64 units, each followed by batch normalization (S. Ioffe, C. Szegedy, arXiv:1502.03167),
ReLU and dropout (N. Srivastava et al., JMLR 15, 2014).  The sizes are this project's own; the task is the classic one
of the data set (E. Alpaydin, C. Kaynak, "Cascading Classifiers", Kybernetika 34(4), 1998).
"""

from __future__ import annotations

import torch
from torch import nn


class Dense(nn.Module):
    """`pixels` (batch, 64), an 8x8 image row by row, values 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(64, 128)
        self.norm1 = nn.BatchNorm1d(128)
        self.hidden2 = nn.Linear(128, 64)
        self.norm2 = nn.BatchNorm1d(64)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(64, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.dropout(torch.relu(self.norm1(self.hidden1(pixels))))
        x = self.dropout(torch.relu(self.norm2(self.hidden2(x))))
        return self.output(x)


def dense() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Dense().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"pixels": torch.rand(1, 64)}
