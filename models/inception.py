"""Inception blocks and an auxiliary head: coloured pictures, 3x32x32 -> 10 classes, 95,988 parameters.

Source: C. Szegedy et al., "Going Deeper with Convolutions", arXiv:1409.4842, figure 2(b) and section 5: four branches
joined along the channels, and a second classifier behind the first block that helps training.  It answers in training
only, so it is not in the exported file; its 810 parameters are among those counted here.
"""

from __future__ import annotations

import torch
from torch import nn


class Inception(nn.Module):
    """1x1, 1x1 and 3x3, 1x1 and 5x5, pooling and 1x1, side by side: (batch, channels, h, w) -> (batch, sum, h, w)."""

    def __init__(self, channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.one = convolution(channels, one, 1)
        self.three = nn.Sequential(convolution(channels, three[0], 1), convolution(three[0], three[1], 3))
        self.five = nn.Sequential(convolution(channels, five[0], 1), convolution(five[0], five[1], 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(channels, pool, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class InceptionNet(nn.Module):
    """`image` (batch, 3, 32, 32), 0 to 1 -> logits (batch, 10); in training also those of the auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 24, 3)
        self.block1 = Inception(24, 16, (24, 32), (8, 16), 16)
        self.block2 = Inception(80, 32, (32, 48), (12, 24), 24)
        self.block3 = Inception(128, 40, (40, 64), (16, 32), 24)
        self.pool = nn.MaxPool2d(2)
        self.auxiliary = nn.Linear(80, 10)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(160, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        first = self.block1(self.pool(self.stem(image)))  # (batch, 80, 16, 16)
        x = self.block3(self.pool(self.block2(self.pool(first))))  # (batch, 160, 4, 4)
        logits = self.output(self.dropout(x.mean((2, 3))))
        return (logits, self.auxiliary(first.mean((2, 3)))) if self.training else logits


def convolution(channels: int, wider: int, kernel: int) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    layer = nn.Conv2d(channels, wider, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(wider), nn.ReLU())


def inception() -> nn.Module:
    """The network with random weights, ready for inference."""
    return InceptionNet().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 3, 32, 32)}
