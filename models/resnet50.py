"""ResNet-50: photographs, 3x224x224 -> 1000 classes, 25,557,032 parameters.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.  As is
usual today, it is the 3x3 convolution of a block that has the stride, not the 1x1 before it.
Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import randomize, smooth_images
from torch import nn

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4
SIZE, CLASSES = 224, 1000


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut: (batch, channels, h, w) -> (batch, 4 * width, h / stride, w / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wider = EXPANSION * width
        self.reduce = convolution(channels, width, 1)
        self.spatial = convolution(width, width, 3, stride)
        self.expand = convolution(width, wider, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wider:
            self.shortcut = convolution(channels, wider, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.expand(torch.relu(self.spatial(torch.relu(self.reduce(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet50(nn.Module):
    """`image` (batch, 3, 224, 224) -> logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 64, 7, 2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)  # (batch, 64, 56, 56)
        blocks: list[nn.Module] = []
        channels = 64
        for stage, count in enumerate(BLOCKS):
            width = 64 << stage
            for index in range(count):
                blocks.append(Bottleneck(channels, width, stride=2 if stage and not index else 1))
                channels = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)  # (batch, 2048, 7, 7)
        self.output = nn.Linear(channels, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.pool(torch.relu(self.stem(image))))
        return self.output(x.mean((2, 3)))


def convolution(channels: int, wider: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch normalization."""
    layer = nn.Conv2d(channels, wider, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(wider))


def resnet50() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(ResNet50(), [samples(8, seed)["image"] for seed in range(1, 4)])


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images, by the name of `forward`'s argument."""
    return {"image": smooth_images(count, 3, SIZE, SIZE, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
