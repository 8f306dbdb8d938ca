"""Large dense layers: digits, 784 -> 10 classes through three hidden layers of 4096, 36,818,954 parameters; and one layer.

A multilayer perceptron as D. Rumelhart, G. Hinton, R. Williams describe it (Nature 323, 1986), with ReLU, at a width
where the weights do not fit into a cache and reading them is what takes time at batch 1.  `dense4096` is one such layer
alone, 4096 -> 4096, 16,781,312 parameters; it is exported with `--input 1,4096`.
Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import dense_layers, randomize, smooth_images
from torch import nn

SIDE, WIDTH, CLASSES = 28, 4096, 10


class Mlp(nn.Module):
    """`pixels` (batch, 784) -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        *hidden, self.output = dense_layers((SIDE * SIDE, WIDTH, WIDTH, WIDTH, CLASSES))
        self.hidden = nn.ModuleList(hidden)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.output(x)


class Dense(nn.Module):
    """`features` (batch, 4096) -> (batch, 4096)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


def mlp() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(Mlp())


def dense4096() -> nn.Module:
    """One layer with random weights, ready for inference."""
    return randomize(Dense())


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random images row by row, by the name of `mlp`'s argument."""
    return {"pixels": smooth_images(count, 1, SIDE, SIDE, seed=seed).flatten(1)}


def dense4096_samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """What a hidden layer writes: normal numbers, those below 0 cut off, by the name of `dense4096`'s argument."""
    return {"features": torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).relu()}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `mlp` takes, by name."""
    return samples(1, seed=0)
