"""Weights a block at a time: a model may be larger than memory, a block of its weights never is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError

BLOCK_BYTES = 8 << 20  # of weights held at once: a few times the cache, so that a block costs little to begin
LARGE = 1 << 30  # bytes of weights from which on a model is neither copied nor run for the sake of its int8 form
HEAVY = (
    1 << 27
)  # bytes of weights from which on they are kept in files, and no more than two forms of a model are loaded


def initializer_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those of subgraphs too, wherever they are kept. Reads none of them."""
    graphs = (model.graph, *model.graph.subgraphs())
    tensors = (value.const_value for graph in graphs for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def is_large(model: ir.Model) -> bool:
    """Whether the model's weights should exist in memory block by block only."""
    return initializer_bytes(model) >= LARGE


def is_heavy(model: ir.Model) -> bool:
    """Whether the weights of the model and its integer forms should lie in files, and few of them be loaded at a time."""
    return initializer_bytes(model) >= HEAVY


def read_blocks(tensor: ir.TensorProtocol, axis: int = 0) -> Iterator[tuple[slice, Array]]:
    """Slices along `axis`, in order, each of about BLOCK_BYTES at most, and what is there: `array[..., part, ...]`.

    Bytes outside the model are read from their file rather than mapped: pages of a map count as memory of this process
    once they were touched.  Raises FcdeployError when the file is shorter than the model says.
    """
    shape = [int(n) for n in tensor.shape.numpy()]
    if not shape:
        yield slice(0, 1), tensor.numpy().reshape(1)
        return
    count = max(1, BLOCK_BYTES * shape[axis] // max(tensor.nbytes, 1))
    held = None if _is_readable(tensor) else tensor.numpy()
    for at in range(0, shape[axis], count):
        part = slice(at, min(at + count, shape[axis]))
        if held is not None:
            yield part, held[(slice(None),) * axis + (part,)]
        else:
            assert isinstance(tensor, ir.ExternalTensor)
            yield part, _read_slice(tensor, shape, axis, part)


def read_whole(tensor: ir.TensorProtocol) -> Array:
    """All of it; of a file read, so that no map stays with the tensor."""
    if not _is_readable(tensor) or not len(tensor.shape):
        return tensor.numpy()
    result = np.empty(tensor.shape.numpy(), tensor.dtype.numpy())
    for part, array in read_blocks(tensor):
        result[part] = array
    return result


def _is_readable(tensor: ir.TensorProtocol) -> bool:
    """Whether the elements lie in a file as NumPy would lay them out: whole bytes each, little end first."""
    return isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8


def _read_slice(tensor: ir.ExternalTensor, shape: list[int], axis: int, part: slice) -> Array:
    """A slice along an axis: one stretch of the file for each index of the axes before it."""
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    dtype = tensor.dtype.numpy().newbyteorder("<")
    result = np.empty((before, (part.stop - part.start) * after), dtype)
    step, start = shape[axis] * after * dtype.itemsize, (tensor.offset or 0) + part.start * after * dtype.itemsize
    with Path(tensor.path).open("rb", buffering=0) as file:
        for index, row in enumerate(result.view(np.uint8)):
            _read_exactly(file.fileno(), memoryview(row), start + index * step, tensor.path)
    return result.reshape(*shape[:axis], part.stop - part.start, *shape[axis + 1 :])


def _read_exactly(file: int, into: memoryview, offset: int, path: str) -> None:
    while into:
        count = os.preadv(file, [into], offset)
        if not count:
            raise FcdeployError(
                f"weight file {path!r} ends at byte {offset}, before its weights do",
                "copy the weight file beside the model, whole",
            )
        into, offset = into[count:], offset + count
