"""A small network and its int8 form, for tests of what is done with finished models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from networks import Net, random_data

from fcdeploy.commands.quantize import quantize

QUICKLY: Any = {"costs": "none", "floor": "none", "effort": "fast"}
"""How `net.int8.onnx` is quantized; its weights are random."""


def int8_model(folder: Path, *, seed: int = 0, classes: int = 3) -> Path:
    """`net.int8.onnx` in the folder, beside `net.onnx` and its `data.npz`: x float32[n, 8] to two outputs."""
    net = Net(seed)
    hidden = net.op("Relu", net.dense(net.input("x", 8), 8, 16, name="first"))
    scores = net.dense(hidden, 16, classes, name="second")
    net.output(scores, net.op("ArgMax", scores, name="class", axis=1, keepdims=0)).save(folder / "net.onnx")
    np.savez(folder / "data.npz", **random_data(seed, 64, x=(8,)))
    out = folder / "net.int8.onnx"
    quantize(folder / "net.onnx", data=folder / "data.npz", output=out, force=True, **QUICKLY)
    return out
