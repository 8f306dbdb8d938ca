"""A CNN of ten layers, 7 convolutions and 3 dense: coloured pictures, 3x32x32 -> 10 classes, 235,546 parameters.

After K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks", arXiv:1409.1556 (3x3 convolutions in groups with
pooling behind, three dense layers), narrow and with batch normalization.
"""

from __future__ import annotations

import torch
from torch import nn

GROUPS = ((16, 16), (32, 32), (48, 64, 64))  # channels of each convolution; pooling behind each group
HIDDEN = (128, 64)


class Cnn10(nn.Module):
    """`image` (batch, 3, 32, 32), 0 to 1 -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for group in GROUPS:
            for wider in group:
                layers += [nn.Conv2d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
                channels = wider
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)  # (batch, 64, 4, 4)
        first, second = HIDDEN
        self.hidden1 = nn.Linear(channels * 4 * 4, first)
        self.hidden2 = nn.Linear(first, second)
        self.output = nn.Linear(second, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.hidden1(torch.flatten(self.features(image), 1)))
        return self.output(torch.relu(self.hidden2(x)))


def cnn10() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Cnn10().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 3, 32, 32)}
