"""What the rounding of one tensor costs by itself: a float model in which that tensor alone stands in bytes.

Beside all other roundings, which move the outputs many times as far, what one of them does is mostly chance.  Alone, it
shows on a few samples, and such errors add up: each is small, and they know nothing of each other.
"""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import name_of, tensors_of
from fcdeploy.int8.writing.conversions import Conversions, producer
from fcdeploy.records.plan import QParams


def round_alone(model: ir.Model, tensor: str, q: QParams) -> ir.Model | None:
    """A copy of a float model whose nodes read a tensor from its bytes; None where it has no tensor of that name."""
    copy = model.clone()
    value = next((value for value in tensors_of(copy.graph) if name_of(value) == tensor), None)
    if value is None:
        return None
    uses, conversions = list(value.uses()), Conversions(copy.graph)
    integers = conversions.quantize(value, q, f"{tensor}/q")
    real = conversions.dequantize(integers, q, f"{tensor}/dq")
    for node, index in uses:
        node.replace_input_with(index, real)
    pair = [producer(integers), producer(real)]
    writer = value.producer()
    if writer is None:
        copy.graph.insert_before(copy.graph[0], pair)
    else:
        copy.graph.insert_after(writer, pair)
    return copy
