"""Networks and data for tests of types, and how near each pair of types must come."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import onnx_ir as ir
from networks import Net, random_data

from fcdeploy.tables.types import TYPES

DATA = random_data(0, 24, x=(3, 8, 8))


PAIRS = list(TYPES)


MICROSOFT = "com.microsoft"


def resnet(net: Net) -> Net:
    """An image of three channels, all kinds of layers and clips, a residual, pools, and a last layer that is small."""
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 16, (5, 5), name="first"), name="relu1")
    y = net.op("Add", net.conv(x, 16, 16, group=16, name="depthwise"), x, name="add")
    y = net.op("MaxPool", net.op("Relu", y, name="relu2"), kernel_shape=[2, 2], strides=[2, 2], name="pool")
    y = net.conv(y, 16, 128, (1, 1), name="pointwise")
    y = net.op("Clip", y, net.constant(0.0), net.constant(3.0), name="clip")
    y = net.op("Flatten", net.op("GlobalAveragePool", y, name="mean"), name="flat")
    y = net.op("Relu", net.dense(y, 128, 320, name="dense"), name="relu3")
    return net.output(net.dense(y, 320, 2, name="last"))


LEAST = {  # dB; what weights of 4 bits cost, then activations of 8 bits, then weights of 8 bits
    "int4": 16.0,
    ("int8", "int8"): 35.0, ("int8", "dynamic"): 35.0, ("int16", "int8"): 36.0,
    ("int8", "int16"): 38.0, ("int8", "none"): 38.0,
    ("int16", "int16"): 75.0, ("int16", "none"): 80.0,
}  # fmt: skip


def node(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def dense_net(*sizes: int, seed: int = 0, last: bool = True, **options: Any) -> Net:
    net = Net(seed)
    x = net.input("x", sizes[0])
    for i, (read, write) in enumerate(pairwise(sizes)):
        x = net.dense(x, read, write, name=f"dense{i}", **options)
        x = net.op("Relu", x, name=f"relu{i}") if i < len(sizes) - 2 or not last else x
    return net.output(x)
