"""Which tensors exist as bytes, which of them share a scale, and what it covers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import choose_activation_qparams, choose_symmetric_qparams
from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import constant_array, data_inputs, fill_value, is_constant, name_of, operator_of
from fcdeploy.int8.planning.decide import writes_bytes
from fcdeploy.records.calibration import Calibration, Histogram
from fcdeploy.records.plan import Decision, QParams, Range

ON_FLOATS = ("float", "weight_only", "blockwise", "dynamic")  # kinds of nodes that write floats
HEAD_ROOM = 2.0  # of 16 bits one is kept for values that calibration did not see: clipping them would cost more
SHARE_WITHIN = 2.0  # tensors joined by Concat share a scale when that costs none of them more than one bit


def choose_activation_scales(
    graph: ir.Graph,
    decisions: Mapping[str, Decision],
    wants: set[ir.Value],
    calibration: Calibration,
    dtype: str,
    method: Callable[[Histogram], Range],
) -> dict[str, QParams]:
    """QParams of every tensor that is read or written as integers of `dtype`, by name, in the graph's order."""
    sources = dict(_find_rounded_tensors(graph, decisions, wants))
    covers = {
        # results that no layer reads are answers: clipping the largest would cost more than coarser steps
        value: _choose_range(value, calibration, method if value in wants else METHODS["minmax"])
        for value in sources
    }
    groups = ScaleGroups(covers)
    for node in graph:
        decision = decisions[name_of(node)]
        if decision.kind == "passthrough":
            for output in node.outputs:
                groups.join([output, *data_inputs(node)])
            groups.widen(node.outputs[0], fill_value(node))
        elif decision.kind == "int8" and node.op_type == "Concat":
            groups.join_if_close([node.outputs[0], *(v for v in node.inputs if v is not None and not is_constant(v))])
    tensors: dict[str, QParams] = {}
    for value in groups.members():
        first = groups.source(value)
        why = sources.get(value, f"shares the scale of {first.name!r}")
        cover = groups.cover(value)
        tensors[name_of(value)] = (
            choose_symmetric_qparams(Range(HEAD_ROOM * cover.low, HEAD_ROOM * cover.high), dtype, why)
            if dtype == "int16"
            else choose_activation_qparams(cover, dtype, why)
        )
    return tensors


def _find_rounded_tensors(
    graph: ir.Graph, decisions: Mapping[str, Decision], wants: set[ir.Value]
) -> Iterator[tuple[ir.Value, str]]:
    """Tensors that a QuantizeLinear (or an integer kernel's own rounding) writes, each with what it is."""
    for node in graph:
        decision = decisions[name_of(node)]
        if decision.kind in ("int8", "passthrough"):
            for value in data_inputs(node):
                producer = value.producer()
                if is_constant(value):
                    yield value, "constant"
                elif producer is None or decisions[name_of(producer)].kind in ON_FLOATS:
                    yield (
                        value,
                        "input" if value.is_graph_input() else f"float from {producer.name if producer else ''!r}",
                    )
        if decision.kind == "int8" and writes_bytes(node, wants):
            yield final_value(node, decisions), f"output of {node.name!r}"


def final_value(node: ir.Node, decisions: Mapping[str, Decision]) -> ir.Value:
    """The tensor that an integer kernel writes: behind the clip that its saturation does, if there is one."""
    value = node.outputs[0]
    while True:
        after = [
            user for user in value.consumers() if user.graph is node.graph and decisions[name_of(user)].kind == "fused"
        ]
        if not after:
            return value
        value = after[0].outputs[0]


def _choose_range(value: ir.Value, calibration: Calibration, method: Callable[[Histogram], Range]) -> Range:
    if is_constant(value):
        array = constant_array(value)
        return Range(float(min(np.min(array), 0.0)), float(max(np.max(array), 0.0)))
    producer = value.producer()
    fixed = operator_of(producer).output if producer else None
    seen = calibration.tensors[name_of(value)].histogram
    if seen.ends_only and not fixed and method is not METHODS["minmax"]:
        raise FcdeployError(
            f"tensor {value.name!r}: its range, {seen.low:.4g} to {seen.high:.4g}, was measured elsewhere and has no "
            "histogram, which every range method but minmax needs",
            "--ranges minmax, or a calibration of your own: fcdeploy calibrate MODEL --data DATA",
        )
    return fixed or method(seen)


class ScaleGroups:
    """Tensors that share a scale: a union-find whose roots know what the group covers."""

    def __init__(self, covers: Mapping[ir.Value, Range]) -> None:
        self._parent: dict[ir.Value, ir.Value] = {value: value for value in covers}
        self._cover: dict[ir.Value, Range | None] = dict(covers)
        self._narrowest: dict[ir.Value, float] = {value: r.high - r.low for value, r in covers.items()}

    def source(self, value: ir.Value) -> ir.Value:
        while self._parent.setdefault(value, value) is not value:
            value = self._parent[value]
        return value

    def members(self) -> list[ir.Value]:
        return list(self._parent)

    def cover(self, value: ir.Value) -> Range:
        cover = self._cover.get(self.source(value))
        assert cover is not None, f"{value.name} is read as bytes but nothing writes it"
        return cover

    def join(self, values: list[ir.Value]) -> None:
        """One group of all groups that `values` are in; it covers what each of them covered."""
        roots = list(dict.fromkeys(self.source(value) for value in values))
        known = [root for root in roots if self._cover.get(root) is not None]
        first = known[0] if known else roots[0]
        for root in roots:
            self._parent[root] = first
        if known:
            self._cover[first] = _join_ranges([self._cover[root] for root in known])
            self._narrowest[first] = min(self._narrowest[root] for root in known)

    def widen(self, value: ir.Value, reach: float) -> None:
        """Let the group of `value` cover `reach` as well."""
        root = self.source(value)
        if self._cover.get(root) is not None:
            self._cover[root] = _join_ranges([self._cover[root], Range(min(reach, 0.0), max(reach, 0.0))])

    def join_if_close(self, values: list[ir.Value]) -> None:
        """Join, unless a member would lose more than SHARE_WITHIN of its resolution to the widest."""
        roots = list(dict.fromkeys(self.source(value) for value in values))
        known = [root for root in roots if self._cover.get(root) is not None]
        whole = _join_ranges([self._cover[root] for root in known])
        if whole.high - whole.low <= SHARE_WITHIN * min(self._narrowest[root] for root in known):
            self.join(values)


def _join_ranges(covers: list[Range | None]) -> Range:
    some = [r for r in covers if r is not None]
    return Range(min(r.low for r in some), max(r.high for r in some))
