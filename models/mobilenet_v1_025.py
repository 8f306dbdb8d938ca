"""MobileNetV1, a quarter of its channels: is there a person in the picture? 3x96x96 -> 2 classes, 216,322 parameters.

Source: A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
arXiv:1704.04861, table 1 with width multiplier 0.25, in the form of the visual wake words benchmark of MLPerf Tiny
(C. Banbury et al., arXiv:2106.07597): biases before the batch normalizations, ReLU, padding as TensorFlow's SAME has it.
Counted with the running means and variances, as Keras does, it has 221,794 parameters.  The softmax is left out.
Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import randomize, smooth_images
from torch import nn

STEM = 8
BLOCKS = (  # output channels, stride
    (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2),
    (128, 1), (128, 1), (128, 1), (128, 1), (128, 1), (256, 2), (256, 1),
)  # fmt: skip
SIZE = 96
CLASSES = 2


class MobileNetV1(nn.Module):
    """`image` (batch, 3, 96, 96) -> logits (batch, 2)."""

    def __init__(self) -> None:
        super().__init__()
        layers = [*convolution(3, STEM, 3, 2)]
        channels = STEM
        for wider, stride in BLOCKS:
            layers += convolution(channels, channels, 3, stride, groups=channels)
            layers += convolution(channels, wider, 1, 1)
            channels = wider
        self.features = nn.Sequential(*layers)  # (batch, 256, 3, 3)
        self.output = nn.Linear(channels, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output(self.features(image).mean((2, 3)))


def convolution(channels: int, wider: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU; a stride of 2 pads below and on the right only, sizes here being even."""
    same = kernel // 2 if stride == 1 else 0
    pad = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    layer = nn.Conv2d(channels, wider, kernel, stride=stride, padding=same, groups=groups)
    return [*pad, layer, nn.BatchNorm2d(wider), nn.ReLU()]


def mobilenet_v1_025() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(MobileNetV1(), [samples(16, seed)["image"] for seed in range(1, 5)])


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images, by the name of `forward`'s argument."""
    return {"image": smooth_images(count, 3, SIZE, SIZE, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
