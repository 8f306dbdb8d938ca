"""Compute what depends on constants alone, once, with the runtime that would compute it on every run.

The nodes are run by onnxruntime with its optimizations off, so a folded value has the very bits that the model would
have produced.  (onnxscript's folding evaluates with NumPy kernels, enters subgraphs, and lets an initializer take the
name of a graph output; none of that fits here.)  Constants are fed as inputs, not serialized, whatever their size.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, is_constant, static_shape

SMALL = 1024  # bytes, about what a node and its names take in the file; a result up to it may replace fewer bytes
RANDOM = {"RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
QUANTIZING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def fold_constants(model: ir.Model) -> Changes:
    """Replace each node that reads only constants by its value, unless that would make the model larger."""
    edits = Edits(model, "fold_constants")
    for node in list(model.graph):
        if not node.inputs or not all(value is None or is_constant(value) for value in node.inputs):
            continue
        reason = _why_not(node)
        if reason is None:
            reason = _fold(edits, node)
        if reason is not None:
            edits.decline(node, f"stays: {reason}")
    return edits.changes()


def _why_not(node: ir.Node) -> str | None:
    if node.op_type in RANDOM:
        return "its result is random"
    if node.op_type in QUANTIZING:
        return "it quantizes"
    if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()):
        return "it runs a subgraph"
    if any(value.is_graph_output() for value in node.outputs):
        return f"its output {node.outputs[0].name!r} is an output of the graph"
    for output in node.outputs:
        if _count_bytes(output) is None:
            return f"the size of its output {output.name!r} is not known before it runs"
    needed = sum(_count_bytes(output) or 0 for output in node.outputs)
    freed = sum(_count_freed_bytes(value, node) for value in dict.fromkeys(node.inputs))
    if needed > max(SMALL, freed):
        return f"its result takes {needed} bytes, more than the {freed} it would free"
    return None


def _count_bytes(value: ir.Value) -> int | None:
    """What a tensor takes, or None where that is not known before it is computed."""
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    return int(math.prod(shape) * value.dtype.itemsize)


def _count_freed_bytes(value: ir.Value | None, node: ir.Node) -> int:
    """Bytes of a constant that nothing but this node reads; or, where it is cut into slices, those of this one.

    torch writes the gates of an LSTM as four slices of one weight: each alone would add to the file, all together replace
    what they were cut from.
    """
    if value is None or value.const_value is None or value.is_graph_output():
        return 0
    readers = set(value.consumers())
    if readers <= {node}:
        return value.const_value.nbytes
    slices = all(reader.op_type == "Slice" and reader.inputs[0] is value for reader in readers)
    if not slices or not all(is_constant(given) for reader in readers for given in reader.inputs if given is not None):
        return 0
    sizes = {reader: _count_bytes(reader.outputs[0]) for reader in readers}
    taken = sum(size or 0 for size in sizes.values())
    return (sizes[node] or 0) if None not in sizes.values() and taken <= value.const_value.nbytes else 0


def _fold(edits: Edits, node: ir.Node) -> str | None:
    """Compute the node's outputs and put initializers of the same names in their place."""
    results = _run(node, edits.opset)
    if isinstance(results, str):
        return results
    for output, array in zip(node.outputs, results, strict=True):
        if not output.uses():
            continue
        output.replace_all_uses_with(edits.constant(f"{output.name}.folded", array))
    edits.graph.remove(node, safe=True)
    edits.count += 1
    return None


def _run(node: ir.Node, opset: int) -> list[Array] | str:
    """The outputs of one node whose inputs are all constants, or why the runtime cannot compute them."""
    from fcdeploy.runtime.session import Session

    given = {value.name: value for value in node.inputs if value is not None}
    inputs = {
        name: ir.Value(name=name, shape=value.shape, type=ir.TensorType(value.dtype))  # type: ignore[arg-type]
        for name, value in given.items()
    }
    outputs = [ir.Value(name=value.name) for value in node.outputs]
    alone = ir.node(
        node.op_type,
        [None if value is None else inputs[value.name] for value in node.inputs],
        {name: attr.value for name, attr in node.attributes.items()},
        domain=node.domain,
        outputs=outputs,
        name=node.name,
    )
    graph = ir.Graph(list(inputs.values()), outputs, nodes=[alone], opset_imports={"": opset}, name="constants")
    try:
        session = Session(ir.Model(graph, ir_version=8), threads=1, optimize=False)
        # not np.ascontiguousarray, which makes a scalar an array of one
        feeds = {name: np.require(array, requirements="C") for name, array in _read_arrays(given).items()}
        return [np.asarray(result) for result in session.run(feeds)]
    except FcdeployError as error:
        return f"onnxruntime cannot compute it apart: {error.message}"


def _read_arrays(values: dict[str | None, ir.Value]) -> Arrays:
    arrays = {}
    for name, value in values.items():
        array = array_of(value)
        assert array is not None
        assert name is not None
        arrays[name] = array
    return arrays
