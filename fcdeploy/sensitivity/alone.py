"""What the rounding of one tensor costs by itself: a float model in which that tensor alone stands in bytes.

Beside all other roundings, which move the outputs many times as far, what one of them does is mostly chance.  Alone, it
shows on a few samples, and such errors add up: each is small, and they know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from fcdeploy.graph.nodes import name_of, tensors_of
from fcdeploy.int8.writing.conversions import Conversions, producer
from fcdeploy.records.plan import QParams


@contextmanager
def round_alone(model: ir.Model, tensor: str, q: QParams) -> Iterator[ir.Model | None]:
    """A float model whose nodes read a tensor from its bytes while the block lasts; None where it has no tensor of that name.

    It is the model itself: a copy for each of hundreds of tensors would take longer than the runs.
    """
    graph = model.graph
    value = next((value for value in tensors_of(graph) if name_of(value) == tensor), None)
    if value is None:
        yield None
        return
    uses, constants, conversions = list(value.uses()), set(graph.initializers), Conversions(graph)
    integers = conversions.quantize(value, q, f"{tensor}/q")
    real = conversions.dequantize(integers, q, f"{tensor}/dq")
    for node, index in uses:
        node.replace_input_with(index, real)
    pair = [producer(integers), producer(real)]
    writer = value.producer()
    if writer is None:
        graph.insert_before(graph[0], pair)
    else:
        graph.insert_after(writer, pair)
    try:
        yield model
    finally:
        for node, index in uses:
            node.replace_input_with(index, value)
        graph.remove(pair, safe=True)
        for name in set(graph.initializers) - constants:
            del graph.initializers[name]
