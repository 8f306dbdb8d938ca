"""The state of reading a graph: what every value is, the steps so far, and the few questions that all operators ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import attribute_of
from fcdeploy.native.program.steps import KERNELS_HINT, Convert, Lookup, LookupTable, Move, Step
from fcdeploy.native.program.tensors import DTYPES, Coding, Floats, Tensor
from fcdeploy.native.reading.operands import Coded, Fixed, Operand, Sink, is_identity, make_codes, make_table

RAISED = 128  # what is added to the codes of an int8 activation
WIDE, WHOLE_NUMBERS = ("int32", "int64"), (Move, Convert)  # types of whole numbers, and what reads them
CLIPS = ("Relu", "Clip")
STATIC = "fcdeploy quantize MODEL --int8 --data DATA --engine native takes ranges beforehand"
BYTES = "fcdeploy quantize MODEL --int8 --data DATA --engine native makes bytes of all activations"
AGAIN = "quantize the float model again: fcdeploy quantize MODEL --int8 --data DATA --engine native"
WRITTEN_AS = "written as"  # in `meta` of a node: the operator that the file has in its place


class Reader:
    """Values are looked up by what computes them; `steps` grows in the order of the graph."""

    def __init__(self) -> None:
        self.operands: dict[ir.Value, Operand] = {}
        self.steps: list[Step] = []
        self.done: set[ir.Node] = set()
        self._reals: dict[tuple[str, bytes], Tensor] = {}
        self._fresh = 0

    def read(self, value: ir.Value | None) -> Operand:
        assert value is not None
        if value not in self.operands:
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is None:
                raise FcdeployError(f"{value.name!r} is read before anything computes it", "fcdeploy inspect MODEL")
            self.operands[value] = Fixed(np.asarray(tensor.numpy()))
        return self.operands[value]

    def get_input(self, node: ir.Node, index: int) -> Operand | None:
        """Input `index` of the node, None where it is left out."""
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if value is None else self.read(value)

    def get_constant(self, node: ir.Node, index: int) -> Array | None:
        """The array of input `index` where that is a constant."""
        source = self.get_input(node, index)
        return source.array if isinstance(source, Fixed) else None

    def get_integers(self, node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
        """A list of integers that is attribute `name` or constant input `index`; None where it is neither."""
        if name in node.attributes:
            return tuple(attribute_of(node, name, ()))
        if self.get_input(node, index) is None:
            return None
        array = self.get_constant(node, index)
        if array is None:
            raise self.refuse(node, f"its {name} are computed at run time")
        return tuple(int(number) for number in array.reshape(-1))

    def get_bytes(self, node: ir.Node, index: int) -> Tensor | None:
        """Input `index` where it is bytes as their coding means them."""
        source = self.get_input(node, index)
        return source.tensor if isinstance(source, Coded) and source.linear else None

    def make_name(self, what: str) -> str:
        """A name for a tensor that has none in the graph."""
        self._fresh += 1
        return f"{what}.{self._fresh}"

    def make_floats(self, operand: Operand | None) -> Tensor:
        """The operand as floats, or whatever numbers it has: bytes are looked up, once."""
        assert operand is not None
        if isinstance(operand, Tensor):
            return operand
        if isinstance(operand, Fixed):
            array = operand.array.astype(np.float32) if operand.array.dtype.kind in "fb" else operand.array
            if array.dtype.name not in DTYPES:
                raise FcdeployError(f"a constant is {array.dtype}, expected one of {', '.join(DTYPES)}", KERNELS_HINT)
            return Tensor(self.make_name("constant"), array.shape, str(array.dtype), held=array)
        key = operand.tensor.name, operand.values.tobytes()
        if key not in self._reals:
            to = Tensor(self.make_name(f"{operand.tensor.name}.real"), operand.tensor.shape, "float32")
            self.add(Lookup(node=operand.tensor.name, inputs=(operand.tensor,), outputs=(to,), table=operand.values))
            self._reals[key] = to
        return self._reals[key]

    def get_constant_bytes(self, operand: Operand) -> Tensor | None:
        """A constant that a DequantizeLinear makes of bytes with one scale, as these bytes; codes of int8 raised."""
        if not isinstance(operand, Fixed) or operand.integers is None or operand.scale is None or operand.zero is None:
            return None
        if operand.scale.size != 1 or operand.integers.dtype not in (np.uint8, np.int8):
            return None
        raised = RAISED if operand.integers.dtype == np.int8 else 0
        held = (operand.integers.astype(np.int16) + raised).astype(np.uint8)
        coding = Coding(np.float32(operand.scale[0]), int(operand.zero.reshape(-1)[0]) + raised)
        return Tensor(self.make_name("constant"), held.shape, "uint8", coding, held)

    def recode(self, operand: Coded, to: Coding, node: str, name: str) -> Tensor:
        """The operand's bytes in another coding: those it has where nothing changes, else through a table."""
        table = make_table(operand, to)
        if is_identity(table):
            return replace(operand.tensor, coding=to)
        tensor = Tensor(name, operand.tensor.shape, "uint8", to)
        self.add(LookupTable(node=node, inputs=(operand.tensor,), outputs=(tensor,), table=table))
        return tensor

    def add(self, step: Step) -> Tensor:
        """Raises FcdeployError where a step would read whole numbers as if they were floats."""
        odd = [] if isinstance(step, WHOLE_NUMBERS) else [each.dtype for each in step.inputs if each.dtype in WIDE]
        if odd:
            raise FcdeployError(
                f"node {step.node!r} computes with {odd[0]}, for which there is no kernel", KERNELS_HINT
            )
        self.steps.append(step)
        return step.output

    def set(self, value: ir.Value, operand: Operand) -> None:
        self.operands[value] = operand

    def find_sink(self, node: ir.Node, channels: int | None = None) -> Sink | None:
        """The bytes that the node's output becomes, clips between them included; None where it is needed as floats.

        With `channels` also those with a scale for each of so many.  The nodes in between are then done, and what reads
        the bytes finds them by `write`.
        """
        absorbed = self._follow_to_sink(node)
        if absorbed is None or (absorbed[0].scales is not None and len(absorbed[0].scales) != channels):
            return None
        self.done.update(absorbed[1])
        return absorbed[0]

    def write(self, node: ir.Node, tensor: Tensor) -> None:
        """Say what the node's output is: floats, or the bytes of all QuantizeLinears behind it."""
        value = node.outputs[0]
        if tensor.coding is None:
            self.set(value, tensor)
            return
        while (readers := list(value.consumers()))[0].op_type != "QuantizeLinear":
            value = readers[0].outputs[0]
        for reader in readers:
            self.write_codes(reader, tensor)

    def write_codes(self, node: ir.Node, tensor: Tensor) -> None:
        """Say which bytes a QuantizeLinear writes."""
        self.set(node.outputs[0], make_codes(tensor, self.find_raise(node)))

    def find_raise(self, node: ir.Node) -> int:
        """What is added to the codes of a QuantizeLinear or DequantizeLinear to make them unsigned."""
        zero, kind = self.get_constant(node, 2), attribute_of(node, "output_dtype", 0)
        signed = zero.dtype == np.int8 if zero is not None else kind == ir.DataType.INT8
        return RAISED if signed else 0

    def _follow_to_sink(self, node: ir.Node) -> tuple[Sink, list[ir.Node]] | None:
        value, low, high = node.outputs[0], -np.inf, np.inf
        passed: list[ir.Node] = []
        while True:
            readers = list(value.consumers())
            if value.is_graph_output() or not readers:
                return None
            if all(reader.op_type == "QuantizeLinear" for reader in readers):
                sink = self._read_sink(readers, low, high)
                return None if sink is None else (sink, [*passed, *readers])
            bounds = self.read_bounds(readers[0]) if len(readers) == 1 and is_clip(readers[0]) else None
            if bounds is None:
                return None
            low, high = (float(min(max(end, bounds[0]), bounds[1])) for end in (low, high))
            passed.append(readers[0])
            value = readers[0].outputs[0]

    def _read_sink(self, readers: Sequence[ir.Node], low: float, high: float) -> Sink | None:
        """What QuantizeLinears make of numbers from `low` to `high`, where all make the same."""
        codings = [self.read_coding(reader) for reader in readers]
        first = codings[0]
        if first is not None:
            ends = first.encode(np.array([low, high], np.float32))
            return Sink(first, int(ends[0]), int(ends[1])) if all(other == first for other in codings) else None
        of_channels = self.read_channel_coding(readers[0])
        if of_channels is None or len(readers) > 1:
            return None
        coding, scales = of_channels
        both = coding.encode(np.array([[low], [high]], np.float32) / scales)
        if np.ptp(both, axis=1).any():  # a clip that leaves other ends in each channel
            return None
        return Sink(coding, int(both[0, 0]), int(both[1, 0]), scales)

    def read_channel_coding(self, node: ir.Node) -> tuple[Coding, Floats] | None:
        """Of a QuantizeLinear or DequantizeLinear with a scale for each channel and one zero point: its coding, in which the
        scale is 1, and the scales."""
        scale, zero = self.get_constant(node, 1), self.get_constant(node, 2)
        if scale is None or scale.ndim != 1 or attribute_of(node, "axis", 1) != 1 or (scale <= 0).any():
            return None
        if self.get_input(node, 2) is not None and (zero is None or zero.dtype not in (np.uint8, np.int8)):
            return None
        points = {0} if zero is None else {int(number) for number in zero.reshape(-1)}
        if len(points) != 1:
            return None
        return Coding(np.float32(1), points.pop() + self.find_raise(node)), scale.astype(np.float32)

    def read_coding(self, node: ir.Node) -> Coding | None:
        """Of a QuantizeLinear or DequantizeLinear with one scale for a tensor of bytes, codes of int8 raised."""
        scale, zero = self.get_constant(node, 1), self.get_constant(node, 2)
        if scale is None or scale.size != 1 or (self.get_input(node, 2) is not None and zero is None):
            return None
        if zero is not None and zero.dtype not in (np.uint8, np.int8):
            return None
        point = 0 if zero is None else int(zero.reshape(()))
        return Coding(np.float32(scale.reshape(())), point + self.find_raise(node))

    def read_bounds(self, clip: ir.Node) -> tuple[float, float] | None:
        """The ends of a Relu or Clip; None where they are computed at run time."""
        if clip.op_type == "LeakyRelu":
            return -float("inf"), float("inf")
        if clip.op_type == "Relu":
            return 0.0, float("inf")
        ends = []
        for index, name, missing in ((1, "min", -float("inf")), (2, "max", float("inf"))):
            if name in clip.attributes:
                ends.append(attribute_of(clip, name, missing))
            elif self.get_input(clip, index) is None:
                ends.append(missing)
            else:
                array = self.get_constant(clip, index)
                if array is None:
                    return None
                ends.append(float(array.reshape(())))
        return ends[0], ends[1]

    def check_scales(self, node: ir.Node) -> None:
        """Raise FcdeployError where constant scales are no numbers above 0. Of weights any finite one is a factor."""
        scale = self.get_constant(node, 1)
        if scale is None or scale.dtype.kind != "f":
            return
        real = scale.astype(np.float64).reshape(-1)
        weight = node.op_type == "DequantizeLinear" and self.get_constant(node, 0) is not None
        wrong = real[~(np.isfinite(real) & (weight | (real > 0)))]
        if wrong.size:
            raise self.refuse(
                node, f"its scale is {wrong[0]:g}, expected a finite number{'' if weight else ' above 0'}", AGAIN
            )

    def refuse_coding(self, node: ir.Node) -> FcdeployError:
        """Of a QuantizeLinear or DequantizeLinear of what is computed, that there is no kernel for it."""
        scale, zero = self.get_constant(node, 1), self.get_constant(node, 2)
        if scale is None or (self.get_input(node, 2) is not None and zero is None):
            return self.refuse(node, "its scale or zero point is computed at run time", STATIC)
        named = attribute_of(node, "output_dtype", 0)
        kind = zero.dtype.name if zero is not None else ir.DataType(named).name.lower() if named else "uint8"
        if kind not in ("uint8", "int8"):
            return self.refuse(node, f"it makes {kind} of activations, expected uint8 or int8", BYTES)
        return self.refuse(
            node, f"it has {scale.size} scales of activations that are not those of channels with one zero point"
        )

    def refuse(self, node: ir.Node, why: str, hint: str = KERNELS_HINT) -> FcdeployError:
        op = node.meta.get(WRITTEN_AS, node.op_type)
        return FcdeployError(f"node {node.name!r} is a {op} that cannot be compiled: {why}", hint)


def is_clip(node: ir.Node) -> bool:
    """A Relu, a Clip, or a LeakyRelu that leaves every number as it is."""
    return node.op_type in CLIPS or (node.op_type == "LeakyRelu" and attribute_of(node, "alpha", 0.01) == 1.0)


def name_output(node: ir.Node, index: int = 0) -> str:
    """The name of a node's output."""
    return node.outputs[index].name or f"{node.name}.{index}"


def read_shape(operand: Operand) -> tuple[int, ...]:
    if isinstance(operand, Coded):
        return operand.tensor.shape
    return tuple(operand.array.shape) if isinstance(operand, Fixed) else operand.shape


def sort_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in order."""
    return tuple(sorted(axis % rank for axis in axes))
