"""What a file asks of a runtime: its operator set, its operators, and how they stand among bytes, each as a few words.

`tables/other_runtimes.py` says which runtimes take which of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fcdeploy.graph.form_details import BYTES, RECURRENT, list_details
from fcdeploy.graph.nodes import STANDARD, attribute_of, input_of, is_constant, is_op, opset_of, producer_of, walk_back

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
WIDE = (ir.DataType.INT16, ir.DataType.UINT16)
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
COUNTS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING)


def list_forms(model: ir.Model) -> dict[str, list[str]]:
    """Every form that is in the file, and where: names of nodes, or of constants.

    The types of what nodes write are those that the file says, or that were inferred.
    """
    opset = opset_of(model)
    forms: dict[str, list[str]] = {f"operator set {opset}": []}
    for node in model.graph.all_nodes():
        for form in (*_list_forms_of(node), *list_details(node, opset)):
            forms.setdefault(form, []).append(node.name or "")
    for name, value in model.graph.initializers.items():
        if value.dtype is not None and value.dtype not in (*FLOATS, *COUNTS, *BYTES):
            forms.setdefault(f"constants of {value.dtype.name}", []).append(name)
    return forms


def _list_forms_of(node: ir.Node) -> Iterator[str]:
    if node.domain not in STANDARD:
        bits = attribute_of(node, "bits", 0)
        yield f"{node.domain} {node.op_type}" + (f", {bits} bits" if bits else "")
        if bits and input_of(node, 5) is not None:
            yield f"{node.domain} {node.op_type} with a bias"
        if node.op_type.endswith("LSTM") and _stands_behind_bytes(node):
            yield f"{node.domain} {node.op_type}, behind bytes"
    elif node.op_type in CONVERSIONS:
        yield from _list_conversions(node)
    elif held := [v.dtype for v in (*node.outputs, input_of(node, 0)) if v is not None and v.dtype in BYTES]:
        yield f"{node.op_type}, on {held[0].name.lower()}"
    else:
        yield node.op_type
        yield from _list_neighbours(node)


def _stands_behind_bytes(node: ir.Node) -> bool:
    """Whether bytes that were read back reach its first input through operators on floats."""
    before = walk_back([input_of(node, 0)])
    return any(each.op_type == "DequantizeLinear" and not is_constant(each.inputs[0]) for each in before)


def _list_conversions(node: ir.Node) -> Iterator[str]:
    """A QuantizeLinear or DequantizeLinear: what it does that the one of operator set 13 does not."""
    integers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if integers is not None and integers.dtype is not None and integers.dtype not in (*BYTES, ir.DataType.INT32):
        yield f"{node.op_type} of {integers.dtype.name}"
    untyped = node.op_type == "QuantizeLinear" and input_of(node, 2) is None
    if untyped and not attribute_of(node, "output_dtype", 0):
        yield "QuantizeLinear without a zero point"
    for attribute in ("block_size", "precision", "output_dtype"):
        if attribute_of(node, attribute, 0):
            yield f"{node.op_type} with {attribute}"


def _list_neighbours(node: ir.Node) -> Iterator[str]:
    """How an operator on floats stands among bytes."""
    quantized = is_op(producer_of(input_of(node, 0)), "DequantizeLinear")
    readers = [reader for value in node.outputs for reader in value.consumers()]
    if quantized and any(is_op(reader, "QuantizeLinear") for reader in readers):
        yield f"{node.op_type}, bytes to bytes"
    rounds = [reader.outputs[0].dtype for reader in readers if reader.op_type == "QuantizeLinear"]
    if any(dtype in WIDE for dtype in rounds):
        yield f"{node.op_type}, rounded to 16 bits"
    if node.op_type in RECURRENT:
        stored = producer_of(input_of(node, 1))
        yield f"{node.op_type}, weights " + ("made of integers" if stored is not None else "in float")
        if stored is not None and any(is_op(other, "QuantizeLinear") for other in node.graph or ()):
            yield f"{node.op_type}, weights made of integers, beside bytes"
        if _stands_behind_bytes(node):
            yield f"{node.op_type}, behind bytes"
