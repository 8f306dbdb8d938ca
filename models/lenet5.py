"""LeNet-5: handwritten digits, 1x32x32 -> 10 classes, 61,706 parameters.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998.  Layer sizes are the paper's (6, 16, 120, 84, 10).  Three things are today's usual
choice instead: ReLU for tanh, max pooling for trainable subsampling, and every feature map of the second convolution
sees all six before it.
"""

from __future__ import annotations

import torch
from torch import nn


class LeNet5(nn.Module):
    """`image` (batch, 1, 32, 32), values 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.dense1 = nn.Linear(16 * 5 * 5, 120)
        self.dense2 = nn.Linear(120, 84)
        self.dense3 = nn.Linear(84, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(image)), 2)  # (batch, 6, 14, 14)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)  # (batch, 16, 5, 5)
        x = torch.relu(self.dense1(torch.flatten(x, 1)))
        x = torch.relu(self.dense2(x))
        return self.dense3(x)


def lenet5() -> nn.Module:
    """The network with random weights, ready for inference."""
    return LeNet5().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 1, 32, 32)}
