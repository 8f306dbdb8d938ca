"""Running an int8 model layer by layer on a few samples, each stretch from the integers that were computed last."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.graph.model import input_specs
from fcdeploy.graph.runtime import Session

Arrays = dict[str, NDArray[Any]]
CHUNK = 32  # samples in one run


class Walk:
    """A walk through a Q/DQ graph in its order; every integer tensor that was passed is remembered.

    Constants of the graph may be changed ahead of the walk, never behind it.
    """

    def __init__(self, model: ir.Model, samples: Arrays) -> None:
        self.model = model
        self.known: Arrays = dict(samples)
        fixed = input_specs(model)[0].shape[:1]
        self.chunk = fixed[0] if fixed and fixed[0] else CHUNK

    def read(self, target: ir.Value) -> NDArray[np.float32]:
        """The values of a float tensor over all samples, computed in float from the integers before it."""
        nodes, sources = self._stretch(target)
        passed = [v for node in nodes for v in node.outputs if node.op_type == "QuantizeLinear" and v is not target]
        outputs = [target, *passed]
        part = ir.convenience.extract(self.model.graph, [v.name or "" for v in sources], [v.name or "" for v in outputs])
        session = Session(ir.Model(part, ir_version=self.model.ir_version))
        names = [v.name or "" for v in sources]
        results = run_chunks(session, {name: self.known[name] for name in names}, self.chunk)
        self.known.update({v.name or "": array for v, array in zip(passed, results[1:], strict=True)})
        return np.asarray(results[0])

    def forget(self, needed: set[str]) -> None:
        """Drop the remembered tensors that are not in `needed`."""
        self.known = {name: array for name, array in self.known.items() if name in needed}

    def _stretch(self, target: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes between what is known and `target`, in the graph's order, and the known tensors they start from."""
        nodes: set[ir.Node] = set()
        sources: dict[str, ir.Value] = {}
        open_ends = [target]
        while open_ends:
            value = open_ends.pop()
            producer = value.producer()
            if value.name in self.known:
                sources[value.name or ""] = value
            elif producer is not None and producer not in nodes:
                nodes.add(producer)
                open_ends.extend(v for v in producer.inputs if v is not None)
        return [node for node in self.model.graph if node in nodes], list(sources.values())


def run_chunks(session: Session, feeds: Arrays, chunk: int) -> list[NDArray[Any]]:
    """All outputs over all samples, `chunk` samples a run; a remainder that a fixed batch cannot take is left out."""
    count = len(next(iter(feeds.values())))
    parts = [
        session.run({name: array[at : at + chunk] for name, array in feeds.items()}) for at in range(0, count, chunk)
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
