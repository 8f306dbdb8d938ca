"""Graph filter: dense layers over powers of a fixed adjacency; 2 quantities at 24 nodes -> 1 each, 7,345 parameters.

Source: F. Gama, A. Marques, G. Leus, A. Ribeiro, "Convolutional Neural Network Architectures for Signals Supported on
Graphs", arXiv:1805.00165: a layer is sum_k A^k X W_k.  The powers of the graph's adjacency A (drawn.py) are constants.
"""

from __future__ import annotations

import torch
from drawn import NODES, adjacency
from torch import nn

POWERS, WIDTH = 3, 48  # A^0, A^1, A^2


class GraphLayer(nn.Module):
    """sum_k A^k X W_k: (batch, channels, 24) -> (batch, 24, wider)."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        a = torch.from_numpy(adjacency())
        powers = [torch.linalg.matrix_power(a, k) for k in range(1, POWERS)]
        self.register_buffer("powers", torch.cat(powers, dim=1), persistent=False)  # (24, 2 * 24)
        self.weights = nn.Linear(POWERS * channels, wider)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near, far = (x @ self.powers).chunk(POWERS - 1, dim=2)
        return self.weights(torch.cat([x, near, far], dim=1).transpose(1, 2))


class GraphFilter(nn.Module):
    """`signal` (batch, 2, 24) -> (batch, 24)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = GraphLayer(2, WIDTH)
        self.layer2 = GraphLayer(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, 1)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layer1(signal)).transpose(1, 2)
        return self.output(torch.relu(self.layer2(x))).squeeze(2)


def graph_filter() -> nn.Module:
    """The network with random weights, ready for inference."""
    return GraphFilter().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"signal": torch.randn(1, 2, NODES)}
