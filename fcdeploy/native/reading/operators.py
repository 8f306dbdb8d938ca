"""Q/DQ graph to integer program: each node once, in the graph's order.

A DequantizeLinear computes nothing: it says what bytes mean.  An operator between bytes becomes one step on bytes where
a QuantizeLinear follows it, a chain of functions of one tensor of bytes becomes a table, and what is left is floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.native.program.functions import BINARY, TABLED, UNARY
from fcdeploy.native.program.simplify import simplify
from fcdeploy.native.program.steps import KERNELS_HINT, LookupTable, Move, Program, Step
from fcdeploy.native.program.tensors import DTYPES, Tensor
from fcdeploy.native.reading import (
    casts,
    choices,
    gather,
    interpolate,
    layers,
    moves,
    normalize,
    pointwise,
    pools,
    recurrent,
    transposed,
)
from fcdeploy.native.reading.dynamic_lstm import spell_out_lstm
from fcdeploy.native.reading.exact_functions import restore_functions
from fcdeploy.native.reading.fold import explain_misfit, find_stored_weight, fold
from fcdeploy.native.reading.operands import Coded, Fixed, is_identity, make_codes
from fcdeploy.native.reading.packed_weights import spell_out_packed
from fcdeploy.native.reading.qlinear import spell_out
from fcdeploy.native.reading.reader import RAISED, STATIC, Reader, read_shape
from fcdeploy.native.reading.spelled import find_spelling, may_spell, spell
from fcdeploy.records.origin import read_shapes

Read = Callable[[Reader, ir.Node], None]

OPERATORS: dict[str, Read] = {
    **dict.fromkeys((*UNARY, *TABLED), pointwise.unary),
    **dict.fromkeys(BINARY, pointwise.binary),
    "QuantizeLinear": pointwise.quantize,
    "DequantizeLinear": pointwise.dequantize,
    "Relu": pointwise.relu_or_clip,
    "Clip": pointwise.relu_or_clip,
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), pointwise.combine_several),
    "BatchNormalization": pointwise.batch_normalization,
    "Cast": casts.cast,
    "Identity": pointwise.identity,
    "Dropout": pointwise.identity,
    "Conv": layers.conv,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "MaxPool": pools.max_pool,
    "AveragePool": pools.average_pool,
    "GlobalAveragePool": pools.global_average,
    "GlobalMaxPool": pools.global_max,
    **dict.fromkeys(pools.REDUCTIONS, pools.reduction),
    "Softmax": pools.softmax,
    "LogSoftmax": pools.log_softmax,
    "Where": choices.where,
    **dict.fromkeys(choices.PLACES, choices.place),
    "TopK": choices.order,
    "ConvTranspose": transposed.conv_transpose,
    "LayerNormalization": normalize.layer_normalization,
    "LSTM": recurrent.lstm,
    "GRU": recurrent.gru,
    "DepthToSpace": moves.depth_to_space,
    "SpaceToDepth": moves.space_to_depth,
    "Reshape": moves.reshape,
    "Flatten": moves.flatten,
    "Squeeze": moves.squeeze,
    "Unsqueeze": moves.unsqueeze,
    "Transpose": moves.transpose,
    "Slice": moves.slice_,
    "Split": moves.split,
    "Gather": gather.gather,
    "Concat": moves.concat,
    "Pad": moves.pad,
    "Expand": moves.expand,
    "Tile": moves.tile,
    "Resize": interpolate.resize,
    "Upsample": interpolate.resize,
}
"""ONNX operator -> the function that reads it."""

DYNAMIC = ("DynamicQuantizeMatMul", "DynamicQuantizeLinear")


def read_program(
    model: ir.Model, name: str, shapes: Mapping[str, Sequence[int]] | None = None, *, pairs: bool = True
) -> Program:
    """The program of a quantized model for one sample; without `pairs` for cores that never add products in 16 bits.

    `shapes` gives the lengths of inputs whose axes are free, but for the first, which is the sample's.  Raises
    FcdeployError at an operator that has no kernel, by its node.
    """
    model, reader = restore_functions(spell_out(spell_out_packed(spell_out_lstm(model)))), Reader()
    if any(may_spell(node) for node in model.graph):
        model = model.clone()  # in which others stand in their places
    seen = read_shapes(model.metadata_props, name)
    inputs = tuple(_read_input(reader, value, shapes or {}, seen) for value in _list_fed(model))
    _read_nodes(reader, list(model.graph))
    found = [_read_output(reader, value) for value in model.graph.outputs]
    outputs = _name_outputs(reader, inputs, found, [value.name or "" for value in model.graph.outputs])
    return simplify(Program(name, inputs, outputs, _keep_needed(reader.steps, outputs)), pairs=pairs)


def _read_nodes(reader: Reader, nodes: Sequence[ir.Node]) -> None:
    """One after the other. Raises FcdeployError where there is no kernel, and where shapes do not fit together."""
    for node in nodes:
        if node in reader.done:
            continue
        try:
            write = find_spelling(reader, node)
            if write is None:
                _read_node(reader, node)
            else:
                _read_nodes(reader, spell(reader, node, write))
        except (ValueError, IndexError) as error:  # NumPy's: of a graph that runs nowhere, or a defect of ours
            why = explain_misfit(reader, node)
            if not why:
                raise
            raise reader.refuse(node, why) from error


def _read_node(reader: Reader, node: ir.Node) -> None:
    """A constant, or steps."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        reader.check_scales(node)
    kept = find_stored_weight(reader, node)
    if kept is not None:
        reader.set(node.outputs[0], kept)
        return
    folded_arrays = fold(reader, node)
    if folded_arrays is not None:
        for value, array in zip(node.outputs, folded_arrays, strict=False):
            reader.set(value, Fixed(array))
        return
    _choose_operator(reader, node)(reader, node)


