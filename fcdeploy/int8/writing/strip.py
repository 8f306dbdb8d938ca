"""Leaving out of an int8 file what it need not say: of a small network that is a tenth of the file.

Types and shapes of constants stand with the constants, those of what is read back from integers with the integers, and
those of what a QuantizeLinear rounds with what it writes; shapes that ONNX infers from these need not be there at all.  A
convolution's strides, dilations and group are 1 unless it says otherwise, and a DequantizeLinear is known by what it writes.
"""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.prepare.shape_inference import infer_shapes

ONES = {"Conv": ("strides", "dilations", "group"), "AveragePool": ("strides",), "MaxPool": ("strides", "dilations")}


def strip(model: ir.Model) -> None:
    """Take out of the graph, in place, what follows from the rest of it."""
    for value in model.graph.initializers.values():
        _forget(value)
    names = {node.name for node in model.graph if node.op_type != "DequantizeLinear"}
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for key in ONES.get(node.op_type, ()):
            attribute = node.attributes.get(key)
            if attribute is not None and not set(_numbers(attribute)) - {1}:
                del node.attributes[key]
        if node.op_type == "DequantizeLinear" and node.outputs[0].name not in names:  # tract calls it as what it writes
            node.name = ""
        for value in node.outputs:
            readers = value.consumers()
            rounded = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
            if not value.is_graph_output() and (rounded or node.op_type == "DequantizeLinear"):
                _forget(value)
    _forget_inferred(model)
    _forget_names_of_lengths(model)


def _forget_names_of_lengths(model: ir.Model) -> None:
    """Leave free lengths within the graph without a name: tract holds a named one to be another than the length it is given."""
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and not value.is_graph_output():
                value.shape = ir.Shape([size if isinstance(size, int) else None for size in value.shape])


def _forget_inferred(model: ir.Model) -> None:
    """Leave out types and shapes of what nodes write, where ONNX infers just these without them.

    Bytes keep theirs: they say at a glance where the model computes with integers.
    """
    bare = model.clone()
    written = {value.name: value for node in model.graph for value in node.outputs if not value.is_graph_output()}
    known = {value.name: value for node in bare.graph for value in node.outputs if value.name in written}
    for value in known.values():
        _forget(value)
    infer_shapes(bare)
    renamed: dict[str | None, str | None] = {}  # inference numbers the lengths that it does not know
    for name, value in written.items():
        same = value.dtype == ir.DataType.FLOAT and known[name].type == value.type
        if same and _is_same_shape(value.shape, known[name].shape, renamed):
            _forget(value)


def _is_same_shape(one: ir.Shape | None, other: ir.Shape | None, renamed: dict[str | None, str | None]) -> bool:
    """Whether both have the same lengths, free ones under one name each."""
    if one is None or other is None or len(one) != len(other):
        return False
    return all(
        a == b if isinstance(a, int) or isinstance(b, int) else renamed.setdefault(a.value, b.value) == b.value
        for a, b in zip(one, other, strict=True)
    )


def _numbers(attribute: ir.Attr) -> list[int]:
    return [attribute.as_int()] if attribute.type == ir.AttributeType.INT else list(attribute.as_ints())


def _forget(value: ir.Value) -> None:
    value.shape = None
    value.type = None
