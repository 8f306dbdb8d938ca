"""Which nodes lose time as integers: the split of the graph into float and integer nodes that costs least.

A node costs its time in float or as integers; a tensor between a float node and an integer one costs its conversion
and, for images, the change of layout.  The least sum is a minimum cut (arithmetic/mincut.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import pairwise

import onnx_ir as ir

from fcdeploy.arithmetic.mincut import find_cheapest_split
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.planning.decide import FLOAT_OUTPUT
from fcdeploy.int8.planning.elementwise import find_gelus
from fcdeploy.int8.planning.weights import find_int8_products
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.costs import Costs, Rates
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import TARGETS

INTEGER = ("int8", "passthrough", "fused", "reinterpreted")
NEVER_US = 1e9  # for what is not to be: a sum with it can still be compared, where that is fixed


def find_slow_nodes(
    graph: ir.Graph, plan: Plan, calibration: Calibration, costs: Costs, *, conversions: float = 1.0
) -> list[str]:
    """The nodes that the plan makes integer and the cheapest split leaves in float.

    `conversions` scales what converting costs: larger values give fewer, larger regions.
    """
    kinds = plan.kinds
    sides, _ = _split(graph, plan, calibration, costs, conversions, {}, {})
    return [name for name, integer in sides.items() if not integer and kinds[name] in ("int8", "reinterpreted")]


def find_costly_nodes(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    costs: Costs,
    slow: Collection[str],
    prices: Mapping[str, float],
) -> list[str]:
    """The nodes outside int8 in the cheapest split in which those of `slow` are, and tensors in bytes cost their prices more.

    Prices are in microseconds, by the name of the tensor.
    """
    kinds = plan.kinds
    sides, _ = _split(graph, plan, calibration, costs, 1.0, _fix_in_float(plan, slow), prices)
    return [name for name, integer in sides.items() if not integer and kinds[name] in INTEGER]


def cost_of(graph: ir.Graph, plan: Plan, calibration: Calibration, costs: Costs, slow: Collection[str]) -> float:
    """Microseconds, conversions included, when the nodes of `slow` are float, and no other layers or products."""
    products = {name_of(node): node.name not in slow for node in find_int8_products(graph, plan)}
    return _split(graph, plan, calibration, costs, 1.0, {**_fix_in_float(plan, slow), **products}, {})[1]


def _fix_in_float(plan: Plan, slow: Collection[str]) -> dict[str, bool]:
    """Those that have a kernel of their own: a clip that is part of one goes with it."""
    return {decision.node: False for decision in plan.nodes if decision.node in slow and decision.kind == "int8"}


def _split(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    costs: Costs,
    conversions: float,
    fixed: Mapping[str, bool],
    prices: Mapping[str, float],
) -> tuple[dict[str, bool], float]:
    """Node -> whether it is integer in the cheapest split in which those of `fixed` are as they are there; its cost.

    A tensor that is rounded to bytes costs its price as well.  Of a target that promises the same integers everywhere, what a
    node computes that was left in float is never rounded: its last bits differ between CPUs.
    """
    kinds, one_answer = plan.kinds, TARGETS[plan.target].one_answer
    never = NEVER_US + 2 * sum(map(sum, costs.nodes.values()))  # costs may count multiplications
    nodes = list(graph)
    number = {node: i for i, node in enumerate(nodes)}
    left, right = [], []
    for node in nodes:
        name = name_of(node)
        in_float, as_integers = costs.nodes.get(name, (0.0, 0.0))
        left.append(as_integers if kinds[name] in INTEGER and fixed.get(name, True) else math.inf)
        right.append(math.inf if fixed.get(name, False) else in_float)
    arcs: list[tuple[int, int, float]] = []
    outside = len(left)  # graph inputs and outputs are float
    left.append(math.inf)
    right.append(0.0)
    for value in (*graph.inputs, *(v for node in nodes for v in node.outputs)):
        readers = [number[user] for user in value.consumers() if user in number]
        if value.is_graph_output():
            readers.append(outside)
        producer = value.producer()
        maker = outside if producer is None else number[producer]
        to_bytes, to_float = _conversions(value, calibration, costs.rates, conversions)
        writes_float = producer is not None and producer.op_type in FLOAT_OUTPUT
        if writes_float:
            to_float = 0.0  # its integer kernel can do that
        if one_answer and producer is not None and kinds[name_of(producer)] in INTEGER:
            to_bytes = never
        if value.consumers() and kinds.get(name_of(value.consumers()[0])) == "fused":
            to_bytes = to_float = math.inf  # the clip is part of the kernel: both or neither
        quantized = _convert_once(arcs, left, right, maker, readers, to_bytes, to_float)
        if (price := prices.get(name_of(value), 0.0)) > 0:
            writer = [] if writes_float or maker == outside else [maker]
            _price_rounding(arcs, left, right, [*quantized, *writer], price)
    for _, pieces in find_gelus(graph):  # in float one kernel computes all of them, or none has one that fits
        for one, next_one in pairwise(pieces):
            arcs += [(number[one], number[next_one], math.inf), (number[next_one], number[one], math.inf)]
    sides, cost = find_cheapest_split(left, right, arcs)
    return {name_of(node): integer for node, integer in zip(nodes, sides, strict=False)}, cost


def _convert_once(
    arcs: list[tuple[int, int, float]],
    left: list[float],
    right: list[float],
    maker: int,
    readers: list[int],
    to_bytes: float,
    to_float: float,
) -> list[int]:
    """Arcs for one tensor: however many read it on the other side, it is converted once.

    Returns what is integer where a reader is, unless nothing reads it.
    """
    if not readers:
        return []
    quantized, read_back = len(left), len(left) + 1
    left += [0.0, 0.0]
    right += [0.0, 0.0]
    arcs += [(quantized, maker, to_bytes), (maker, read_back, to_float)]
    for reader in readers:
        arcs += [(reader, quantized, math.inf), (read_back, reader, math.inf)]
    return [quantized]


def _price_rounding(
    arcs: list[tuple[int, int, float]], left: list[float], right: list[float], roundings: list[int], price: float
) -> None:
    """A node that is integer, for a price, where one of those is that round a tensor."""
    rounded = len(left)
    left.append(price)
    right.append(0.0)
    arcs += [(each, rounded, math.inf) for each in roundings]


def _conversions(value: ir.Value, calibration: Calibration, rates: Rates, factor: float) -> tuple[float, float]:
    """Microseconds from float to bytes and back for one sample of a tensor."""
    record = calibration.tensors.get(name_of(value))
    if record is None:
        return 0.0, 0.0
    elements = math.prod(n for n in record.shape[1:] if n is not None)
    layout = rates.transpose if len(record.shape) == 4 else 0.0
    to_bytes = rates.node_us + elements * (rates.quantize + layout) / 1e3
    to_float = rates.node_us + elements * (rates.dequantize + layout) / 1e3
    return factor * to_bytes, factor * to_float


def list_slow(plan: Plan) -> tuple[str, ...]:
    """Nodes that a plan leaves in float because of time; what else a choice names decides nothing."""
    return tuple(sorted(decision.node for decision in plan.nodes if decision.cause == "time"))


def sum_layer_costs(costs: Costs, plan: Plan, slow: Mapping[str, str]) -> float:
    """Microseconds of the layers that the plan makes integer, those of `slow` taken in float; conversions not counted."""
    names = [decision.node for decision in plan.nodes if decision.kind == "int8"]
    return sum(costs.nodes.get(name, (0.0, 0.0))[0 if name in slow else 1] for name in names)
