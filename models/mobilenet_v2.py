"""MobileNetV2: photographs, 3x224x224 -> 1000 classes, 3,504,872 parameters.

Source: M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv:1801.04381, table 2, width 1.  Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import randomize, smooth_images
from torch import nn

STAGES = (  # expansion, output channels, blocks, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
STEM, LAST = 32, 1280
SIZE, CLASSES = 224, 1000


class InvertedResidual(nn.Module):
    """Widen, depthwise 3x3, narrow; with a shortcut where the shape stays: (batch, channels, h, w) -> (batch, out, ..)."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        widen = convolution(channels, wide, 1) if expansion != 1 else []
        narrow = [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.layers = nn.Sequential(*widen, *convolution(wide, wide, 3, stride, groups=wide), *narrow)
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """`image` (batch, 3, 224, 224) -> logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*convolution(3, STEM, 3, 2)]
        channels = STEM
        for expansion, out, count, first in STAGES:
            for index in range(count):
                layers.append(InvertedResidual(channels, out, expansion, first if not index else 1))
                channels = out
        self.features = nn.Sequential(*layers, *convolution(channels, LAST, 1))  # (batch, 1280, 7, 7)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(LAST, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output(self.dropout(self.features(image).mean((2, 3))))


def convolution(channels: int, wider: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU6."""
    layer = nn.Conv2d(channels, wider, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(wider), nn.ReLU6()]


def mobilenet_v2() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(MobileNetV2(), [samples(8, seed)["image"] for seed in range(1, 4)])


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images, by the name of `forward`'s argument."""
    return {"image": smooth_images(count, 3, SIZE, SIZE, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
