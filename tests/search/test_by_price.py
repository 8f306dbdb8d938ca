"""Nodes that leave int8 by the price of errors: each rounding alone, the cheapest split of all, a GELU as a whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net, in_memory, random_data

from fcdeploy.graph.model import name_everything
from fcdeploy.graph.nodes import name_of, tensors_of
from fcdeploy.graph.protobuf import proto_of
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.elementwise import find_gelus
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.partition import find_costly_nodes, find_slow_nodes
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.costs import Costs, Rates
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.kernels import optimize_graph, trace_origins
from fcdeploy.runtime.session import Session
from fcdeploy.search.builder import begin_building
from fcdeploy.search.by_price import leave_by_price, measure_alone
from fcdeploy.search.hold_floor import choose_worthwhile, expect_changes
from fcdeploy.search.ladder import Forms, PathStep, Score
from fcdeploy.sensitivity.alone import round_alone

DATA = random_data(0, 16, x=(8, 6, 6))


def problem_of(net: Net) -> Problem:
    model = ir.from_proto(net.model())
    prepare(model)
    name_everything(model.graph)
    calibration = observe(model, in_memory(DATA, model), model_hash="test")
    return Problem(Path("none"), model, calibration, DATA, find_target("host"), "mse", ())


def chain() -> Problem:
    net = Net(1)
    x = net.input("x", 8, 6, 6)
    for name in "abcd":
        x = net.conv(x, 8, 8, name=name)
    return problem_of(net.output(x))


def gelu(net: Net, x: str, *, front: str = "Div") -> str:
    """As exporters write it, or with `front` Pow by a tanh."""
    if front == "Pow":
        cube = net.op("Mul", net.op("Pow", x, net.constant(3.0)), net.constant(0.044715))
        share = net.op("Tanh", net.op("Mul", net.op("Add", x, cube), net.constant((2 / np.pi) ** 0.5)))
        return net.op("Mul", net.op("Mul", x, net.constant(0.5)), net.op("Add", share, net.constant(1.0)))
    number = 2**0.5 if front == "Div" else 0.5**0.5
    share = net.op("Erf", net.op(front, x, net.constant(number)))
    return net.op("Mul", net.op("Mul", x, net.op("Add", share, net.constant(1.0))), net.constant(0.5))


def gelus(front: str = "Div") -> Problem:
    """Two convolutions of many channels with a GELU between them, and one behind them."""
    net = Net(2)
    x = net.conv(net.input("x", 8, 6, 6), 8, 16, name="before")
    return problem_of(net.output(gelu(net, net.conv(gelu(net, x, front=front), 16, 16, name="behind"))))


@pytest.mark.parametrize("tensor", ["x", "b_out", "d_out"])
def test_one_tensor_alone_is_rounded(tensor: str) -> None:
    """Against the float model run up to the tensor and from its rounded numbers on; and then the model is as it was."""
    problem = chain()
    q = problem.plan().tensors[tensor]
    before, readers = proto_of(problem.model), [list(value.uses()) for value in tensors_of(problem.model.graph)]
    with round_alone(problem.model, tensor, q) as made:
        assert made is not None
        (answer,) = Session(made).run(DATA)
    with round_alone(problem.model, "nothing", q) as made:
        assert made is None
    with pytest.raises(ValueError, match="stop"), round_alone(problem.model, tensor, q):
        raise ValueError("stop")
    assert proto_of(problem.model) == before
    assert [list(value.uses()) for value in tensors_of(problem.model.graph)] == readers

    def run(first: str, value: np.ndarray, last: str) -> np.ndarray:
        """The model from one tensor to another."""
        net, known = Net(), {"x": "x", **{f"{name}_out": f"{name}_out" for name in "abcd"}}
        net.input(first, *value.shape[1:])
        nodes = {node.name: node for node in problem.model.graph}
        begun = first == "x"
        for name in "abcd":
            if begun:
                weights = [net.constant(value.const_value.numpy()) for value in nodes[name].inputs[1:]]  # type: ignore[union-attr]
                source = first if nodes[name].inputs[0].name == first else known[nodes[name].inputs[0].name]  # type: ignore[union-attr,index]
                net.op("Conv", source, *weights, name=name, pads=[1, 1, 1, 1])
            begun = begun or first == f"{name}_out"
        if first == last:
            return value
        return np.asarray(Session(ir.from_proto(net.output(last).model())).run({first: value})[0])

    exact = run("x", DATA["x"], tensor)
    bytes_of = np.clip(np.rint(exact / np.float32(q.scale[0])) + q.zero_point, 0, 255)
    rounded = ((bytes_of - q.zero_point) * np.float32(q.scale[0])).astype(np.float32)
    # what others read of a tensor that is the output as well is rounded, the output itself is not
    expected = exact if tensor == "d_out" else run(tensor, rounded, "d_out")
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_the_split_is_the_cheapest_with_prices() -> None:
    """Against every set of float nodes: times, conversions, and the price of each tensor that is in bytes, by hand."""
    problem = chain()
    plan, random = problem.plan(), np.random.default_rng(5)
    for _ in range(40):
        nodes = {name: (float(a), float(b)) for name, (a, b) in zip("abcd", random.integers(1, 9, (4, 2)), strict=True)}
        step = float(random.integers(0, 3))
        costs = Costs("m", "test", Rates(0.0, 0.0, 0.0, node_us=step), nodes)
        prices = {
            name: float(p)
            for name, p in zip(("x", "a_out", "b_out", "c_out", "d_out"), random.integers(0, 9, 5), strict=True)
        }

        def cost(floats: frozenset[str], nodes: dict[str, tuple[float, float]] = nodes, step: float = step,
                 prices: dict[str, float] = prices) -> float:  # fmt: skip
            sides = [True, *(name in floats for name in "abcd"), True]  # the input and the output are float
            pairs = list(itertools.pairwise(sides))
            rounded = sum(price for price, pair in zip(prices.values(), pairs, strict=True) if not all(pair))
            return (
                sum(nodes[name][0 if name in floats else 1] for name in "abcd")
                + step * sum(a != b for a, b in pairs)
                + rounded
            )

        found = frozenset(find_costly_nodes(problem.model.graph, plan, problem.calibration, costs, (), prices))
        every = [frozenset(s) for n in range(5) for s in itertools.combinations("abcd", n)]
        assert cost(found) == pytest.approx(min(map(cost, every)))
        kept = frozenset(find_costly_nodes(problem.model.graph, plan, problem.calibration, costs, ("b",), prices))
        assert cost(kept) == pytest.approx(min(cost(each) for each in every if "b" in each))


@pytest.mark.parametrize(("tensor", "around"), [("x", {"a"}), ("b_out", {"b", "c"}), ("c_out", {"c", "d"})])
def test_the_cheapest_price_that_holds_is_found(tensor: str, around: set[str]) -> None:
    """Of a floor that asks for one tensor unrounded, which makes nearly all of the error, its neighbours leave and no others."""
    builder = begin_building(chain(), None)

    def noise(model: ir.Model) -> float:
        rounded = [node.inputs[0].name for node in model.graph if node.op_type == "QuantizeLinear"]  # type: ignore[union-attr]
        return 1.0 if rounded == [tensor] else 1e-4

    def measure(forms: Forms) -> Score:
        return Score(0.0 if around <= set(forms) else 1.0, 1.0, builder.cost(forms))

    assert set(measure_alone(builder, noise, lambda *_: None)) >= {"x", "a_out", "b_out", "c_out"}
    steps = leave_by_price(builder, measure, noise, lambda *_: None)
    held = min((step for step in steps if step.score.drop == 0), key=lambda step: step.score.cost)
    assert set(held.forms) == around
    assert [name for name, _ in held.moved] == [f"tensor {tensor!r}"]


def test_roundings_that_cost_nothing_have_no_price() -> None:
    builder = begin_building(chain(), None)
    assert leave_by_price(builder, lambda _: Score(1.0, 1.0, 1.0), lambda _: 0.0, lambda *_: None) == []


def test_changes_to_expect_are_those_of_many_samples() -> None:
    """Scores of Gauss's distribution and a threshold: by few samples of each of eight models, against 400,000 of one."""
    random, few = np.random.default_rng(0), 200
    sizes = 0.01 * np.arange(1, 9)

    def count(size: float, scores: np.ndarray) -> float:
        return float(np.mean((scores > 1) != (scores + size * random.normal(size=scores.shape) > 1)))

    own, pooled, truth = [], [], []
    for _ in range(40):
        scores = random.normal(size=few)
        moves = [(size**2, count(size, scores)) for size in sizes]
        own.append([changed for _, changed in moves])
        pooled.append([expect_changes(moves, noise) for noise, _ in moves])
    truth = [count(size, random.normal(size=400_000)) for size in sizes]
    off, alone = (np.sqrt(np.mean((np.array(each) - truth) ** 2, axis=0)) for each in (pooled, own))
    np.testing.assert_allclose(np.mean(pooled, axis=0), truth, rtol=0.15)
    assert (off[2:] < 0.8 * alone[2:]).all()
    assert expect_changes([], 1.0) == 0.0


