"""VGG-16: photographs, 3x224x224 -> 1000 classes, 138,357,544 parameters.

Source: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556,
table 1, configuration D.  It has no batch normalization.  Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import dense_layers, randomize, smooth_images
from torch import nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SIZE, CLASSES = 224, 1000


class Vgg16(nn.Module):
    """`image` (batch, 3, 224, 224) -> logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES:
            for wider in stage:
                layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU()]
                channels = wider
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)  # (batch, 512, 7, 7)
        self.dense1, self.dense2, self.output = dense_layers((512 * 7 * 7, 4096, 4096, CLASSES))
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(self.features(image), 1)
        x = self.dropout(torch.relu(self.dense1(x)))
        x = self.dropout(torch.relu(self.dense2(x)))
        return self.output(x)


def vgg16() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(Vgg16())


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images, by the name of `forward`'s argument."""
    return {"image": smooth_images(count, 3, SIZE, SIZE, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
