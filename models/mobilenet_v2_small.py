"""A small MobileNetV2: coloured pictures, 3x64x64 -> 10 classes, 49,066 parameters.

The blocks of mobilenet_v2.py (arXiv:1801.04381), fewer and narrower.
"""

from __future__ import annotations

import torch
from mobilenet_v2 import InvertedResidual, convolution
from torch import nn

STAGES = ((1, 8, 1, 1), (4, 16, 2, 2), (4, 24, 3, 2), (4, 40, 2, 2))  # expansion, channels, blocks, stride of the first
STEM, LAST = 12, 128


class MobileNetV2Small(nn.Module):
    """`image` (batch, 3, 64, 64), 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*convolution(3, STEM, 3, 2)]
        channels = STEM
        for expansion, out, count, first in STAGES:
            for index in range(count):
                layers.append(InvertedResidual(channels, out, expansion, first if not index else 1))
                channels = out
        self.features = nn.Sequential(*layers, *convolution(channels, LAST, 1))  # (batch, 128, 4, 4)
        self.output = nn.Linear(LAST, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output(self.features(image).mean((2, 3)))


def mobilenet_v2_small() -> nn.Module:
    """The network with random weights, ready for inference."""
    return MobileNetV2Small().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 3, 64, 64)}
