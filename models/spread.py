"""MobileNetV2Small with the ranges of its channels spread: the same function, in weights that 8 bits do not bear.

A channel multiplied by a factor where it is written and divided by it where it is read changes nothing in float (the
converse of cross-layer equalization, M. Nagel et al., arXiv:1906.04721, section 4.1).  Factors are powers of two from 2^-4
to 2^4, so that outputs stay equal bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mobilenet_v2 import InvertedResidual
from mobilenet_v2_small import MobileNetV2Small
from safetensors.torch import load_file
from torch import nn

FURTHEST = 4  # log2 of the largest factor


class Bounded(nn.Module):
    """min(max(x, 0), bound), a bound for each channel."""

    def __init__(self, bound: torch.Tensor) -> None:
        super().__init__()
        self.bound = nn.Buffer(bound.reshape(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.relu(x), self.bound)


def trained(*, replace_clips: bool = False) -> MobileNetV2Small:
    """The network as it was trained; `replace_clips` puts a ReLU in the place of every ReLU6, which is another function."""
    network = MobileNetV2Small().eval()
    state = load_file(Path(__file__).with_name("mobilenet_v2_small.safetensors"))
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    for module in list(network.modules()) if replace_clips else ():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    return network


def spread(network: MobileNetV2Small, seed: int, clip: str) -> MobileNetV2Small:
    """The network with its channels spread, in place.

    clip "relu": its clips are ReLU, which lets factors through.  "bounds": behind a factor a ReLU6 has a bound for each
    channel, 6 times the factor.  "relu6": only channels that no ReLU6 reads are spread, the linear ends of the blocks.
    """
    draw = np.random.default_rng(seed)
    features = list(network.features)
    stem, last = features[:3], features[-3:]
    blocks = [layer for layer in features if isinstance(layer, InvertedResidual)]
    hidden = clip != "relu6"
    stream = _factors(draw, stem[0].out_channels) if hidden else torch.ones(stem[0].out_channels)
    _write(stem[1], stream)
    features[2] = _clip(clip, stream)
    for block in blocks:
        layers = list(block.layers)
        read = stream
        for at in range(0, len(layers) - 2, 3):  # widen, if there is one, and depthwise
            _read(layers[at], read)
            read = _factors(draw, layers[at].out_channels) if hidden else torch.ones(layers[at].out_channels)
            _write(layers[at + 1], read)
            layers[at + 2] = _clip(clip, read)
        _read(layers[-2], read)
        stream = stream if block.residual else _factors(draw, layers[-2].out_channels)
        _write(layers[-1], stream)
        block.layers = nn.Sequential(*layers)
    _read(last[0], stream)
    end = _factors(draw, last[0].out_channels) if hidden else torch.ones(last[0].out_channels)
    _write(last[1], end)
    features[-1] = _clip(clip, end)
    network.features = nn.Sequential(*features)
    with torch.no_grad():
        network.output.weight /= end
    return network


def _factors(draw: np.random.Generator, channels: int) -> torch.Tensor:
    return torch.tensor(2.0 ** draw.integers(-FURTHEST, FURTHEST + 1, channels), dtype=torch.float32)


def _write(norm: nn.BatchNorm2d, factors: torch.Tensor) -> None:
    with torch.no_grad():
        norm.weight *= factors
        norm.bias *= factors


def _read(layer: nn.Conv2d, factors: torch.Tensor) -> None:
    with torch.no_grad():
        layer.weight /= factors.reshape(-1, 1, 1, 1) if layer.groups > 1 else factors.reshape(1, -1, 1, 1)


def _clip(clip: str, factors: torch.Tensor) -> nn.Module:
    return {"relu": nn.ReLU(), "relu6": nn.ReLU6(), "bounds": Bounded(6 * factors)}[clip]