def test_a_mixture_that_saves_little_gives_way_to_float() -> None:
    def step(nodes: str, cost: float, drop: float = 0.0) -> PathStep:
        return PathStep((), dict.fromkeys(nodes, "float"), Score(drop, 0.0, cost))

    whole, missed = step("abc", 100.0), step("abc", 100.0, 1.0)
    for tried, taken in (
        ([whole, step("ab", 96.0)], whole),
        ([whole, step("ab", 94.0)], step("ab", 94.0)),
        ([missed, step("ab", 96.0)], step("ab", 96.0)),
        ([whole, step("ab", 96.0), step("a", 50.0, 2.0)], whole),
        ([whole, step("ab", 96.0), step("a", 50.0)], step("a", 50.0)),
    ):
        assert choose_worthwhile(tried, ["a", "b", "c"]) == taken


@pytest.mark.parametrize(("front", "inner"), [("Div", "Erf"), ("Mul", "Erf"), ("Pow", "Tanh")])
def test_a_gelu_is_found_and_leaves_as_a_whole(front: str, inner: str) -> None:
    problem = gelus(front)
    found = find_gelus(problem.model.graph)
    assert [
        [node.op_type for node in nodes].count(op) for op, (_, nodes) in zip((inner, "Erf"), found, strict=True)
    ] == [1, 1]
    assert [value.name for value, _ in found] == ["before_out", "behind_out"]
    first = {name_of(node) for node in found[0][1]}
    nodes = {name_of(node): (5.0, 5.0) for node in problem.model.graph}
    erf = next(name_of(node) for node in found[0][1] if node.op_type == inner)
    costs = Costs("m", "test", Rates(0.0, 0.0, 0.0, 0.0), {**nodes, erf: (1.0, 30.0)})
    slow = set(find_slow_nodes(problem.model.graph, problem.plan(), problem.calibration, costs))
    kinds = problem.plan().kinds
    assert {name for name in first if kinds[name] in ("int8", "reinterpreted")} <= slow
    assert "behind" not in slow


