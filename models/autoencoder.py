"""A dense autoencoder: does a machine sound unusual? 640 -> 640 (5 frames of 128 mel energies), 267,928 parameters.

Source: Y. Koizumi et al., "Description and Discussion on DCASE2020 Challenge Task 2: Unsupervised Anomalous Sound
Detection for Machine Condition Monitoring", arXiv:2006.05822, the baseline, which is the anomaly detection benchmark of
MLPerf Tiny (C. Banbury et al., arXiv:2106.07597): four hidden layers of 128, a bottleneck of 8, four of 128, each with
batch normalization and ReLU.  Counted with the running means and variances, as Keras does, it has 269,992 parameters.
Weights are random (random_weights.py).
"""

from __future__ import annotations

import torch
from random_weights import dense_layers, randomize, smooth_images
from torch import nn

FRAMES, BANDS = 5, 128
SIZES = (FRAMES * BANDS, 128, 128, 128, 128, 8, 128, 128, 128, 128)


class Autoencoder(nn.Module):
    """`frames` (batch, 640) -> the same again, (batch, 640)."""

    def __init__(self) -> None:
        super().__init__()
        hidden = ((layer, nn.BatchNorm1d(layer.out_features), nn.ReLU()) for layer in dense_layers(SIZES))
        self.hidden = nn.Sequential(*(part for parts in hidden for part in parts))
        self.output = nn.Linear(SIZES[-1], SIZES[0])

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(frames))


def autoencoder() -> nn.Module:
    """The network with random weights, ready for inference."""
    return randomize(Autoencoder(), [samples(64, seed)["frames"] for seed in range(1, 5)])


def samples(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Smooth random spectra, by the name of `forward`'s argument."""
    return {"frames": smooth_images(count, 1, FRAMES, BANDS, seed=seed).flatten(1)}


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return samples(1, seed=0)
