"""Padding that a node computes by itself is written out as pads, where they are known before it runs.

Conv, MaxPool, AveragePool   auto_pad                  ->  pads
ConvTranspose                auto_pad, output_shape    ->  pads
MaxPool                      ceil_mode                 ->  more pads at the ends

Other runtimes read these rules otherwise (tables/other_runtimes.py): SAME_LOWER as SAME_UPPER, a ConvTranspose without its
lengths, windows of a pool that see nothing but padding.  Pads are read alike by all.
"""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits, set_attributes
from fcdeploy.graph.nodes import attribute_of
from fcdeploy.graph.windows import read_window
from fcdeploy.prepare.shape_inference import infer_afresh

RULES = ("auto_pad", "output_shape", "ceil_mode")
UNKNOWN_LENGTH = "the length of its input is not known before it runs"
Lengths = tuple[int | None, ...]


def form_pads(model: ir.Model) -> Changes:
    """Write the pads of every convolution and pool that has a rule instead, or say why the rule stays."""
    edits = Edits(model, "form_pads")
    rounded_up = False
    for node in edits.nodes("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        if not _has_rule(node):
            continue
        pads = _compute_pads(node)
        if isinstance(pads, str):
            edits.decline(node, f"keeps: {pads}")
            continue
        rounded_up = rounded_up or "ceil_mode" in node.attributes
        for name in (*RULES, "pads"):
            node.attributes.pop(name, None)
        if any(pads):
            set_attributes(node, pads=pads)
        edits.count += 1
    if rounded_up:  # ONNX's inference counted windows that onnxruntime leaves out
        infer_afresh(model)
    return edits.changes()


def _has_rule(node: ir.Node) -> bool:
    rounds_up = node.op_type == "MaxPool" and attribute_of(node, "ceil_mode", 0)
    return bool(rounds_up or attribute_of(node, "auto_pad", "NOTSET") != "NOTSET" or _wanted_lengths(node))


def _wanted_lengths(node: ir.Node) -> tuple[int, ...]:
    return tuple(attribute_of(node, "output_shape", ())) if node.op_type == "ConvTranspose" else ()


def _compute_pads(node: ir.Node) -> tuple[int, ...] | str:
    """As ONNX has them; or why they are not known."""
    value, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    kernel = tuple(attribute_of(node, "kernel_shape", ()))
    if not kernel and weight is not None and weight.shape is not None:
        kernel = tuple(length for length in weight.shape[2:] if isinstance(length, int))
    if value is None or value.shape is None or not kernel or len(value.shape) != len(kernel) + 2:
        return "its kernel or the rank of its input is not known before it runs"
    space = tuple(length if isinstance(length, int) else None for length in value.shape[2:])
    if node.op_type == "ConvTranspose":
        return _compute_transposed(node, space, kernel)
    return _compute_window_pads(node, space, kernel)


def _compute_window_pads(node: ir.Node, space: Lengths, kernel: tuple[int, ...]) -> tuple[int, ...] | str:
    """Along an axis of stride one they are the same for every length, and nothing is rounded."""
    auto, rounds_up = attribute_of(node, "auto_pad", "NOTSET"), attribute_of(node, "ceil_mode", 0)
    if auto != "NOTSET" and rounds_up:
        return "it has auto_pad and rounds its output size up"
    strides = attribute_of(node, "strides", (1,) * len(kernel))
    if auto != "VALID" and any(n is None and stride != 1 for n, stride in zip(space, strides, strict=True)):
        return UNKNOWN_LENGTH
    lengths = tuple(length or 1 for length in space)
    window = read_window(node, lengths, kernel)
    if node.op_type != "Conv" and auto.startswith("SAME") and max(window.dilations) > 1:
        return "onnxruntime pads a dilated pool as if it were not, so that it has another shape than ONNX says"
    if rounds_up:
        window = window.round_up(lengths)
    # onnxruntime takes no pool whose pads are as wide as its kernel
    if node.op_type != "Conv" and any(pad >= k for pad, k in zip(window.pads, window.kernel * 2, strict=True)):
        return f"its kernel {list(window.kernel)} is no larger than its padding"
    return window.pads


def _compute_transposed(node: ir.Node, space: Lengths, kernel: tuple[int, ...]) -> tuple[int, ...] | str:
    """What is cut off at both sides: of SAME_UPPER the larger half behind, of all others in front.

    Written without padding an axis has (n - 1) * stride + reach + extra elements; SAME asks for n * stride, output_shape for
    what it says.
    """
    auto, wanted = attribute_of(node, "auto_pad", "NOTSET"), _wanted_lengths(node)
    window = read_window(node, (1,) * len(kernel), kernel)
    extra = attribute_of(node, "output_padding", (0,) * len(kernel))
    if auto == "VALID" and not wanted:
        return (0,) * (2 * len(kernel))
    if wanted and None in space:
        return UNKNOWN_LENGTH
    cut = [reach + more - stride for reach, more, stride in zip(window.reach, extra, window.strides, strict=True)]
    if wanted:
        lengths = zip(space, window.strides, wanted[-len(kernel) :], strict=True)
        cut = [c + (n or 0) * stride - length for c, (n, stride, length) in zip(cut, lengths, strict=True)]
    if min(cut) < 0:
        return "it is longer than its input and its kernel make it"
    less, more = [c // 2 for c in cut], [c - c // 2 for c in cut]
    return (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
