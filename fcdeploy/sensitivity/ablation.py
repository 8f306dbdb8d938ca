"""Ablation: an int8 model in which some sources of error (error_sources.py) are not rounded, all else unchanged.

Graph surgery on a copy: nothing is planned, rounded or corrected anew.  What no longer has a whole pattern of integers
around it is said in floats, so that the runtime does not make up a rounding of its own for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate import quantized_tensors
from fcdeploy.graph.edit import add_constant, block_fusion, remove_dead, set_operator
from fcdeploy.graph.nodes import array_of, bias_of, data_inputs, input_of, name_of, operator_of, producer_of
from fcdeploy.int8.refining.smooth import SMOOTHED
from fcdeploy.int8.writing.block_fusion import would_round_weights
from fcdeploy.sensitivity.error_sources import PACKED, ErrorSource, find_rounded_inputs
from fcdeploy.sensitivity.stored_constants import Original, dequantize_constant, find_integers, find_original


def leave_unrounded(int8: ir.Model, floats: Sequence[ir.Model], source: ErrorSource, *more: ErrorSource) -> ir.Model:
    """A copy of the int8 model with one source of `find_sources(int8)`, or several, left unrounded.

    `floats` are models that may know it, the likeliest first: the prepared one, whose layers were quantized, then that
    of the file.  A tensor's bytes are passed by, clips put back that were left to the saturation of the bytes, and nodes
    that moved bytes move floats.  Weights become those of the float model, and so does the layer's bias, since it was
    corrected for the error of its weights; where channels were rescaled, the bias stays.  Bytes of weights beside a tensor
    that is not rounded are said in floats, and are no source of the result any more.  Raises FcdeployError where no
    model of `floats` has the weights.
    """
    model = int8.clone()
    for each in sorted((source, *more), key=lambda each: each.kind == "tensor"):
        (_restore_tensor if each.kind == "tensor" else _restore_weights)(model, floats, each)
    remove_dead(model.graph)
    return model


def _restore_weights(model: ir.Model, floats: Sequence[ir.Model], source: ErrorSource) -> None:
    node = next(node for node in model.graph if node.name == source.node)
    if node.op_type in PACKED:
        _unpack(model.graph, node, floats, source)
        return
    (value,) = (
        each for each in find_rounded_inputs(node) if (s := find_integers(each)) and s.name == source.integers[0]
    )
    original_weight = find_original(node, value, floats)
    if original_weight is None:
        raise _make_unknown_error(source)
    _restore_bias(model.graph, node, original_weight)
    for index, each in enumerate(node.inputs):
        if each is value:
            node.replace_input_with(
                index, add_constant(model.graph, f"{node.name}/float/{index}", original_weight.weight)
            )
    if would_round_weights(node):
        block_fusion(model.graph, node)


def _restore_bias(graph: ir.Graph, node: ir.Node, weights: Original) -> None:
    """The bias of the layer whose weights were found, zeros where it has none; one that is computed is left alone."""
    index, value = operator_of(node).bias, bias_of(node)
    if weights.layer is None or index is None or value is None:
        return
    stored = array_of(value) if find_integers(value) is None else dequantize_constant(value)
    if stored is None:
        return
    real = array_of(input_of(weights.layer, index))
    bias = np.zeros(stored.shape) if real is None else real.reshape(stored.shape)
    node.replace_input_with(index, add_constant(graph, f"{node.name}/float/bias", bias.astype(np.float32)))


def _unpack(graph: ir.Graph, node: ir.Node, floats: Sequence[ir.Model], source: ErrorSource) -> None:
    """The layer of the float model in place of an operator that holds integers itself."""
    layer = next((other for model in floats for other in model.graph if other.name == node.name), None)
    if layer is None or array_of(layer.inputs[1]) is None:
        raise _make_unknown_error(source)
    inputs = list(node.inputs[: len(layer.inputs)])
    inputs += [None] * (len(layer.inputs) - len(inputs))
    for index, value in enumerate(layer.inputs[1:], start=1):
        array = array_of(value)
        inputs[index] = inputs[index] if array is None else add_constant(graph, f"{node.name}/float/{index}", array)
    set_operator(node, layer.op_type, layer.domain, inputs, tuple(layer.attributes.values()))


def _restore_tensor(model: ir.Model, floats: Sequence[ir.Model], source: ErrorSource) -> None:
    """Bypass the integers of a tensor: its readers get the floats."""
    nodes = list(model.graph)
    by_name = {node.outputs[0].name: node for node in nodes if node.op_type == "QuantizeLinear"}
    quantizers = [by_name[name] for name in source.integers]
    real = {node.outputs[0]: _restore_clips(model, floats, node) for node in quantizers}
    makers = [quantized_tensors.find_producer(node.inputs[0]) for node in quantizers if node.inputs[0] is not None]
    touched = {node for node in makers if node is not None}
    for node in nodes:
        if not any(value in real for value in node.inputs):
            continue
        if node.op_type == "DequantizeLinear":
            touched.update(node.outputs[0].consumers())
            _bypass(node, _read_as(model.graph, node, quantizers[0], real[node.inputs[0]]))  # type: ignore[index]
        elif operator_of(node).role == "shape":  # what it writes is no float, and nothing behind it is
            for index, value in enumerate(node.inputs):
                node.replace_input_with(index, real.get(value, value) if value is not None else None)
        else:
            real.update(zip(node.outputs, _copy_on_floats(model.graph, node, real, quantizers[0]), strict=True))
    for node in touched:
        for value in find_rounded_inputs(
            node
        ):  # no integer kernel computes this any more: the bytes are said in floats
            array = add_constant(model.graph, f"{node.name}/held/{value.name}", dequantize_constant(value))
            node.replace_input_with(list(node.inputs).index(value), array)


def _read_as(graph: ir.Graph, node: ir.Node, quantize: ir.Node, value: ir.Value) -> ir.Value:
    """What a DequantizeLinear makes of a value that was written by `quantize`: the value, where both have one scale.

    Bytes q = x / s + z that are read with another scale and zero point, where arithmetic with one number is no node,
    are (q - z') s' = (s' / s) x + (z - z') s'.
    """
    (s, z), (t, u) = (_read_scale(each) for each in (quantize, node))
    if np.array_equal(s, t) and np.array_equal(z, u):
        return value
    for op, constant in (("Mul", t / s), ("Add", (z - u) * t)):
        name = f"{name_of(node.outputs[0])}/read_as/{op}"  # nodes that read back may have no name
        made = ir.Node("", op, [value, add_constant(graph, f"{name}/by", constant.astype(np.float32))], name=name)
        value = made.outputs[0]
        value.name, value.type = f"{name}/out", ir.TensorType(ir.DataType.FLOAT)
        graph.insert_before(node, made)
    return value


def _read_scale(node: ir.Node) -> tuple[Float64, Float64]:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear."""
    scale, point = (array_of(input_of(node, index)) for index in (1, 2))
    assert scale is not None, f"{node.name} has a constant scale"
    return scale.astype(np.float64), np.zeros_like(scale, np.float64) if point is None else point.astype(np.float64)


def _bypass(node: ir.Node, value: ir.Value) -> None:
    """Readers of what a DequantizeLinear writes read the value; what the graph calls by its name keeps a node."""
    read_back = node.outputs[0]
    if not read_back.is_graph_output():
        read_back.replace_all_uses_with(value)
        return
    set_operator(node, "Identity", "", [value])


def _copy_on_floats(
    graph: ir.Graph, node: ir.Node, real: dict[ir.Value, ir.Value], quantize: ir.Node
) -> Sequence[ir.Value]:
    """What a copy of a node that moves bytes writes, on floats; other bytes that it reads are read back for it."""
    data = data_inputs(node)
    scale, point = (array_of(value) for value in (*quantize.inputs[1:], None)[:2])
    assert scale is not None
    kind = np.dtype(np.uint8) if point is None else point.dtype
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        name, array = f"{node.name}/back/{index}", array_of(value)
        if value is None or value in real:
            inputs.append(value and real[value])
        elif array is not None and array.dtype == kind:  # a border or a bound
            exact = (array.astype(np.float32) - np.float32(0 if point is None else point)) * scale
            inputs.append(add_constant(graph, name, exact.astype(np.float32)))
        elif value in data and array is None:
            back = ir.Node(quantize.domain, "DequantizeLinear", [value, *quantize.inputs[1:]], name=name)
            back.outputs[0].name = name
            graph.insert_before(node, back)
            inputs.append(back.outputs[0])
        else:
            inputs.append(value)
    copy = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs),
                   name=f"{node.name}/float")  # fmt: skip
    for index, value in enumerate(copy.outputs):
        value.name, value.type = f"{node.name}/float/{index}", ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, copy)
    return copy.outputs


