"""A detector's head on one trunk: which of 5 shapes, and its box; 3x48x48, 124,385 parameters.

After P. Sermanet et al., "OverFeat", arXiv:1312.6229, section 4: classification and box regression read the same
features.
"""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (24, 32, 48, 64)


class Detector(nn.Module):
    """`image` (batch, 3, 48, 48), 0 to 1 -> `scores` (batch, 5), `box` (batch, 4): x1, y1, x2, y2, shares of the side."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wider in CHANNELS:
            layers += [nn.Conv2d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = wider
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 3 * 3, 128), nn.ReLU())
        self.scores = nn.Linear(128, 5)
        self.box = nn.Linear(128, 4)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.trunk(image)
        return {"scores": self.scores(x), "box": self.box(x)}


def detector() -> nn.Module:
    """The network with random weights, ready for inference."""
    return Detector().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 3, 48, 48)}
