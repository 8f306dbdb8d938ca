"""DS-CNN: spoken keywords, 1x49x10 (10 cepstral coefficients of 49 moments) -> 12 classes, 23,756 parameters.

Source: Y. Zhang, N. Suda, L. Lai, V. Chandra, "Hello Edge: Keyword Spotting on Microcontrollers", arXiv:1711.07128, the
small DS-CNN, in the form of the keyword spotting benchmark of MLPerf Tiny (C. Banbury et al., arXiv:2106.07597): biases
before the batch normalizations, padding as TensorFlow's SAME has it.  Counted with the running means and variances, as
Keras does, it has 24,908 parameters.  The softmax is left out.  Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import randomize, smooth_images
from torch import nn

CHANNELS, BLOCKS, CLASSES = 64, 4, 12
TIMES, COEFFICIENTS = 49, 10


class DsCnn(nn.Module):
    """`features` (batch, 1, 49, 10) -> logits (batch, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((1, 1, 4, 5)),  # 49 moments at stride 2 want an uneven padding of 9
            nn.Conv2d(1, CHANNELS, (10, 4), stride=2),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Dropout(0.2),
        )  # (batch, 64, 25, 5)
        self.blocks = nn.Sequential(*(layer for _ in range(BLOCKS) for layer in block()))
        self.dropout = nn.Dropout(0.4)
        self.pool = nn.AvgPool2d((25, 5))
        self.output = nn.Linear(CHANNELS, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.dropout(self.blocks(self.stem(features))))
        return self.output(torch.flatten(x, 1))


def block() -> list[nn.Module]:
    """A depthwise and a pointwise convolution, each with batch normalization and ReLU."""
    depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
    pointwise = nn.Conv2d(CHANNELS, CHANNELS, 1)
    return [depthwise, nn.BatchNorm2d(CHANNELS), nn.ReLU(), pointwise, nn.BatchNorm2d(CHANNELS), nn.ReLU()]


def ds_cnn() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(DsCnn(), [samples(32, seed)["features"] for seed in range(1, 5)])


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random spectra, by the name of `forward`'s argument."""
    return {"features": smooth_images(count, 1, TIMES, COEFFICIENTS, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