def _restore_clips(model: ir.Model, floats: Sequence[ir.Model], quantize: ir.Node) -> ir.Value:
    """What a QuantizeLinear reads, behind the clips that the float model has there; clipping twice is clipping once."""
    value = quantize.inputs[0]
    assert value is not None
    written = quantize.outputs[0].name
    for number, clip in enumerate(_find_clips(model, floats, quantize)):
        name = f"{written}/clip/{number}"
        bounds = [array_of(bound) for bound in clip.inputs[1:]]
        given = [None if b is None else add_constant(model.graph, f"{name}/{i}", b) for i, b in enumerate(bounds)]
        copy = ir.Node("", clip.op_type, [value, *given], clip.attributes.values(), name=name)
        value = copy.outputs[0]
        value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.insert_before(quantize, copy)
    return value


def _find_clips(model: ir.Model, floats: Sequence[ir.Model], quantize: ir.Node) -> list[ir.Node]:
    """The clips in front of the tensor in the first float model to know it, in their order."""
    for tap in quantized_tensors.find_quantized_tensors(model):
        if tap.integers != quantize.outputs[0].name:
            continue
        names = (*tap.names, *(name.removesuffix(SMOOTHED) for name in tap.names))
        for which, name in quantized_tensors.match_tensors([replace(tap, names=names)], model, floats).values():
            clips: list[ir.Node] = []
            last = next((n for n in floats[which].graph if name in {v.name for v in n.outputs}), None)
            while last is not None and last.op_type in quantized_tensors.CLIPS and last.inputs[0] is not None:
                clips.append(last)
                last = producer_of(last.inputs[0])
            return clips[::-1]
    return []


def _make_unknown_error(source: ErrorSource) -> FcdeployError:
    return FcdeployError(
        f"the float model has no weights like {source.name!r} of {source.op} {source.node!r}",
        "give the float model that the int8 model was made from",
    )
