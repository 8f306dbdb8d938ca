"""RNN: the products with the inputs are one layer over all times, and each time is a product, a sum and a function."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import texts_of
from fcdeploy.native.reading.spelling import Spelling

MOST_TIMES = 256  # steps of a program that one node may become, times three
ACTIVATIONS = ("Tanh", "Relu", "Sigmoid")


def rnn(s: Spelling) -> tuple[ir.Value, ...]:
    """All states (times, directions, batch, units), and the last one of each direction."""
    times = s.shape[0]
    names = _read_activations(s)
    weights, again = s.constant(1, "weights"), s.constant(2, "weights")
    directions, units = again.shape[:2]
    has = [len(s.node.inputs) > at and s.node.inputs[at] is not None for at in range(6)]
    bias = s.constant(3, "weights") if has[3] else np.zeros((directions, 2 * units), np.float32)
    if has[4] and not (s.constant(4, "lengths of sequences") == times).all():
        raise s.refuse(f"its sequences have other lengths than {times}")

    parts, ends = [], []
    for number in range(directions):
        both = bias[number, :units] + bias[number, units:]
        gates = s("Add", s("MatMul", s.x, s.hold(weights[number].T)), s.hold(both))
        state = s("Gather", s.node.inputs[5], s.hold(number, np.int64), axis=0) if has[5] else None
        states = []
        for at in range(times)[:: -1 if number or s.get("direction", "forward") == "reverse" else 1]:
            gate = s("Gather", gates, s.hold(at, np.int64), axis=0)
            if state is not None:
                gate = s("Add", gate, s("MatMul", state, s.hold(again[number].T)))
            state = s(names[number], gate)
            states.append((at, state))
        axis = s.hold([0], np.int64)
        rows = [s("Unsqueeze", each, axis) for _, each in sorted(states, key=lambda pair: pair[0])]
        parts.append(s("Unsqueeze", s("Concat", *rows, axis=0), s.hold([1], np.int64)))
        ends.append(s("Unsqueeze", states[-1][1], axis))
    return s("Concat", *parts, axis=1), s("Concat", *ends, axis=0)


def _read_activations(s: Spelling) -> list[str]:
    """One for each direction. Refuses what is not the plain form."""
    count = 2 if s.get("direction", "forward") == "bidirectional" else 1
    names = list(texts_of(s.node, "activations")) or ["Tanh"] * count
    if any(name not in ACTIVATIONS for name in names) or "clip" in s.node.attributes:
        raise s.refuse(f"its activations are {', '.join(names)}, expected {', '.join(ACTIVATIONS)}, or it clips")
    if s.get("layout", 0):
        raise s.refuse("its layout has the samples first")
    if s.shape[0] > MOST_TIMES:
        raise s.refuse(f"it has {s.shape[0]} times, expected {MOST_TIMES} at most")
    return names
