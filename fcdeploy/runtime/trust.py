"""Refusal of models that onnxruntime computes otherwise than written: its fusions do not check all they rely on.

Each row is a group of facts (tables/facts.py); what the installed runtime answers decides, not the version:

  scales along the wrong axis of a weight     fuses, SQNR -2 to 6 dB, or fails at the first run     refused
  Gemm, bias scale not input x weight scale   fuses, the bias is read in the wrong unit, 12-16 dB   refused
  Gemm, bias zero point not 0                 fuses, the zero point is dropped, 14 dB               refused
  Conv, bias scale not the product            left in float beyond 1 %, but where the product is    a warning; refused where
                                              tiny it fuses, 2-22 dB                                it fuses
  a float bias beyond 32 bits of input scale  rounded to int32 all the same, and overflows, for 8   refused
  x weight scale, result quantized            and 16 bits: the bias is lost
  zero points of another type or number       do not load                                          refused, by name
  MatMulNBits, weights of another size than   fails at the first run                                refused, by name
  its attributes say
  weight-only MatMul or Gemm, activations     fuses; activations are rounded to bytes in blocks:    a warning
  float or of 16 bits                         37-41 dB as a rule, the cost of int8 activations,
                                              but anything where one activation dwarfs its block;
                                              exact (level 1) takes 40 times the float time

A suspect is only refused when the graph that onnxruntime made of the model shows that it did fuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import array_of, attribute_of, input_of, is_constant, output_axis, producer_of, tensor_of
from fcdeploy.runtime.kernels import is_integer_kernel, optimize_graph, trace_origins
from fcdeploy.runtime.options import ACCURACY_LEVEL, read_options
from fcdeploy.runtime.probes.answers import harms
from fcdeploy.wording import list_some

LAYERS = {"Conv", "Gemm", "MatMul"}
BYTES = {ir.DataType.INT8, ir.DataType.UINT8}
SMALL = BYTES | {ir.DataType.INT4, ir.DataType.UINT4}
SHOWN = 5  # names in a sentence
NEAR = 0.01  # relative; onnxruntime itself takes a bias scale for the product up to here
AGAIN = "make it again from the float model: fcdeploy quantize FLOAT --int8 --data DATA -o OUT"


@dataclass(frozen=True)
class Suspect:
    """A node that is computed otherwise than written if it fuses, where the runtime answers `fact` so (runtime/probes).

    `fact` is how the names of its facts begin; `otherwise` is what to say where it does not fuse.
    """

    node: ir.Node
    fact: str
    why: str
    otherwise: str = ""


def refuse_untrusted(model: ir.Model, name: str) -> tuple[str, ...]:
    """Raise FcdeployError with the node's name where onnxruntime would compute nonsense; return warnings.

    The model is as it was read, with a name for every node.  onnxruntime loads it only where something is suspect.
    """
    level = read_options(model).get(ACCURACY_LEVEL)
    _check_types(model, name)
    _check_packed(model, name)
    large = [node for node in model.graph if _bias_overflows(node)]
    suspects = [suspect_node for node in model.graph for suspect_node in _find_suspects(node)]
    alone = [node for node in model.graph if level is None and _weight_only(node)]
    if not suspects and not alone and not large:
        return ()
    try:
        running = {origin: node for node, origin in trace_origins(model.graph, optimize_graph(model)).items() if origin}
    except FcdeployError:
        return ()  # it does not load at all, which whoever needs it loaded says

    _refuse_fused(running, large, suspects, name)
    return _warn_of_unfused(running, suspects, alone)


def _warn_of_unfused(
    running: Mapping[ir.Node, ir.Node], suspects: Sequence[Suspect], alone: Sequence[ir.Node]
) -> tuple[str, ...]:
    """Warnings about nodes computed as written, if not as fast as they were meant to be, and about rounded activations."""
    warnings = [
        f"{_describe(suspect.node)}: {suspect.otherwise}"
        for suspect in suspects
        if suspect.otherwise and not (suspect.node in running and is_integer_kernel(running[suspect.node].op_type))
    ]
    rounding = [repr(node.name) for node in alone if node in running and running[node].op_type == "MatMulNBits"]
    return (*warnings, *([_describe_rounding(rounding)] if rounding and harms("weights alone, ") else []))


def _refuse_fused(
    running: Mapping[ir.Node, ir.Node], large: Sequence[ir.Node], suspects: Sequence[Suspect], name: str
) -> None:
    """Raise for a node that an integer kernel runs, but not as it is written; `running` is by node of the file."""
    for node in large:
        if node in running and _rounds_bias(running[node]) and harms(f"bias beyond 32 bits, {node.op_type}"):
            raise FcdeployError(
                f"model {name!r}: {_describe(node)}: its bias does not fit 32 bits of input scale x weight scale, to which "
                f"onnxruntime rounds it",
                AGAIN,
            )
    for suspect in suspects:
        kernel = running.get(suspect.node)
        if kernel is not None and is_integer_kernel(kernel.op_type) and harms(suspect.fact):
            where = f"model {name!r}: {_describe(suspect.node)}"
            raise FcdeployError(f"{where}: {suspect.why}, which onnxruntime's {kernel.op_type} does not compute", AGAIN)


def _describe(node: ir.Node) -> str:
    return f"node {node.name!r}, a {node.op_type}"


def _describe_rounding(nodes: list[str]) -> str:
    return (
        f"of {list_some(nodes, SHOWN)} the weights have 8 bits or less and the activations more, but onnxruntime rounds these "
        f'to bytes as well (MatMulNBits); metadata fcdeploy.session = {{"{ACCURACY_LEVEL}": "1"}} makes it exact and slow, "4" '
        "accepts it"
    )


def _check_types(model: ir.Model, name: str) -> None:
    for node in model.graph.all_nodes():
        zero = input_of(node, 2)
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or zero is None:
            continue
        where = f"model {name!r}: {_describe(node)}"
        wanted, zero_type = _find_integer_type(node), zero.dtype
        if wanted is not None and zero_type is not None and wanted != zero_type:
            raise FcdeployError(f"{where}: its zero point is {zero_type}, its integers are {wanted}", AGAIN)
        scales, zeros = array_of(node.inputs[1]), array_of(zero)
        if scales is not None and zeros is not None and scales.size != zeros.size:
            raise FcdeployError(f"{where}: zero points {zeros.size}, scales {scales.size}, expected as many", AGAIN)


def _find_integer_type(node: ir.Node) -> ir.DataType | None:
    """The type on the integer side of a Q or DQ node, where something other than its own zero point, which is checked, tells."""
    if node.op_type == "QuantizeLinear":
        declared = attribute_of(node, "output_dtype", 0)
        return ir.DataType(declared) if declared else None
    value = node.inputs[0]
    before = producer_of(value, "QuantizeLinear")
    if before is not None and (zero := input_of(before, 2)) is not None:
        return zero.dtype
    return value.dtype if value is not None else None


def _find_suspects(node: ir.Node) -> Iterator[Suspect]:
    if node.op_type not in LAYERS or len(node.inputs) < 2:
        return
    x, weight = _find_dequantize(node.inputs[0]), _find_dequantize(node.inputs[1])
    if x is None or weight is None:
        return
    integers, scales = array_of(weight.inputs[0]), array_of(weight.inputs[1])
    if integers is None or scales is None or weight.inputs[0] is None or weight.inputs[0].dtype not in BYTES:
        return
    if not integers.ndim:  # one number, which has no axes
        return
    axis, right = _get_axis(weight, integers.ndim), _get_output_axis(node, integers.ndim)
    if scales.size > 1 and "block_size" not in weight.attributes and axis != right:
        zeros = array_of(input_of(weight, 2))
        same = np.all(scales == scales.flat[0]) and (zeros is None or np.all(zeros == zeros.flat[0]))
        if not same or scales.size != integers.shape[right]:
            yield Suspect(
                node,
                f"scales along the wrong axis, {node.op_type}",
                f"the scales of weight {_quote_name(weight)} are along axis {axis}, not its outputs' axis {right}",
            )
        return
    bias = _find_bias(node)
    x_scale = array_of(x.inputs[1])
    if bias is not None and x_scale is not None and x_scale.size == 1:
        yield from _find_bias_suspects(node, bias, x_scale.ravel() * scales.ravel())


def _find_bias_suspects(node: ir.Node, bias: ir.Node, product: Array) -> Iterator[Suspect]:
    """`product` is input scale x weight scale, one or as many as outputs: the unit an integer kernel reads a bias in."""
    integers, scale = array_of(bias.inputs[0]), array_of(bias.inputs[1])
    if integers is None or scale is None or integers.dtype != np.int32:
        return
    sizes = {integers.size, scale.size, product.size} - {1}
    if len(sizes) > 1:
        return  # they do not fit each other, which whoever runs it says
    off = np.where(integers.ravel() == 0, 0.0, np.abs(scale.ravel().astype(np.float64) / product - 1))
    if np.max(off, initial=0.0) > NEAR:
        what = f"the scale of bias {_quote_name(bias)} is not input scale x weight scale"
        yield Suspect(
            node, f"bias scale not the product, {node.op_type}", what, f"{what}, so that no integer kernel runs it"
        )
    zeros = array_of(input_of(bias, 2))
    if zeros is not None and np.any(zeros):
        what = f"the zero point of bias {_quote_name(bias)} is not 0"
        yield Suspect(node, "bias zero point", what, f"{what}, so that no integer kernel runs it")


def _find_bias(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of a layer's bias; for a MatMul that of the Add behind it, which becomes a Gemm with it."""
    if node.op_type != "MatMul":
        return _find_dequantize(input_of(node, 2))
    consumers = list(node.outputs[0].consumers())
    if len(consumers) != 1 or consumers[0].op_type != "Add":
        return None
    other = [value for value in consumers[0].inputs if value is not node.outputs[0]]
    return _find_dequantize(other[0]) if len(other) == 1 else None


