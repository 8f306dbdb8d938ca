"""Networks that tell colours apart: what they answer depends on how pictures become their inputs, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from networks import Net

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet
STD = np.array([0.229, 0.224, 0.225], np.float32)


def make_colour_classifier(path: Path, seed: int, reads: str) -> np.ndarray[Any, Any]:
    """A network that says which of six colours is the nearest, and these colours, 0 to 1, (6, 3)."""
    colours = np.random.default_rng(seed).uniform(0.1, 0.9, (6, 3)).astype(np.float32)
    seen = {"unit": colours, "bytes": colours * 255, "normal": (colours - MEAN) / STD}
    wanted = colours[:, ::-1] if reads == "reversed" else seen[reads]
    net = Net(seed)
    mean = net.op("Flatten", net.op("GlobalAveragePool", net.input("x", 3, 24, 24)))
    scores = net.op("Gemm", mean, net.constant(2 * wanted.T), net.constant(-np.square(wanted).sum(axis=1)))
    net.output(scores).save(path)
    return colours
