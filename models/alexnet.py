"""AlexNet: photographs, 3x227x227 -> 1000 classes, 60,965,224 parameters.

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012, figure 2.  The second, fourth and fifth convolution are in two groups, the halves that lay on two graphics
cards.  227 is what the sizes in the paper need where it writes 224.  Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import dense_layers, randomize, smooth_images
from torch import nn

SIZE, CLASSES = 227, 1000


class AlexNet(nn.Module):
    """`image` (batch, 3, 227, 227) -> logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),  # torch divides alpha by the 5 channels it sums over
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )  # (batch, 256, 6, 6)
        self.dense1, self.dense2, self.output = dense_layers((256 * 6 * 6, 4096, 4096, CLASSES))
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(self.features(image), 1)
        x = self.dropout(torch.relu(self.dense1(x)))
        x = self.dropout(torch.relu(self.dense2(x)))
        return self.output(x)


def alexnet() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(AlexNet())


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images, by the name of `forward`'s argument."""
    return {"image": smooth_images(count, 3, SIZE, SIZE, seed=seed)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
