"""Leaving out of an int8 file what it need not say: of a small network that is a tenth of the file.

Types and shapes of constants stand with the constants, those of what is read back from integers with the integers, and
those of what a QuantizeLinear rounds with what it writes.  A convolution's strides, dilations and group are 1 unless it
says otherwise, and a DequantizeLinear is known by what it writes.
"""

from __future__ import annotations

import onnx_ir as ir

ONES = {"Conv": ("strides", "dilations", "group"), "AveragePool": ("strides",), "MaxPool": ("strides", "dilations")}


def strip(model: ir.Model) -> None:
    """Take out of the graph, in place, what follows from the rest of it."""
    for value in model.graph.initializers.values():
        _forget(value)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for key in ONES.get(node.op_type, ()):
            attribute = node.attributes.get(key)
            if attribute is not None and not set(_numbers(attribute)) - {1}:
                del node.attributes[key]
        if node.op_type == "DequantizeLinear":
            node.name = ""
        for value in node.outputs:
            readers = value.consumers()
            rounded = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
            if not value.is_graph_output() and (rounded or node.op_type == "DequantizeLinear"):
                _forget(value)


def _numbers(attribute: ir.Attr) -> list[int]:
    return [attribute.as_int()] if attribute.type == ir.AttributeType.INT else list(attribute.as_ints())


def _forget(value: ir.Value) -> None:
    value.shape = None
    value.type = None
