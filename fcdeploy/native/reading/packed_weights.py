"""MatMulNBits, whose weights have 2, 4 or 8 bits, as DequantizeLinear and MatMul: read like any other model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import Names, add_initializer, rewrite_operators
from fcdeploy.graph.nodes import array_of, attribute_of, name_of
from fcdeploy.native.program.steps import KERNELS_HINT
from fcdeploy.native.reading.reader import WRITTEN_AS

OP = "MatMulNBits"
BITS = (2, 4, 8)
SCALES, ZEROS, GROUPS, BIAS = 2, 3, 4, 5  # inputs behind the activations and the weights


def spell_out_packed(model: ir.Model) -> ir.Model:
    """The model with a DequantizeLinear and a MatMul in the place of each; itself without any."""
    return rewrite_operators(model, (OP,), _replace)


def _replace(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    made: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value | None], name: str = "", **attributes: int) -> ir.Value:
        own = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        new = ir.Node("", op, inputs, own, name=name or names.take(f"{name_of(node)}.{op}"))
        new.outputs[0].name = names.take(f"{name_of(node)}.{op}")
        new.meta[WRITTEN_AS] = OP
        made.append(new)
        return new.outputs[0]

    def hold(array: Array) -> ir.Value:
        return add_initializer(graph, names.take(f"{name_of(node)}.held"), array)

    size = attribute_of(node, "block_size", 0)
    weight, scale, zero = unpack(node, size)
    whole = _read(node, GROUPS) is None and zero.dtype == np.uint8
    if whole and scale.shape[1] == 1:  # a scale for each output: integers where the activations are
        rows = add("DequantizeLinear", [hold(each) for each in (weight, scale[:, 0], zero[:, 0])], axis=0)
    elif whole:
        rows = add("DequantizeLinear", [hold(each) for each in (weight, scale, zero)], axis=1, block_size=size)
    else:
        rows = hold(_dequantize(weight, scale, zero, _read(node, GROUPS), size))
    turned = ir.Node("", "Transpose", [rows], [ir.AttrInt64s("perm", [1, 0])], name=names.take(name_of(node)))
    turned.outputs[0].name = names.take(name_of(node))
    made.append(turned)
    result = add("MatMul", [node.inputs[0], turned.outputs[0]], name=name_of(node))
    if len(node.inputs) > BIAS and node.inputs[BIAS] is not None:
        result = add("Add", [result, node.inputs[BIAS]])
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, [result])


def unpack(node: ir.Node, size: int) -> tuple[Array, Array, Array]:
    """Weights (outputs, inputs) as uint8, and the scale and zero point of each block, (outputs, blocks).

    Raises FcdeployError where they are not constants, or not as many as the attributes say.
    """
    outs, length, bits = (attribute_of(node, name, default) for name, default in (("N", 0), ("K", 0), ("bits", 4)))
    weight, scale, zero, groups = (_read(node, at) for at in (1, SCALES, ZEROS, GROUPS))
    given = [at < len(node.inputs) and node.inputs[at] is not None for at in (ZEROS, GROUPS)]
    if weight is None or scale is None or (zero is None and given[0]) or (groups is None and given[1]):
        raise _refuse(node, "its weights are computed at run time")
    if bits not in BITS or size < 1:
        raise _refuse(node, f"it has {bits} bits in blocks of {size}, expected {', '.join(map(str, BITS))} bits")
    blocks = -(-length // size)
    zeros = -(-blocks * bits // 8) if zero is not None and zero.dtype == np.uint8 else blocks  # bytes, or numbers
    fits = (
        weight.size == outs * blocks * -(-size * bits // 8) and scale.size == outs * blocks
        and (zero is None or zero.size == outs * zeros)
        and (groups is None or (groups.size in (length, blocks * size) and 0 <= groups.min() <= groups.max() < blocks))
    )  # fmt: skip
    if not (outs and length and fits):
        raise _refuse(node, f"its weights, scales or zero points are not those of {outs} outputs in {blocks} blocks")
    rows = _split_bytes(weight.reshape(outs, blocks, -1), bits)[:, :, :size].reshape(outs, -1)[:, :length]
    if zero is None:
        zero = np.full((outs, blocks), 1 << (bits - 1), np.uint8)
    elif zero.dtype == np.uint8:
        zero = _split_bytes(zero.reshape(outs, -1), bits)[:, :blocks]
    return np.ascontiguousarray(rows), scale.reshape(outs, blocks).astype(np.float32), zero.reshape(outs, blocks)


def _split_bytes(packed: Array, bits: int) -> Array:
    """Numbers of the last axis, of which each byte holds some, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    each = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(each.reshape(*packed.shape[:-1], -1), np.uint8)


def _dequantize(weight: Array, scale: Array, zero: Array, groups: Array | None, size: int) -> Array:
    """With zero points that are numbers of their own, or blocks whose inputs do not lie side by side."""
    block = np.arange(weight.shape[1]) // size if groups is None else groups[: weight.shape[1]]
    return np.asarray((weight - zero[:, block].astype(np.float32)) * scale[:, block], np.float32)


def _read(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else array_of(value)


def _refuse(node: ir.Node, why: str) -> FcdeployError:
    return FcdeployError(f"node {node.name!r} is a {OP} that cannot be compiled: {why}", KERNELS_HINT)
