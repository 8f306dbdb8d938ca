"""Random weights that behave like trained ones, for networks whose size and shape matter here and whose answers do not.

Weights are drawn as in K. He et al., "Delving Deep into Rectifiers", arXiv:1502.01852: normal, variance 2 / fan-in, so
that activations keep their size through layers with ReLU.  Batch normalizations get scales around 1; their running means
and variances are those of a few forward passes over smooth random images, so that folding them gives weights of
realistic, unequal size from channel to channel.  Their shifts are around 1 as well, which leaves most units on: with
shifts around 0 a random network is chaotic, any rounding error growing in variance by pi / (pi - 1), 1.47, from layer to
layer (G. Yang et al., "A Mean Field Theory of Batch Normalization", arXiv:1902.08129), and no trained network is.
Everything comes from generators with fixed seeds: the same torch gives the same weights again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LEAST_SCALE = 0.2  # of a batch normalization: training seldom leaves one near 0 or below
OCTAVES = 5  # of detail in an image, each half as strong as the one before: the 1 / f spectrum of natural images


@torch.inference_mode()
def randomize(network: nn.Module, batches: Sequence[torch.Tensor] = (), *, seed: int = 0) -> nn.Module:
    """Draw all weights, take batch statistics over `batches` of inputs, and return the network ready for inference."""
    draw = torch.Generator().manual_seed(seed)
    network.eval()
    norms = []
    for module in network.modules():
        if isinstance(module, LAYERS):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=draw)
            if module.bias is not None:
                module.bias.normal_(0, 0.05, generator=draw)
        elif isinstance(module, NORMS):
            module.weight.normal_(1, 0.2, generator=draw).clamp_(min=LEAST_SCALE)
            module.bias.normal_(1, 0.5, generator=draw)
            module.momentum = None  # the plain mean over all batches
            norms.append(module.train())  # and nothing else: dropout stays off
    if norms:
        for batch in batches:
            network(batch)
    return network.eval()


def smooth_images(count: int, channels: int, height: int, width: int, *, seed: int) -> torch.Tensor:
    """(count, channels, height, width): random images as photographs are distributed, mean about 0, variance about 1.

    Noise of several resolutions, each enlarged to the full size, coarse structure strongest; channels go together as
    colours do, and brightness and contrast differ from image to image.
    """
    draw = torch.Generator().manual_seed(seed)
    image = torch.zeros(count, channels, height, width)
    for octave in range(OCTAVES):
        size = [min(2 ** (octave + 2), length) for length in (height, width)]
        grey = torch.randn(count, 1, *size, generator=draw)
        colour = torch.randn(count, channels, *size, generator=draw)
        detail = functional.interpolate(grey + 0.4 * colour, (height, width), mode="bilinear", align_corners=False)
        image += 0.5**octave * detail
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=draw)
    brightness = 0.4 * torch.randn(count, 1, 1, 1, generator=draw)
    return (image / image.std() * contrast + brightness).clamp(-2.5, 2.5)


def dense_layers(sizes: Sequence[int]) -> list[nn.Linear]:
    """A dense layer from each size to the next."""
    return [nn.Linear(size, following) for size, following in pairwise(sizes)]
