"""The window of a convolution or pool, read from its attributes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fcdeploy.arithmetic.windows import Window, compute_same_pads
from fcdeploy.graph.nodes import attribute_of


def read_window(node: ir.Node, space: Sequence[int], kernel: Sequence[int]) -> Window:
    """Over axes of these lengths, with a kernel that a pool names and a convolution's weights have.

    `ceil_mode` is not looked at: `Window.round_up` is what it asks for.
    """
    rank = len(kernel)
    ones, none = (1,) * rank, (0,) * rank
    strides, dilations = tuple(attribute_of(node, "strides", ones)), tuple(attribute_of(node, "dilations", ones))
    mode = attribute_of(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        begins, ends = compute_same_pads(space, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    else:
        pads = tuple(attribute_of(node, "pads", (*none, *none))) if mode != "VALID" else (*none, *none)
        begins, ends = pads[:rank], pads[rank:]
    return Window(tuple(kernel), strides, begins, ends, dilations)