def _bias_overflows(node: ir.Node) -> bool:
    """A layer on integers whose bias is stored as floats, too large for the integers it would be rounded to."""
    bias = array_of(input_of(node, 2))
    if node.op_type not in ("Conv", "Gemm") or bias is None:
        return False
    x, weight = _find_dequantize(node.inputs[0]), _find_dequantize(node.inputs[1])
    scales = [array_of(each.inputs[1]) if each is not None else None for each in (x, weight)]
    if scales[0] is None or scales[1] is None or scales[0].size != 1:
        return False
    step = scales[0].ravel().astype(np.float64) * scales[1].ravel()
    return step.size in (1, bias.size) and bool(np.any(np.abs(bias.ravel()) >= step * 2.0**31))


def _rounds_bias(kernel: ir.Node) -> bool:
    """Whether the node that runs reads its bias as integers."""
    return is_integer_kernel(kernel.op_type) or _find_dequantize(input_of(kernel, 2)) is not None


def _check_packed(model: ir.Model, name: str) -> None:
    """The weights and scales of a MatMulNBits are as many as its attributes say."""
    for node in model.graph.all_nodes():
        if node.op_type != "MatMulNBits" or len(node.inputs) < 3:
            continue
        inputs, outputs, bits, block = (attribute_of(node, key, 0) for key in ("K", "N", "bits", "block_size"))
        where = f"model {name!r}: {_describe(node)}"
        if min(inputs, outputs) < 1 or bits not in (2, 4, 8) or block < 16 or block & (block - 1):
            raise FcdeployError(f"{where}: K {inputs}, N {outputs}, bits {bits} and block_size {block} are none", AGAIN)
        blocks = -(-inputs // block)
        for value, wanted in (
            (node.inputs[1], outputs * blocks * block * bits // 8),
            (node.inputs[2], outputs * blocks),
        ):
            held = tensor_of(value)
            if held is not None and held.size != wanted:
                raise FcdeployError(f"{where}: {held.name!r} has {held.size} elements, expected {wanted}", AGAIN)


def _weight_only(node: ir.Node) -> bool:
    """A dense layer on float activations whose weight is stored in few bits."""
    if node.op_type not in ("MatMul", "Gemm") or _find_dequantize(node.inputs[0]) is not None:
        return False
    weight = _find_dequantize(node.inputs[1])
    stored = weight.inputs[0] if weight is not None else None
    return stored is not None and stored.dtype in SMALL and is_constant(stored)


def _get_axis(dequantize: ir.Node, rank: int) -> int:
    return attribute_of(dequantize, "axis", 1) % rank


def _get_output_axis(node: ir.Node, rank: int) -> int:
    """The axis of the layer's weight, which need not be constant, that its outputs lie along."""
    return rank - 1 if node.op_type == "MatMul" else output_axis(node)


def _find_dequantize(value: ir.Value | None) -> ir.Node | None:
    return producer_of(value, "DequantizeLinear")


def _quote_name(dequantize: ir.Node) -> str:
    value = dequantize.inputs[0]
    return repr(value.name if value is not None else "")
