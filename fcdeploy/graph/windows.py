"""The window of a convolution or pool, and the phases of a transposed convolution, read from their attributes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fcdeploy.arithmetic.phases import Phases, split_phases
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


def read_phases(
    node: ir.Node, space: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[Phases, ...], tuple[int, ...]]:
    """Of a ConvTranspose over axes of these lengths: every axis, and the lengths of the output, by ONNX's formulas."""
    rank = len(space)
    strides, dilations = (tuple(attribute_of(node, name, (1,) * rank)) for name in ("strides", "dilations"))
    extra = tuple(attribute_of(node, "output_padding", (0,) * rank))
    pads = tuple(attribute_of(node, "pads", (0,) * (2 * rank)))
    auto, wanted = attribute_of(node, "auto_pad", "NOTSET"), tuple(attribute_of(node, "output_shape", ()))
    full = tuple(
        s * (n - 1) + e + (k - 1) * d + 1
        for n, s, e, k, d in zip(space, strides, extra, kernel, dilations, strict=True)
    )
    if not wanted and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(space, strides, strict=True))
    if wanted:
        total = [f - w for f, w in zip(full, wanted[-rank:], strict=True)]
        before = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total)
        out = tuple(wanted[-rank:])
    else:
        before = pads[:rank] if auto != "VALID" else (0,) * rank
        out = tuple(f - b - e for f, b, e in zip(full, before, pads[rank:] if auto != "VALID" else before, strict=True))
    each = zip(out, kernel, strides, before, dilations, strict=True)
    return tuple(split_phases(*numbers) for numbers in each), out
