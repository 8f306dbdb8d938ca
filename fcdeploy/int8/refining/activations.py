"""Looking inside models on a few samples: a float one as it is, an int8 one layer by layer while it is being changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Arrays, Float32
from fcdeploy.graph.nodes import name_of
from fcdeploy.runtime import options
from fcdeploy.runtime.cpu import count_usable_cores, read_cpu_flags
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import split_into_chunks


def iterate_activations(model: ir.Model, names: Sequence[str], samples: Arrays) -> Iterator[list[Float32]]:
    """What nodes write into these float tensors, chunk by chunk."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    session = Session(copy, threads=1)
    yield from _run_side_by_side(session, [part for _, part in split_into_chunks(model, samples)])


def _run_side_by_side(session: Session, chunks: Sequence[Arrays]) -> Iterator[list[Float32]]:
    """A run for each chunk, in order, at most one ahead for each core.

    A session of several threads would divide each run, and a ReduceMean then adds in another order, so that last bits, and
    with them weights, were those of so many cores.
    """
    ahead = count_usable_cores()
    with ThreadPoolExecutor(ahead) as pool:
        running: deque[Future[list[Float32]]] = deque()
        for chunk in chunks:
            running.append(pool.submit(session.run, chunk))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


class ActivationWalk:
    """A walk through a graph in its order: integer tensors it passed are remembered, and each stretch starts there.

    Samples go through in chunks that stay apart, because inside a network the leading axis need not count samples.
    Constants of the graph may be changed ahead of the walk, never behind it.
    """

    def __init__(self, model: ir.Model, samples: Arrays) -> None:
        self.model = model
        self.known: list[Arrays] = [part for _, part in split_into_chunks(model, samples)]
        self.passing: set[str] = set()  # names of float tensors that are forgotten when what reads them was run

    def read(self, target: ir.Value) -> list[Float32]:
        """The values of a float tensor, chunk by chunk, computed in float from what is known before it."""
        if target.name in self.known[0]:
            return [known[name_of(target)] for known in self.known]
        nodes, sources = self._stretch(target)
        passed = [v for node in nodes for v in node.outputs if node.op_type == "QuantizeLinear" and v is not target]
        outputs = [target, *passed]
        names = [name_of(v) for v in sources]
        part = ir.convenience.extract(self.model.graph, names, [name_of(v) for v in outputs])
        # kernels that saturate here, but not on the target: a stretch without its roundings does not run under the option
        asked = options.select_for_cpu(options.read_options(self.model), read_cpu_flags())
        copy = ir.Model(part, ir_version=self.model.ir_version)
        session = Session(copy, threads=1, optimize=options.PRECISION not in asked)
        chunks = [{name: known[name] for name in names} for known in self.known]
        values = []
        for known, results in zip(self.known, _run_side_by_side(session, chunks), strict=True):
            # copied, because what a session returns keeps the memory of its weights
            first, *rest = map(np.array, results)
            known.update({name_of(v): array for v, array in zip(passed, rest, strict=True)})
            values.append(first)
        self._forget([v for v in sources if v.name in self.passing and all(user in nodes for user in v.consumers())])
        return values

    def provide(self, target: ir.Value, values: list[Float32], *, passing: bool = False) -> None:
        """Remember a float tensor that was computed elsewhere, chunk by chunk: stretches start there from now on.

        With `passing`, until all that reads it was run: should it be wanted again, it is computed again.
        """
        self.passing |= {name_of(target)} if passing else set()
        for known, array in zip(self.known, values, strict=True):
            known[name_of(target)] = array

    def _forget(self, values: list[ir.Value]) -> None:
        for name in [name_of(value) for value in values]:
            self.passing.discard(name)
            for known in self.known:
                del known[name]

    def _stretch(self, target: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes between what is known and `target`, in the graph's order, and the known tensors they start from."""
        nodes: set[ir.Node] = set()
        sources: dict[str, ir.Value] = {}
        open_ends = [target]
        while open_ends:
            value = open_ends.pop()
            producer = value.producer()
            if value.name in self.known[0]:
                sources[name_of(value)] = value
            elif producer is not None and producer not in nodes:
                nodes.add(producer)
                open_ends.extend(_list_reads(producer))
        return [node for node in self.model.graph if node in nodes], list(sources.values())


def _list_reads(node: ir.Node) -> list[ir.Value]:
    """What a node reads, and what the graphs inside it read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            bodies = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
            values += [v for body in bodies for inner in body.all_nodes() for v in inner.inputs if v is not None]
    return values


def read_in_float(model: ir.Model, samples: Arrays, layers: Sequence[ir.Node]) -> list[Float32]:
    """What layers read in the float model, one after the other."""
    walk = ActivationWalk(model, samples) if layers else None
    return [x for node in layers if walk and (read := node.inputs[0]) is not None for x in walk.read(read)]
