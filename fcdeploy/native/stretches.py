"""Does each stretch of the file, from bytes to bytes, give what the program says?

Rounding ties of many layers add up: behind the blocks of a transformer onnxruntime's own answers may lie 10 dB apart with and
without its optimizations.  So where outputs differ, the file is cut at its bytes: every DequantizeLinear reads the bytes that
the program has there, and every QuantizeLinear, one stretch further on, has to give the program's but for ties of that stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.bundles.golden import DIFFERENT, compare
from fcdeploy.graph.nodes import array_of, input_of, is_op
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.steps import Program
from fcdeploy.native.program.tensors import Tensor

Open = Callable[[ir.Model], Callable[[Arrays], Arrays]]
"""Makes of a model what runs it, without optimizations: each node as the file says."""

MOST = 0.01  # largest share of a stretch's bytes that ties move by one level; two bytes may always be
GIVEN = "/given"  # behind the name of bytes: those that the program has


@dataclass(frozen=True)
class StretchProof:
    """What became of a file that was cut: at how many tensors, of how many bytes, of which `ties` are one level off.

    `wrong` are tensors that are not the program's but for ties, and outputs that differ by more behind the last cut.
    """

    tensors: int
    elements: int
    ties: int
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.tensors > 0 and not self.wrong


@dataclass(frozen=True)
class _Place:
    """Bytes of the file that the program has, too: as `tensor` there, int8 raised by 128."""

    tensor: str
    dtype: np.dtype
    raised: int

    def find(self, values: Mapping[str, Array], like: Array) -> Array | None:
        """The program's bytes as the file has them; None where they are not as many."""
        array = values[self.tensor]
        if array.size != like.size:
            return None
        return (array.astype(np.int16) - self.raised).astype(self.dtype).reshape(like.shape)


def prove_stretches(model: ir.Model, program: Program, samples: Sequence[Arrays], open_model: Open) -> StretchProof:
    """Cut the model wherever it and the program have the same bytes, and compare both behind each cut."""
    places = _find_places(model, program)
    whole, cut = open_model(_show(model.clone(), places)), open_model(_cut(model.clone(), places))
    ends = dict(zip((value.name or "" for value in model.graph.outputs), program.outputs, strict=True))
    wrong, elements, ties = set[str](), 0, 0
    for sample in samples:
        values, seen = run(program, sample), whole(sample)
        wanted = {name: place.find(values, seen[name]) for name, place in places.items()}
        got = cut(sample | {name + GIVEN: seen[name] if array is None else array for name, array in wanted.items()})
        for name, array in wanted.items():
            if array is None:
                continue
            apart = np.abs(got[name].astype(np.int16) - array)
            moved = int(np.count_nonzero(apart))
            if apart.max(initial=0) > 1 or moved > max(2, MOST * apart.size):
                wrong.add(name)
            elements, ties = elements + apart.size, ties + moved
        wrong.update(_compare_ends({name: got[name] for name in ends}, values, ends))
    return StretchProof(len(places), elements, ties, tuple(sorted(wrong)))


def _compare_ends(got: Arrays, values: Mapping[str, Array], ends: Mapping[str, Tensor]) -> list[str]:
    """The outputs that differ by more than ties."""

    def answer(_: Mapping[str, Array]) -> Arrays:
        return {name: values[tensor.name].reshape(got[name].shape) for name, tensor in ends.items()}

    return [each.output for each in compare([({}, got)], answer) if each.kind == DIFFERENT]


def _find_places(model: ir.Model, program: Program) -> dict[str, _Place]:
    """By the name of what a QuantizeLinear writes: of the same name in the program, or that of what goes in or comes out."""
    known = {tensor.name: tensor for step in program.steps for tensor in step.outputs}
    places = {}
    for node in model.graph:
        scale, zero = array_of(input_of(node, 1)), array_of(input_of(node, 2))
        if not is_op(node, "QuantizeLinear") or scale is None or scale.size != 1:
            continue
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        raised = 128 if kind == np.int8 else 0
        coding = np.float32(scale.reshape(())), raised + (0 if zero is None else int(zero.reshape(-1)[0]))
        (written,) = node.outputs
        read = [user.outputs[0] for user in written.consumers() if is_op(user, "DequantizeLinear")]
        for value in (written, node.inputs[0], *read):
            tensor = known.get(value.name or "") if value is not None else None
            own = None if tensor is None or tensor.coding is None else (tensor.coding.scale, tensor.coding.zero_point)
            if tensor is not None and tensor.dtype == "uint8" and own == coding and kind.itemsize == 1:
                places[written.name or ""] = _Place(tensor.name, kind, raised)
                break
    return places


def _show(model: ir.Model, places: Mapping[str, _Place]) -> ir.Model:
    """With the bytes as outputs of the graph."""
    shown = {value.name for value in model.graph.outputs}
    for value in [value for node in model.graph for value in node.outputs]:
        if value.name in places and value.name not in shown:
            model.graph.outputs.append(value)
    return model


def _cut(model: ir.Model, places: Mapping[str, _Place]) -> ir.Model:
    """With the bytes as outputs, and what reads them reading inputs in their place."""
    for value in [value for node in model.graph for value in node.outputs if value.name in places]:
        kind = ir.DataType.from_numpy(places[value.name or ""].dtype)
        given = ir.Value(name=f"{value.name}{GIVEN}", type=ir.TensorType(kind), shape=value.shape)
        for use in tuple(value.uses()):
            use.node.replace_input_with(use.idx, given)
        model.graph.inputs.append(given)
    return _show(model, places)
