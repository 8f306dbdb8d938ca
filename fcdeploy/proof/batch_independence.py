"""Proof that the samples of a batch are computed independently, so that requests may share a run.

A walk over the graph with one question per node: when an axis of its inputs counts samples, the leading one unless said
otherwise, does each sample of its output depend on that sample of the inputs alone, and along which axis?
Conservative: an operator that no rule knows, or whose axes are computed at run time, ends the proof with a reason.  Never
proven are operators that quantize activations as they run
(DynamicQuantize*, MatMulNBits, MatMulInteger): their scale is the whole batch's.  What a rule leaves open, such as a
Reshape that would cut samples in pieces, fails at a batch of one already.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

from fcdeploy.graph.light_reader import Node, Outline
from fcdeploy.proof.batch_rules import (
    RECURRENT,
    BatchedTensor,
    State,
    UnprovenError,
    derive_constant,
    derive_samples,
    derive_states,
    to_constant,
)

DOMAINS = {"", "ai.onnx", "com.microsoft"}
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}

Known = dict[str, State]


def explain_dependence(outline: Outline, axes: Mapping[str, int | None] | None = None, *, leading: bool = True) -> str:
    """Why samples of a batch may depend on each other, in a sentence; '' where it is proven that they do not.

    `axes` says which axis of an input counts samples, the leading one unless it is there; None is none.  Outputs are to have
    them along the `leading` axis, or anywhere.
    """
    try:
        known = _read_ends(outline, axes or {})
        for node in _sort(outline.nodes, known):
            _add_node(node, known, outline.opset)
        for name in outline.outputs if leading else ():
            state = known.get(name)
            if not isinstance(state, BatchedTensor) or state.axis:
                return f"output {name!r} does not begin with the batch axis"
    except UnprovenError as reason:
        return str(reason)
    return ""


def _sort(nodes: Sequence[Node], known: Known) -> Iterator[Node]:
    """Each behind those that write what it reads: ONNX asks for it, onnxruntime does not, and some tools do not care.

    In the order of the file where that is one; nodes that read what nobody writes come last.
    """
    readers: dict[str, list[int]] = {}
    missing = [{name for name in node.inputs if name and name not in known} for node in nodes]
    for at, names in enumerate(missing):
        for name in names:
            readers.setdefault(name, []).append(at)
    ready = [at for at, names in enumerate(missing) if not names]
    while ready:
        node = nodes[heapq.heappop(ready)]
        yield node
        for name in node.outputs:
            for at in readers.pop(name, ()):
                missing[at].discard(name)
                if not missing[at]:
                    heapq.heappush(ready, at)
    yield from (node for node, names in zip(nodes, missing, strict=True) if names)


def _read_ends(outline: Outline, axes: Mapping[str, int | None]) -> Known:
    known: Known = {name: to_constant(constant) for name, constant in outline.constants.items()}
    counted = set()
    for name, dims in outline.inputs.items():
        axis = axes.get(name, 0)
        if not dims or axis is None:
            raise UnprovenError(f"input {name!r} has no axes" if not dims else f"input {name!r} is one for a run")
        length = dims[axis]
        if isinstance(length, int) and length > 0:
            place = f"an axis {axis}" if axis else "a leading axis"
            raise UnprovenError(f"input {name!r} has {place} of {length}, not a free one")
        counted.add(length)
        known[name] = BatchedTensor(len(dims), axis)
    if len(counted) > 1:
        raise UnprovenError(f"the inputs begin with different axes: {', '.join(sorted(map(str, counted)))}")
    return known


def _add_node(node: Node, known: Known, opset: int) -> None:
    """Add the states of a node's outputs."""
    where = f"{node.op} {node.name!r}" if node.name else node.op
    states = [known.get(name) if name else None for name in node.inputs]
    if any(state is None and name for state, name in zip(states, node.inputs, strict=True)):
        raise UnprovenError(f"{where} reads what no node wrote before")
    if node.domain not in DOMAINS:
        raise UnprovenError(f"{where} is of the domain {node.domain!r}")
    if node.subgraphs:
        raise UnprovenError(f"{where} holds a graph of its own")
    if node.op in RANDOM:
        raise UnprovenError(f"{where} draws random numbers")
    if not any(isinstance(state, BatchedTensor) for state in states):
        written: Sequence[State] = [derive_constant(node, states)] * len(node.outputs)
    elif node.op in RECURRENT:
        written = derive_states(node, states, where)
    else:
        written = [derive_samples(node, states, where, opset)] * len(node.outputs)
    known.update((name, state) for name, state in zip(node.outputs, written, strict=False) if name)
