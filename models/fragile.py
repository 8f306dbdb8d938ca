"""A trained network with one fragile place, drawn by a seed: it computes what it did, and 8 bits ruin it there.

`outlier`   The tensor between two layers gets two more channels, copies of two it has, 512 times as large, that nothing
            reads (their weights are zero), as what pruning may leave.  One scale for the whole tensor leaves the other
            channels nothing.
`cancel`    Every channel of the tensor is there twice, and the layer that reads them adds 512 times some numbers u to
            the weights of the first and takes them off those of the second.  In float the two cancel, the better as
            they are neighbours; of the weights themselves 8 bits leave nothing.

Rescaling channels (prepare/passes/equalize.py) undoes neither: of a channel that nothing reads nobody knows how large it should
be, and what all channels have in common is no disproportion.  Factors are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.model import read_model, write_model

KINDS = ("outlier", "cancel")
LARGE = {"outlier": 512.0, "cancel": 512.0}
THROUGH = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Dropout", "Identity")


@dataclass(frozen=True)
class Place:
    """Where a network is fragile: in the tensor between two layers, or in the weights of the second."""

    kind: str
    writer: str
    reader: str

    @property
    def layers(self) -> set[str]:
        """What must leave int8."""
        return {self.writer, self.reader} if self.kind == "outlier" else {self.reader}


def fragile(model: Path, output: Path, seed: int) -> Place:
    """Write the network with a fragile place. Raises ValueError where it has no place for one."""
    network = read_model(model)
    places = [(kind, *edge) for edge in edges(network) for kind in KINDS]
    if not places:
        raise ValueError(f"{model.name} has no two layers with nothing but Relus and pooling between them")
    random = np.random.default_rng(seed)
    kind, writer, reader = places[random.integers(len(places))]
    _widen(network, kind, writer, reader, random)
    write_model(network, output, force=True)
    return Place(kind, writer.name or "", reader.name or "")


def edges(network: ir.Model) -> list[tuple[ir.Node, ir.Node]]:
    """Layers and what alone reads them, where channels may be added in between."""
    found = []
    for node in network.graph:
        reader = _only_reader(node) if _is_layer(node) else None
        while reader is not None and reader.op_type in THROUGH:
            reader = _only_reader(reader)
        if reader is not None and _is_layer(reader):
            found.append((node, reader))
    return found


def _widen(network: ir.Model, kind: str, writer: ir.Node, reader: ir.Node, random: np.random.Generator) -> None:
    """Copies of channels behind those there are, and what the reader makes of them."""
    rows, bias, columns = _array(writer, 1), _array(writer, 2), _array(reader, 1)
    rows = rows if _outputs_first(writer) else rows.T
    columns = columns if _outputs_first(reader) else columns.T
    count, rest = len(rows), columns.shape[2:]
    columns = columns.reshape(len(columns), count, -1, *rest)  # (out, channels, positions of a channel, ...)
    if kind == "outlier":
        strength = np.abs(rows).reshape(count, -1).sum(axis=1)
        copied = random.choice(
            np.argsort(-strength)[: max(count // 2, 2)], 2, replace=False
        )  # an idle one is not large
        factor, more = np.float32(LARGE[kind]), np.zeros_like(columns[:, copied])
    else:
        copied, factor = np.arange(count), np.float32(1)
        u = np.exp2(np.rint(np.log2(np.abs(columns).max()))) * random.choice([-1, 1], columns.shape)
        more = (-LARGE[kind] * u).astype(np.float32)
        columns = columns - more
    order = np.argsort(np.concatenate([np.arange(count), copied]), kind="stable")  # a copy behind its original
    columns = np.concatenate([columns, more], axis=1)[:, order].reshape(len(columns), -1, *rest)
    rows = np.concatenate([rows, factor * rows[copied]])[order]
    _replace(network, writer, 1, rows if _outputs_first(writer) else rows.T)
    _replace(network, writer, 2, np.concatenate([bias, factor * bias[copied]])[order])
    _replace(network, reader, 1, columns if _outputs_first(reader) else columns.T)
    for value in (value for node in network.graph for value in node.outputs if not value.is_graph_output()):
        value.shape = None  # that of another number of channels


def _is_layer(node: ir.Node) -> bool:
    """A convolution or dense layer whose channels are all its own, with constant weights and bias."""
    if node.op_type not in ("Conv", "Gemm") or len(node.inputs) < 3:
        return False
    group = node.attributes.get("group")
    whole = group is None or group.as_int() == 1
    return whole and all(v is not None and v.const_value is not None and len(v.uses()) == 1 for v in node.inputs[1:])


def _only_reader(node: ir.Node) -> ir.Node | None:
    value = node.outputs[0]
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _outputs_first(node: ir.Node) -> bool:
    """Whether the weight is (out, in, ...)."""
    turned = node.attributes.get("transB")
    return node.op_type == "Conv" or (turned is not None and turned.as_int() == 1)


def _array(node: ir.Node, index: int) -> np.ndarray:
    return node.inputs[index].const_value.numpy()  # type: ignore[union-attr]


def _replace(network: ir.Model, node: ir.Node, index: int, array: np.ndarray) -> None:
    old = node.inputs[index]
    assert old is not None
    tensor = ir.tensor(np.ascontiguousarray(array, np.float32), name=old.name)
    old.const_value, old.shape = tensor, ir.Shape(tensor.shape.numpy())
    assert old.name in network.graph.initializers