def _choose_operator(reader: Reader, node: ir.Node) -> Read:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):  # of either domain
        return OPERATORS[node.op_type]
    if node.op_type in DYNAMIC:
        raise reader.refuse(node, "it scales its activations anew in every run", STATIC)
    own = node.domain in ("", "ai.onnx")
    read = OPERATORS.get(node.op_type) if own else None
    if read is None:
        raise reader.refuse(node, f"there is no kernel for this operator{'' if own else f' of {node.domain}'}")
    return read


def _list_fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _read_input(
    reader: Reader, value: ir.Value, shapes: Mapping[str, Sequence[int]], seen: Mapping[str, Sequence[int]]
) -> Tensor:
    """An input of the program; codes of int8 are raised by a table.  `seen` are shapes that it may well have."""
    name, declared = value.name or "", list(value.shape or ())
    given = list(shapes.get(name, ()))
    if given and len(given) != len(declared):
        raise FcdeployError(f"input {name!r} has {len(declared)} axes, {given} was given", "--shape NAME:1,3,32,32")
    shape = [
        given[i] if given else length if isinstance(length, int) else 1 if i == 0 else 0
        for i, length in enumerate(declared)
    ]
    if 0 in shape:
        free, likely = [str(length) for length in declared], seen.get(name, ())
        if len(likely) == len(shape):
            shape = [n or length for n, length in zip(shape, likely, strict=True)]
        raise FcdeployError(
            f"input {name!r} has the free axes [{', '.join(free)}]: native code is made for one shape",
            f"--shape {name}:{','.join('N' if n == 0 else str(n) for n in shape)}",
        )
    dtype = _read_dtype("input", value)
    tensor = Tensor(name, tuple(shape), dtype)
    if dtype == "int8":
        raised = Tensor(reader.make_name(f"{name}.raised"), tensor.shape, "uint8")
        reader.add(LookupTable(node=name, inputs=(tensor,), outputs=(raised,), table=_make_signs()))
        reader.set(value, make_codes(raised, RAISED))
    else:
        reader.set(value, make_codes(tensor, 0) if dtype == "uint8" else tensor)
    return tensor


def _read_dtype(what: str, value: ir.Value) -> str:
    """Raises FcdeployError at one that no kernel has."""
    dtype = value.dtype.numpy().name if value.dtype is not None else "float32"
    if dtype not in DTYPES:
        raise FcdeployError(f"{what} {value.name!r} is {dtype}, expected one of {', '.join(DTYPES)}", KERNELS_HINT)
    return dtype


def _read_output(reader: Reader, value: ir.Value) -> Tensor:
    """What an output of the graph is: floats, or the bytes as the graph has them."""
    view, name = reader.read(value), value.name or ""
    kind = _read_dtype("output", value)
    if isinstance(view, Fixed):
        raise FcdeployError(f"output {name!r} is a constant", KERNELS_HINT)
    if kind == "bool" and not (isinstance(view, Tensor) and view.dtype == "bool"):
        truth, to = choices.make_truth(reader, view, name), Tensor(reader.make_name(name), read_shape(view), "bool")
        bytes_ = np.arange(256, dtype=np.uint8)
        return reader.add(LookupTable(node=name, inputs=(truth,), outputs=(to,), table=bytes_))
    if not isinstance(view, Coded) or kind not in ("int8", "uint8"):
        return casts.convert(reader, name, reader.make_floats(view), kind)
    table = np.rint(view.values).astype(np.int64).astype(np.uint8)  # the low 8 bits, whatever the sign
    if is_identity(table):
        return view.tensor
    to = Tensor(name, view.tensor.shape, kind)
    return reader.add(LookupTable(node=name, inputs=(view.tensor,), outputs=(to,), table=table))


def _name_outputs(
    reader: Reader, inputs: Sequence[Tensor], found: Sequence[Tensor], names: Sequence[str]
) -> tuple[Tensor, ...]:
    """The outputs under the graph's names: the tensors themselves, or copies of what is an input or another output too."""
    taken, renamed = {tensor.name for tensor in inputs}, dict[str, str]()
    outputs = []
    for tensor, name in zip(found, names, strict=True):
        to = replace(tensor, name=name)
        if tensor.name in taken:
            reader.add(Move(node=name, inputs=(tensor,), outputs=(to,), kind="reshape"))
        elif tensor.name != name:
            renamed[tensor.name] = name
        taken.add(tensor.name)
        outputs.append(to)

    if renamed:
        others = {name: reader.make_name(name) for name in renamed.values() if name not in renamed}

        def rename(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
            both = others | renamed
            return tuple(replace(tensor, name=both.get(tensor.name, tensor.name)) for tensor in tensors)

        reader.steps = [
            replace(step, inputs=rename(step.inputs), outputs=rename(step.outputs)) for step in reader.steps
        ]
    return tuple(outputs)


def _make_signs() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Codes of int8 to raised ones, as bits, and back."""
    return np.arange(256, dtype=np.uint8) ^ np.uint8(RAISED)


def _keep_needed(steps: Sequence[Step], outputs: Sequence[Tensor]) -> tuple[Step, ...]:
    """The steps that some output depends on."""
    wanted, kept = {tensor.name for tensor in outputs}, []
    for step in reversed(steps):
        if any(tensor.name in wanted for tensor in step.outputs):
            kept.append(step)
            wanted.update(tensor.name for tensor in step.inputs)
    return tuple(reversed(kept))
