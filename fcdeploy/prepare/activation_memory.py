"""Which tensors are in memory at once, and with how many bytes: views share theirs, integer kernels write bytes."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from fcdeploy.graph.nodes import find_constants, input_of, values_read_by

CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}  # share their input's memory
CLIPS = {"Relu", "Clip"}  # before a QuantizeLinear they are part of the integer kernel

Shape = tuple[int, ...]


def measure_peak(model: ir.Model) -> int | None:
    """The most bytes that are alive at once when nodes run in the graph's order; None where a shape is not known."""
    steps = trace_memory(model)
    return None if steps is None else max(steps)


def trace_memory(model: ir.Model) -> list[int] | None:
    """Bytes that are alive at once: before the first node, then while each runs; None where a shape is not known.

    A tensor lives from the node that writes it (a graph input from the start) to the last that reads it (a graph
    output to the end).  Reshapes and the like write nothing; a tensor behind a QuantizeLinear is one byte an element.
    """
    graph = model.graph
    constant, root, stored = find_constants(graph), _find_shared_memory(graph), find_byte_sizes(graph)
    nodes = list(graph)

    # the last node that reads each tensor, or what shares its memory
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in values_read_by(node):
            last[root.get(value, value)] = index
    last.update({root.get(value, value): len(nodes) for value in graph.outputs})

    # then node by node: what it writes is alive together with all that is still to be read
    alive: dict[ir.Value, int] = {}
    steps = []
    for index, written in enumerate([list(graph.inputs), *(list(node.outputs) for node in nodes)], start=-1):
        for value in written:
            own = root.get(value, value)
            if value in constant or own in alive or own not in last or value.name in graph.initializers:
                continue
            size = size_of(own, stored)
            if size is None:
                return None
            alive[own] = size
        steps.append(sum(alive.values()))
        alive = {value: size for value, size in alive.items() if last[value] > index}
    return steps


def find_byte_sizes(graph: ir.Graph) -> dict[ir.Value, int]:
    """Values that the integer kernels keep as bytes, though the file calls them float: bytes per element."""
    sizes: dict[ir.Value, int] = {}
    fixed = {*graph.inputs, *graph.outputs}
    for node in graph:
        source = input_of(node, 0)
        if node.op_type != "QuantizeLinear" or source is None:
            continue
        written = node.outputs[0]
        around = [source, *_inputs_of_clip(source), *(value for user in written.consumers() for value in user.outputs)]
        size = int(written.dtype.itemsize) if written.dtype else 1
        sizes.update({value: size for value in around if value not in fixed})
    return sizes


def _find_shared_memory(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Value -> the one whose memory it shares.

    A view shares its input's; a QuantizeLinear or DequantizeLinear is part of the kernel beside it, except where it
    reads a graph input or writes a graph output; a clip before a QuantizeLinear is part of the kernel as well.
    """
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    root: dict[ir.Value, ir.Value] = {}
    for node in graph:
        source = input_of(node, 0)
        if source is None:
            continue
        written = node.outputs[0]
        converts = node.op_type in CONVERSIONS and source not in inputs and written not in outputs
        clips = any(user.op_type == "QuantizeLinear" for user in written.consumers()) and bool(_inputs_of_clip(written))
        if node.op_type in VIEWS or converts or clips:
            root[written] = root.get(source, source)
    return root


def _inputs_of_clip(value: ir.Value) -> list[ir.Value]:
    """What a clip takes in, where nobody else reads it: it lives in the integer kernel only."""
    node = value.producer()
    if node is None or node.op_type not in CLIPS or node.inputs[0] is None:
        return []
    source = node.inputs[0]
    alone = len(list(source.consumers())) == 1 and not source.is_graph_input() and not source.is_graph_output()
    return [source] if alone else []


def size_of(value: ir.Value, stored: dict[ir.Value, int]) -> int | None:
    shape = find_shape(value)
    if shape is None:
        return None
    if value.dtype == ir.DataType.STRING:  # as long as its texts
        return None
    return prod(shape) * int(stored.get(value, value.dtype.itemsize if value.dtype else 4))


def find_shape(value: ir.Value) -> Shape | None:
    """The shape, when every axis is known."""
    if value.shape is None:
        tensor = value.const_value
        return tuple(tensor.shape.numpy()) if tensor is not None else None
    axes = [axis if isinstance(axis, int) else None for axis in value.shape]
    return None if None in axes else tuple(axis for axis in axes if axis is not None)
