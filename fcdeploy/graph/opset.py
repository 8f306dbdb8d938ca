"""The lowest opset that can say a graph, from the newest down to 13.

Devices run older runtimes than the machine a network was trained on.  torch writes opset 18 at least, though nearly
every network can be said in 13, the first with per-channel QuantizeLinear.  What changed between the two, operator by
operator, is in the tables here: mostly types and attributes were added, and a node that does not use them is the same
node in the older set.  Above 18 that is all that changed but for a few operators, so there the operators' own definitions say
what is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir

from fcdeploy.graph.forms import list_forms
from fcdeploy.graph.nodes import array_of, opset_of
from fcdeploy.tables.oldest import OLDEST

LOWEST = 13  # per-channel QuantizeLinear and DequantizeLinear, which the int8 form needs
TOP = 18  # where the tables start

RUNTIMES = {13: "1.7", 14: "1.8", 15: "1.9", 16: "1.11", 17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18"}
"""Opset -> the first onnxruntime that has it, by its release notes: for what tables/oldest.py does not have."""

MEANS_OTHERWISE = {  # (operator, opset above 18) -> the attribute, and its values, that decide; all nodes without one
    ("GroupNormalization", 21): ("", ()),
    ("GridSample", 20): ("", ()),
    ("DFT", 20): ("", ()),
    ("Mod", 28): ("", ()),
    ("AveragePool", 19): ("ceil_mode", (1,)),
    ("Resize", 19): ("coordinate_transformation_mode", ("half_pixel_symmetric",)),
    ("Pad", 19): ("mode", ("wrap",)),
}
"""Where the same node means something else, or nothing, before that opset, though its definition looks the same."""

ADDED = {  # (operator, attribute): (opset that added it, the value that means what the older operator does)
    ("Reshape", "allowzero"): (14, 0),
    ("LSTM", "layout"): (14, 0),
    ("GRU", "layout"): (14, 0),
    ("RNN", "layout"): (14, 0),
    ("BatchNormalization", "training_mode"): (14, 0),
    ("Shape", "start"): (15, 0),
    ("Shape", "end"): (15, None),
    ("ScatterND", "reduction"): (16, "none"),
    ("ScatterElements", "reduction"): (16, "none"),
    ("Resize", "antialias"): (18, 0),
    ("Resize", "axes"): (18, None),
    ("Resize", "keep_aspect_ratio_policy"): (18, "stretch"),
    ("LpPool", "ceil_mode"): (18, 0),
    ("LpPool", "dilations"): (18, None),
    ("Split", "num_outputs"): (18, None),
}

REDUCTIONS = {  # opset 18 made `axes` an input
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}

WIDENED = {  # operators that only gained types, which float and index tensors do not need
    *("Add", "Sub", "Mul", "Div", "Relu", "CumSum", "Identity", "Pow", "Where", "LeakyRelu", "PRelu"),
    *("GreaterOrEqual", "LessOrEqual", "If", "Loop", "Scan", "Pad"),
}

NARROW = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
ARITHMETIC = {*NARROW, ir.DataType.INT32, ir.DataType.INT64}


def lowest_opset(model: ir.Model) -> tuple[int, str]:
    """The lowest opset the model can be lowered to, 13 or above, and which node asks for it ("" for 13)."""
    own, newest = model.opset_imports[""], onnx.defs.onnx_opset_version()
    if own > newest or model.functions:
        return own, "a function of its own" if model.functions else f"opset above {newest}"
    lowest, why = LOWEST, ""
    for node in model.graph.all_nodes():
        try:
            needed = _required_opset(node, own)
        except onnx.defs.SchemaError:  # an operator that the installed onnx does not know, and onnxruntime may
            needed = own
        if needed > lowest:
            lowest, why = needed, f"{node.op_type} {node.name!r}"
    return (lowest, why) if lowest <= own else (own, why)


def lower_opset(model: ir.Model, opset: int) -> None:
    """Say the model in an opset between `lowest_opset(model)` and its own, in place."""
    if model.functions or opset == model.opset_imports.get("", opset):
        return
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        for key in [key for key in node.attributes if key not in known]:
            if not (key == "axes" and node.op_type in REDUCTIONS):
                del node.attributes[key]
        if node.op_type in REDUCTIONS and opset < 18:
            _axes_to_attribute(node)
        node.version = None
    for graph in model.graphs():
        graph.opset_imports[""] = opset
    model.opset_imports[""] = opset


def lowest_ir_version(model: ir.Model) -> int:
    """The IR version that came with the newest of the model's operator sets; 4 at least (weights are no inputs)."""
    sets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return max(4, onnx.helper.find_min_ir_version_for(sets, ignore_unknown=True))


def describe_requirements(opset: int, ir_version: int, own: str = "") -> str:
    """What a device must know to load the model, in words; `own` is what `oldest_runtime` says."""
    oldest = own or RUNTIMES.get(opset, "")
    return f"opset {opset}, IR version {ir_version}" + (f", onnxruntime >= {oldest}" if oldest else "")


