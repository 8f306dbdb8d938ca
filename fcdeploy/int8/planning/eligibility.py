"""Why one node has no integer kernel though its operator may have one: each check answers with a sentence, or nothing."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import attribute_of, fill_value, input_of, is_constant, name_of, output_axis
from fcdeploy.int8.nodes import affine_of
from fcdeploy.runtime.probes.answers import find_answer, holds
from fcdeploy.runtime.session import read_versions
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.operators import NO_KERNEL, Operator

FILL_WITHIN = 2.0  # a fill value may cost its tensor one bit


def why_ineligible(node: ir.Node, row: Operator) -> str:
    """Why this very node has no integer kernel, though its operator may have one. Empty when it has."""
    if row.role == "float":
        return row.why
    if row.role == "shape":
        return ""
    if reason := _why_not_here(node, row):
        return reason
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    if row.ranks and shape is not None and len(shape) not in row.ranks:
        return f"its input has {len(shape)} axes, integer kernels exist for {', '.join(map(str, row.ranks))}"
    check = CHECKS.get(node.op_type)
    return check(node) if check else ""


def _why_not_here(node: ir.Node, row: Operator) -> str:
    """Why the installed onnxruntime, as it was asked, has no integer kernel for the operator."""
    facts = (
        [node.op_type]
        if row.role in ("multiply", "integer")
        else [f"{node.op_type}, on {t}" for t in ("uint8", "int8")]
    )
    if all(fact not in FACTS or holds(fact) for fact in facts):
        return ""
    return f"onnxruntime {read_versions()['onnxruntime']} has no integer kernel for it, as a probe shows"


def _check_layer(node: ir.Node) -> str:
    weight = node.inputs[1]
    if not is_constant(weight):
        return f"weight {weight.name if weight else None!r} is computed at run time"
    bias = input_of(node, 2)
    if bias is not None and not is_constant(bias):
        return f"bias {bias.name!r} is computed at run time"
    if node.op_type == "Gemm":
        plain = all(attribute_of(node, key, 1.0) == 1.0 for key in ("alpha", "beta")) and not attribute_of(
            node, "transA", 0
        )
        if not plain:
            return "its alpha, beta or transA is not the plain one"
        if bias is not None and bias.shape is not None and weight is not None and weight.shape is not None:
            channels = weight.shape[output_axis(node)]
            if tuple(bias.shape) not in ((channels,), (1, channels)):
                return f"bias {bias.name!r} has shape {list(bias.shape)}, expected one value an output"
    return ""


def _check_matmul(node: ir.Node) -> str:
    weight = node.inputs[1]
    if weight is not None and weight.shape is not None and len(weight.shape) < 2:
        return f"{weight.name!r} is a vector"
    if is_constant(weight) and weight is not None and weight.shape is not None and len(weight.shape) != 2:
        return f"weight {weight.name!r} has {len(weight.shape)} axes, integer kernels take 2"
    if is_constant(node.inputs[0]):
        return f"its first input {name_of(node.inputs[0])!r} is the constant"
    return ""


def _check_resize(node: ir.Node) -> str:
    mode = attribute_of(node, "mode", "nearest")
    if mode != "nearest":
        return f"{mode} interpolation computes new values"
    outside = attribute_of(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return "what it writes outside its input is no byte" if outside else ""


def _check_pad(node: ir.Node) -> str:
    value = input_of(node, 2)
    if value is not None and not is_constant(value):
        return f"its fill value {value.name!r} is computed at run time"
    return "" if math.isfinite(fill_value(node)) else f"its fill value {fill_value(node)} is no byte"


def _computes(fact: str) -> bool:
    """Whether the installed onnxruntime computes what the fact's model says."""
    return find_answer(fact) == "right"


def _check_average_pool(node: ir.Node) -> str:
    dilated = any(length != 1 for length in attribute_of(node, "dilations", ()))
    if dilated and not _computes("AveragePool, dilations"):
        return "onnxruntime's integer kernel has no dilations"
    counted = attribute_of(node, "ceil_mode", 0) and attribute_of(node, "count_include_pad", 0)
    if counted and not _computes("AveragePool, ceil_mode counting pads"):
        return "with ceil_mode and count_include_pad onnxruntime's integer kernel averages over what lies outside too"
    return ""


def _check_clip(node: ir.Node) -> str:
    computed = [v.name for v in node.inputs[1:] if v is not None and not is_constant(v)]
    return f"its bound {computed[0]!r} is computed at run time" if computed else ""


def _check_affine(node: ir.Node) -> str:
    return "" if affine_of(node) is not None else NO_KERNEL


CHECKS = {
    "Conv": _check_layer,
    "Gemm": _check_layer,
    "MatMul": _check_matmul,
    "Resize": _check_resize,
    "Pad": _check_pad,
    "AveragePool": _check_average_pool,
    "Clip": _check_clip,
    "Sub": _check_affine,
    "Div": _check_affine,
    "HardSigmoid": _check_affine,
}


def why_fill_too_far(node: ir.Node, low: float, high: float) -> str:
    """Why a Pad of values in [low, high] cannot write its fill value as a byte of theirs. Empty when it can."""
    fill = fill_value(node)
    low, high = min(low, 0.0), max(high, 0.0)
    if max(high, fill) - min(low, fill) <= FILL_WITHIN * (high - low):
        return ""
    return f"its fill value {fill:g} lies far outside its input's range, {low:.4g} to {high:.4g}"


def why_zero_too_far(zero: float, low: float, high: float) -> str:
    """Why bytes of values in [low, high] cannot also stand for `zero`. Empty when they can."""
    low, high = min(low, 0.0), max(high, 0.0)
    if max(high, zero) - min(low, zero) <= FILL_WITHIN * (high - low):
        return ""
    return f"it is zero at {zero:g}, far outside its input's range, {low:.4g} to {high:.4g}"


def match_keep_float(graph: ir.Graph, patterns: Sequence[str]) -> dict[str, str]:
    """Node name -> reason, for the nodes that the user wants in float. A pattern that names nothing is a mistake."""
    kept = {}
    for pattern in patterns:
        names = _match_nodes(graph, pattern)
        if not names:
            raise FcdeployError(
                f"--keep-float {pattern!r} fits no node of the model", "fcdeploy inspect MODEL lists the nodes' names"
            )
        kept.update(dict.fromkeys(names, f"kept in float by --keep-float {pattern}"))
    return kept


def _match_nodes(graph: ir.Graph, pattern: str) -> list[str]:
    """The node of exactly that name, which may hold brackets; else all that the glob, or op:GLOB, fits."""
    names = [name_of(node) for node in graph]
    if pattern in names:
        return [pattern]
    if pattern.startswith("op:"):
        return [name_of(node) for node in graph if fnmatch.fnmatchcase(node.op_type, pattern.removeprefix("op:"))]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]
