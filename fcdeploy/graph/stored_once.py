"""Integers that several DequantizeLinear read stand in a file once.

onnxruntime does not load a model whose layers read the same integers under `session.x64quantprecision`: the unsigned copies that
it makes for them get the same name.  So the first layer reads the initializer, and each other one a Slice of it that takes
everything, which onnxruntime folds into an initializer of its own when it loads the file.  The ends of those slices lie
beyond the end, each elsewhere, for it would take equal ones for one.  `read_model` folds them too: only files have them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from hashlib import blake2b

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Names, add_initializer
from fcdeploy.graph.nodes import array_of, is_op, name_of, opset_of, tensor_of

LEAST_BYTES = 1024  # below, a slice adds about as much to the file as it saves
FIRST = 64  # elements that are compared before all are
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
NEEDED_OPSET = 13  # from which on a Slice, whose ends are an input since 10, is of 8 bits in every runtime


def store_once(model: ir.Model) -> ir.Model:
    """The model with equal integers once; itself where there are none."""
    repeated = _find_repeated(model.graph) if opset_of(model) >= NEEDED_OPSET else []
    if not repeated:
        return model
    model = model.clone()
    graph, names, begin = model.graph, Names(model.graph), model.graph[0]
    starts = add_initializer(graph, names.take("stored_once/starts"), np.zeros(1, np.int64))
    for place, pair in enumerate(repeated, start=1):
        first, other = (graph.initializers[name] for name in pair)
        end = np.array([_count_rows(first) + place], np.int64)
        ends = add_initializer(graph, names.take(f"{other.name}/ends"), end)
        copy = ir.Value(name=other.name, shape=other.shape, type=other.type)
        other.replace_all_uses_with(copy)
        del graph.initializers[name_of(other)]
        node = ir.Node("", "Slice", [first, starts, ends], outputs=[copy], name=names.take(f"{other.name}/copy"))
        graph.insert_before(begin, node)
    return model


def fold_copies(graph: ir.Graph) -> None:
    """Every Slice of integers that takes all of them, as `store_once` writes it, becomes an initializer of its own."""
    for node in list(graph):
        if not is_op(node, "Slice") or len(node.inputs) != 3 or node.outputs[0].is_graph_output():
            continue
        stored, starts, ends = (array_of(value) for value in node.inputs)
        if (
            stored is None
            or stored.dtype not in (np.int8, np.uint8)
            or not stored.ndim
            or starts is None
            or ends is None
        ):
            continue
        if starts.tolist() == [0] and ends.shape == (1,) and ends[0] >= len(stored):
            copy, read = node.outputs[0], list(node.inputs)
            name = name_of(copy)
            graph.remove(node)
            copy.name = None
            copy.replace_all_uses_with(add_initializer(graph, name, stored))
            for index, value in enumerate(read):
                node.replace_input_with(index, None)
                if index and value is not None and value.is_initializer() and not value.uses():
                    del graph.initializers[name_of(value)]


def _count_rows(value: ir.Value) -> int:
    tensor = tensor_of(value)
    assert tensor is not None
    return int(tensor.shape.numpy()[0])


def _find_repeated(graph: ir.Graph) -> list[tuple[str, str]]:
    """Of each initializer whose bytes another one before it has, the names of that one and its own."""
    likely = defaultdict[Hashable, list[tuple[str, Array]]](list)
    for name, value in graph.initializers.items():
        tensor, uses = value.const_value, value.uses()
        is_weight = all(is_op(node, "DequantizeLinear") and index == 0 for node, index in uses)
        if tensor is None or not is_weight or value.is_graph_input() or value.is_graph_output():
            continue
        if tensor.dtype in BYTES and len(tensor.shape) and tensor.nbytes >= LEAST_BYTES:
            array = tensor.numpy()
            likely[array.dtype, array.shape, array.flat[:FIRST].tobytes()].append((name, array))

    repeated = []
    for alike in likely.values():
        first: dict[bytes, str] = {}
        for name, array in alike if len(alike) > 1 else ():
            kept = first.setdefault(hash_content(array), name)
            if kept != name:
                repeated.append((kept, name))
    return repeated


def hash_content(array: Array) -> bytes:
    """Of its elements in their order, whatever the shape."""
    return blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=16).digest()