def oldest_runtime(model: ir.Model) -> str:
    """The first onnxruntime that computes all forms of the model as the newest does: run where tables/oldest.py has them.

    For operators that it does not have, the first one with their operator set; empty where none is known to have that.
    """
    forms, opset = list_forms(model), opset_of(model)
    if f"operator set {opset}" not in OLDEST and opset not in RUNTIMES:
        return ""
    needed = {OLDEST.get(form, "") for form in forms}
    if any(form not in OLDEST for form in forms):
        needed.add(RUNTIMES.get(opset, ""))
    return max(needed, key=_parse_release)


def _parse_release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def _required_opset(node: ir.Node, own: int) -> int:
    """The lowest opset, 13 or above, in which this node means what it means in the model's."""
    if node.domain:
        return LOWEST
    op = node.op_type
    if any(
        isinstance(value.type, (ir.SequenceType, ir.OptionalType)) for value in (*node.inputs, *node.outputs) if value
    ):
        return max(
            LOWEST, int(onnx.defs.get_schema(op, own).since_version)
        )  # types that were added one operator at a time
    above = _required_above_tables(node, own)
    if above > TOP:
        return above
    since: int = onnx.defs.get_schema(op, TOP).since_version
    if since <= LOWEST:
        return LOWEST
    if op in REDUCTIONS:
        return LOWEST if _axes_of(node) is not None else 18
    if op == "Reshape" and _has_no_zero(node):
        return LOWEST
    if op in WIDENED:
        return _required_opset_by_type(node)
    versions = [
        row for (name, key), row in ADDED.items() if name == op and _attribute_value(node, key) not in (None, row[1])
    ]
    if not any(name == op for name, _ in ADDED):
        return since  # new, or changed in a way that nobody has looked into
    if op.startswith("Scatter") and _attribute_value(node, "reduction") in ("max", "min"):
        return 18
    return max((added for added, _ in versions), default=LOWEST)


def _required_above_tables(node: ir.Node, own: int) -> int:
    """The lowest opset, 18 or above, that has the operator, this node's attributes and its types."""
    schema = onnx.defs.get_schema(node.op_type, own)
    while schema.since_version > TOP:
        key, values = MEANS_OTHERWISE.get((node.op_type, schema.since_version), ("-", ()))
        if not key or _attribute_value(node, key) in values:
            break
        try:
            older = onnx.defs.get_schema(node.op_type, schema.since_version - 1)
        except onnx.defs.SchemaError:
            break
        if not _can_say(older, schema, node):
            break
        schema = older
    return max(int(schema.since_version), TOP)


def _can_say(older: Any, newer: Any, node: ir.Node) -> bool:
    """Whether a node in terms of the newer definition is one of the older: what it adds must not be used."""
    for key, attribute in newer.attributes.items():
        used = node.attributes.get(key)
        default = attribute.default_value.SerializeToString()
        if key in older.attributes:
            if used is None and default != older.attributes[key].default_value.SerializeToString():
                return False
        elif used is not None and ir.to_proto(used).SerializeToString() != default:
            return False
    return (
        len(node.inputs) <= older.max_input
        and _takes(older.inputs, node.inputs)
        and _takes(older.outputs, node.outputs)
    )


def _takes(parameters: Any, values: Sequence[ir.Value | None]) -> bool:
    """Whether parameters, of which the last may be many, are of types that these values are known to have."""
    for index, value in enumerate(values):
        if value is not None and value.dtype is not None:
            types = parameters[min(index, len(parameters) - 1)].types
            if not any(f"({value.dtype.name.lower()})" in each for each in types):
                return False
    return True


def _required_opset_by_type(node: ir.Node) -> int:
    if node.op_type == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None:
        return 18  # axes
    dtypes = {value.dtype for value in node.inputs if value is not None}
    if node.op_type in ("Add", "Sub", "Mul", "Div") and not dtypes <= ARITHMETIC:
        return 14
    if node.op_type == "Relu" and not dtypes <= NARROW:
        return 14
    return LOWEST


def _axes_of(node: ir.Node) -> list[int] | None:
    """The axes of a reduction as the older operator has them ([] is all), None when they cannot be said there."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return None if _attribute_value(node, "noop_with_empty_axes") else []
    axes = array_of(node.inputs[1])
    if axes is None or (axes.size == 0 and _attribute_value(node, "noop_with_empty_axes")):
        return None
    return [int(axis) for axis in axes.ravel()]


def _axes_to_attribute(node: ir.Node) -> None:
    axes, given = _axes_of(node), node.inputs[1] if len(node.inputs) > 1 else None
    assert axes is not None
    node.attributes.pop("noop_with_empty_axes", None)
    node.resize_inputs(1)
    if given is not None and given.is_initializer() and given.graph is not None and not given.uses():
        del given.graph.initializers[str(given.name)]
    if axes:
        node.attributes.add(ir.AttrInt64s("axes", axes))


def _has_no_zero(node: ir.Node) -> bool:
    """With a constant shape that holds no 0, `allowzero` decides nothing."""
    shape = array_of(node.inputs[1])
    return shape is not None and bool((shape != 0).all())


def _attribute_value(node: ir.Node, key: str) -> Any:
    attribute = node.attributes.get(key)
    return None if attribute is None else attribute.value
