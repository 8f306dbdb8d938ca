"""784-256-128-10 with dropout and batch normalization: handwritten digits, 28x28 -> 10 classes, 235,914 parameters.

The shape of the classic dense networks for MNIST (Y. LeCun et al., "Gradient-Based Learning Applied to Document
Recognition", Proc. IEEE 86, 1998, section III.C), here on the digits of calib_data, enlarged to 28x28.  Dropout: N.
Srivastava et al., JMLR 15, 2014; batch normalization: S. Ioffe, C. Szegedy, arXiv:1502.03167.
"""

from __future__ import annotations

import torch
from torch import nn


class DropoutDense(nn.Module):
    """`pixels` (batch, 784), 28x28 row by row, 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(784, 256)
        self.norm1 = nn.BatchNorm1d(256)
        self.hidden2 = nn.Linear(256, 128)
        self.norm2 = nn.BatchNorm1d(128)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(128, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.dropout(torch.relu(self.norm1(self.hidden1(pixels))))
        x = self.dropout(torch.relu(self.norm2(self.hidden2(x))))
        return self.output(x)


def dropout_dense() -> nn.Module:
    """The network with random weights, ready for inference."""
    return DropoutDense().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"pixels": torch.rand(1, 784)}
