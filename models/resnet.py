"""ResNet-14: handwritten digits, 1x32x32 -> 10 classes, 174,970 parameters.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2
(the CIFAR networks): three stages of 16, 32 and 64 channels, n = 2 blocks each, 6n + 2 = 14 weighted layers, global
average pooling.  Where the shape changes, the shortcut is a projection (1x1 convolution, the paper's option B), and the
first layer takes one grey channel.
"""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: (batch, channels, h, w) -> (batch, wider, h / stride, w / stride)."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wider)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wider:
            project = nn.Conv2d(channels, wider, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(wider))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """`image` (batch, 1, 32, 32), values 0 to 1 -> logits (batch, 10)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stage1 = stage(16, 16, blocks, stride=1)  # (batch, 16, 32, 32)
        self.stage2 = stage(16, 32, blocks, stride=2)  # (batch, 32, 16, 16)
        self.stage3 = stage(32, 64, blocks, stride=2)  # (batch, 64, 8, 8)
        self.output = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.output(x.mean((2, 3)))


def stage(channels: int, wider: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks at one resolution; the first one changes it."""
    first = Block(channels, wider, stride)
    return nn.Sequential(first, *(Block(wider, wider, 1) for _ in range(blocks - 1)))


def resnet() -> nn.Module:
    """The network with random weights, ready for inference."""
    return ResNet(blocks=2).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 1, 32, 32)}