@pytest.mark.parametrize(("front", "kernel"), [("Div", "Gelu"), ("Pow", "FastGelu")])
def test_a_float_gelu_that_reads_bytes_is_one_kernel(front: str, kernel: str) -> None:
    problem = gelus(front)
    (value, nodes), _ = find_gelus(problem.model.graph)
    names = [name_of(node) for node in nodes]
    int8 = problem.build(problem.plan(Overrides(dict.fromkeys(names, "for the test"))))
    assert value.name == "before_out"
    assert [node.op_type for node in optimize_graph(int8)].count(kernel) == 1
    exact, answer = (Session(model).run(DATA)[0] for model in (problem.model, int8))
    assert np.mean((answer - exact) ** 2) < 1e-3 * np.mean(exact**2)


def test_a_gelu_between_blocked_convolutions_is_found_again() -> None:
    """Where its name and its tensors are the runtime's own: its time is that of the Erf."""
    model = gelus().model
    optimized = optimize_graph(model)
    origins = trace_origins(model.graph, optimized)
    kernels = [node for node in optimized if node.op_type == "Gelu"]
    erfs = [node for node in model.graph if node.op_type == "Erf"]
    found = [origins[node] for node in kernels]
    assert len(kernels) == 2
    assert erfs[0] in found
    assert None not in found
