"""Leaving in float what integers would slow down: the split by costs, the choice among trials, and the stored weights."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, in_memory, random_data

import fcdeploy
from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.cli import main
from fcdeploy.files import hash_file
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.cpu_differences import find_differences
from fcdeploy.int8.planning.plan_graph import Overrides, plan_graph
from fcdeploy.int8.timing import costs as times
from fcdeploy.int8.timing import measure
from fcdeploy.int8.timing.choose_kernels import _take_surely_faster, best_trial, choose, list_contenders, vary_dynamic
from fcdeploy.int8.timing.costs import CostBasis, find_noise
from fcdeploy.int8.timing.measure import conversion_rates
from fcdeploy.int8.timing.partition import cost_of, find_slow_nodes, sum_layer_costs
from fcdeploy.int8.timing.rate_table import estimate_costs, find_functions, find_kind
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.costs import Choice, Costs, Rates, TimeTrial, from_text, hash_choice, to_text
from fcdeploy.records.plan import Plan
from fcdeploy.reporting.times import describe_times
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.tables import rates
from fcdeploy.tables.targets import TARGETS

TRIALS = (TimeTrial(Choice(("a",)), 0.5, 0.4, 0.6),), (TimeTrial(Choice((), ("a",)), 0.5, 0.4, 0.6, 29.75),)
FREE = Rates(0.0, 0.0, 0.0, 0.0)
DATA = random_data(0, 8, x=(8, 6, 6))


def chain() -> Net:
    """Four convolutions in a row, a Relu behind the second."""
    net = Net(1)
    x = net.input("x", 8, 6, 6)
    for name in ("a", "b", "c", "d"):
        x = net.conv(x, 8, 8, name=name)
        x = net.op("Relu", x, name="relu") if name == "b" else x
    return net.output(x)


def planned(net: Net, target: str = "x86-avx2") -> tuple[ir.Model, Calibration, Plan]:
    model = ir.from_proto(net.model())
    prepare(model)
    calibration = observe(model, in_memory(DATA, model), model_hash="m")
    return model, calibration, plan_graph(model, calibration, TARGETS[target], ranges="mse")


def test_nothing_is_slow_where_integers_win_everywhere() -> None:
    model, calibration, plan = planned(chain())
    costs = Costs("m", "test", FREE, dict.fromkeys("abcd", (10.0, 5.0)))
    assert find_slow_nodes(model.graph, plan, calibration, costs) == []


def test_a_slow_node_stays_float_where_converting_is_free_and_not_where_it_costs_more_than_it_saves() -> None:
    model, calibration, plan = planned(chain())
    nodes = dict.fromkeys("abcd", (10.0, 5.0)) | {"c": (10.0, 14.0)}
    free = find_slow_nodes(model.graph, plan, calibration, Costs("m", "test", FREE, nodes))
    assert free == ["c"]
    dear = Costs("m", "test", Rates(0.0, 0.0, 0.0, node_us=3.0), nodes)
    assert find_slow_nodes(model.graph, plan, calibration, dear) == []


def test_the_split_is_the_cheapest_of_all() -> None:
    """Against every set of float nodes, each tensor that crosses counted once by hand."""
    model, calibration, plan = planned(chain())
    random = np.random.default_rng(3)
    for _ in range(20):
        nodes = {name: (float(a), float(b)) for name, (a, b) in zip("abcd", random.integers(1, 9, (4, 2)), strict=True)}
        step = float(random.integers(0, 4))
        costs = Costs("m", "test", Rates(0.0, 0.0, 0.0, node_us=step), nodes)

        def cost(floats: frozenset[str], nodes: dict[str, tuple[float, float]] = nodes, step: float = step) -> float:
            sides = [True, *(name in floats for name in "abcd"), True]  # the input and the output are float
            crossings = sum(a != b for a, b in itertools.pairwise(sides))
            return sum(nodes[name][0 if name in floats else 1] for name in "abcd") + step * crossings

        every = [frozenset(s) for n in range(5) for s in itertools.combinations("abcd", n)]
        found = frozenset(find_slow_nodes(model.graph, plan, calibration, costs))
        assert cost(found) == pytest.approx(min(map(cost, every)))


def test_for_every_cpu_no_float_is_rounded_behind_another_one() -> None:
    """The cheapest of the splits in which all is float from some node on: its last bits differ, and bytes would tell."""
    model, calibration, plan = planned(chain(), "portable")
    random = np.random.default_rng(4)
    ends = [frozenset("abcd"[at:]) for at in range(5)]
    for _ in range(20):
        nodes = {name: (float(a), float(b)) for name, (a, b) in zip("abcd", random.integers(1, 9, (4, 2)), strict=True)}
        costs = Costs("m", "test", FREE, nodes)
        found = frozenset(find_slow_nodes(model.graph, plan, calibration, costs))
        took = {end: cost_of(model.graph, plan, calibration, costs, end) for end in ends}
        assert took[found] == pytest.approx(min(took.values()))
        counted = Costs("m", "test", FREE, {name: (1e9 * a, 1e9 * b) for name, (a, b) in nodes.items()})
        assert frozenset(find_slow_nodes(model.graph, plan, calibration, counted)) == found
        for each, whole in ((costs, 40), (counted, 4e10)):  # more than all of it together
            assert cost_of(model.graph, plan, calibration, each, {"a"}) > whole
        kept = plan_graph(
            model, calibration, TARGETS["portable"], ranges="mse", overrides=Overrides(dict.fromkeys(found, ""))
        )
        assert find_differences(model.graph, kept).rounded_floats == ()


def test_totals_take_each_node_from_its_side() -> None:
    _, _, plan = planned(chain())
    costs = Costs("m", "test", FREE, {"a": (1.0, 10.0), "b": (2.0, 20.0), "c": (3.0, 30.0), "d": (4.0, 40.0)})
    assert sum_layer_costs(costs, plan, {}) == 100
    assert sum_layer_costs(costs, plan, {"a": "", "d": ""}) == 1 + 20 + 30 + 4


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([((), 0.60, 0.57, 0.62), (("a",), 0.57, 0.53, 0.61)], 0),  # a gain inside the noise
        ([((), 0.60, 0.50, 0.70), (("a",), 0.50, 0.45, 0.55)], 0),  # a larger one, but the intervals meet
        ([((), 0.60, 0.58, 0.62), (("a",), 0.50, 0.48, 0.52)], 1),
        (
            [((), 0.60, 0.595, 0.605), (("a",), 0.53, 0.525, 0.535)],
            0,
        ),  # a tenth faster, where integers are fast already
        ([((), 0.600, 0.598, 0.602), (("a",), 0.590, 0.588, 0.592)], 0),  # beyond the noise, and too little to matter
        *(
            ([((), r, r - 0.001, r + 0.001), (("a",), r - 0.03, r - 0.031, r - 0.029)], 0)
            for r in (0.69, 0.70, 0.71, 0.75)
        ),
        ([((), 0.98, 0.975, 0.985), (("a",), 0.94, 0.935, 0.95), (("a", "b"), 1.0, 0.99, 1.01)], 1),
        ([((), 0.89, 0.87, 1.04), (("a",), 0.80, 0.79, 0.88)], 1),  # one of nine loads was slow
        ([((), 0.989, 0.985, 1.02), (("a",), 0.941, 0.939, 0.993)], 1),
        ([((), 1.30, 1.2, 1.4), (("a",), 0.90, 0.8, 1.0), (("a", "b"), 0.89, 0.8, 1.0)], 1),  # alike: more integers
        ([((), 1.30, 1.2, 1.4), (("a",), 1.10, 1.0, 1.2), (("a", "b"), 1.03, 0.9, 1.1)], 2),  # float is best
        ([((), 1.01, 0.9, 1.1), (("a",), 1.00, 0.9, 1.1)], 0),
    ],
)
def test_the_choice_among_trials(trials: list[tuple[tuple[str, ...], float, float, float]], chosen: int) -> None:
    made = tuple(TimeTrial(Choice(slow), *times) for slow, *times in trials)
    assert best_trial(made) is made[chosen]


def test_float_everywhere_takes_products_of_two_activations_along() -> None:
    """Nothing stays integer beside layers in float: not the MatMuls of an attention, nor what lies between them."""
    net = Net(4)
    x = net.op("Reshape", net.input("x", 8, 6, 6), net.constant([0, 8, 36], np.int64))

    def product(x: str, read: int, write: int, name: str) -> str:
        return net.op("MatMul", x, net.constant(net.normal(read, write)), name=name)

    parts = [product(x, 36, 12, name) for name in "qkv"]
    scores = net.op("MatMul", parts[0], net.op("Transpose", parts[1], perm=[0, 2, 1]), name="scores")
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), parts[2], name="mixed")
    model, calibration, plan = planned(net.output(product(mixed, 12, 5, "last")))
    products = {"q", "k", "v", "scores", "mixed", "last"}
    assert {node for node, kind in plan.kinds.items() if kind == "int8"} >= products
    costs = Costs("m", "test", FREE, dict.fromkeys(products, (10.0, 14.0)))
    choice = choose(model, plan, calibration, costs)
    assert set(choice.slow) >= products
    left = plan_graph(model, calibration, TARGETS["portable"], ranges="mse", overrides=Overrides(slow=choice.slow))
    assert set(left.kinds.values()) <= {"float", "weight_only"}


def test_the_table_knows_kinds_of_layers() -> None:
    net = Net(0)
    x = net.conv(net.input("x", 3, 8, 8), 3, 16, name="few")
    x = net.conv(x, 16, 16, group=16, name="depthwise")
    x = net.conv(net.conv(x, 16, 8, name="narrow"), 8, 32, name="also narrow")
    x = net.conv(x, 32, 32, name="plain")
    net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", x)), 32, 4, name="dense"))
    model = ir.from_proto(net.model())
    prepare(model)
    kinds = {node.name: find_kind(node) for node in model.graph if find_kind(node)}
    assert kinds == {
        "few": rates.FEW_INPUTS, "depthwise": rates.DEPTHWISE, "narrow": rates.FEW_CHANNELS,
        "also narrow": rates.FEW_CHANNELS, "plain": rates.CONVOLUTION, "dense": rates.DENSE,
    }  # fmt: skip
    macs = 32 * 32 * 9 * 8 * 8
    for target, table in rates.BY_TARGET.items():
        assert set(table.functions) == {rates.ADD, rates.MUL, rates.LOOK_UP, rates.SILU, rates.GELU, rates.HARD_SWISH}
        assert set(table.rates) == set(kinds.values()) | {rates.LARGE_DENSE}
        costs, row = estimate_costs(model, "m", target), table.rates[rates.CONVOLUTION]
        in_float, as_integers = costs.nodes["plain"]
        assert in_float == pytest.approx(row.float_us + macs * row.float_ns / 1e3, abs=1e-3)
        gathered = macs / 32 * row.gather_ns
        assert as_integers == pytest.approx(row.int8_us + (macs * row.int8_ns + gathered) / 1e3, abs=1e-3)
        assert costs.source.startswith(f"table of rates for {target}, ")
        assert ("not run" in costs.source) == target.startswith("arm64")
    assert set(rates.BY_TARGET) == set(TARGETS)


def functions_in_a_row() -> Net:
    """Behind convolutions each kind of function, in the pieces that exporters write."""
    net = Net(0)
    x = net.conv(net.input("x", 16, 8, 8), 16, 16, name="a")
    x = net.op("Mul", net.op("Sigmoid", x, name="sigmoid"), x, name="silu")
    x = net.op("HardSwish", net.conv(x, 16, 16, name="b"), name="swish")
    first = net.conv(x, 16, 16, name="c")
    half = net.op("Mul", first, net.constant(np.float32(0.5)), name="half")
    erf = net.op("Erf", net.op("Div", first, net.constant(np.float32(2**0.5)), name="root"), name="erf")
    gelu = net.op("Mul", half, net.op("Add", erf, net.constant(np.float32(1)), name="one"), name="gelu")
    x = net.op("Add", net.conv(gelu, 16, 16, name="d"), gelu, name="sum")
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", x), 16, 16, (1, 1), name="e"), name="gate")
    x = net.op("Mul", net.op("Tanh", net.conv(x, 16, 16, name="f"), name="tanh"), gate, name="gated")
    return net.output(net.conv(x, 16, 16, name="g"))


def test_the_table_knows_functions_and_counts_each_once() -> None:
    model = ir.from_proto(functions_in_a_row().model())
    prepare(model)
    kinds = {
        "silu": rates.SILU, "swish": rates.HARD_SWISH, "gelu": rates.GELU, "sum": rates.ADD, "gate": rates.LOOK_UP,
        "tanh": rates.LOOK_UP, "gated": rates.MUL,
    }  # fmt: skip
    assert find_functions(model.graph) == kinds
    for target, table in rates.BY_TARGET.items():
        nodes = estimate_costs(model, "m", target).nodes
        assert set(nodes) == {*kinds, *"abcdefg"}
        for name, kind in kinds.items():
            elements = 16 if name == "gate" else 16 * 8 * 8
            row = table.functions[kind]
            assert nodes[name] == pytest.approx((elements * row.float_ns / 1e3, elements * row.int8_ns / 1e3), abs=1e-3)


def test_functions_that_cost_more_as_integers_leave_cheap_layers_in_float() -> None:
    """The same convolutions stay integers where nothing stands between them."""

    def find_slow(*, silu: bool) -> list[str]:
        net = Net(0)
        x = net.conv(net.input("x", 16, 40, 40), 16, 16, (1, 1), name="0")
        for at in range(1, 10):
            x = net.op("Mul", net.op("Sigmoid", x), x) if silu else x
            x = net.conv(x, 16, 16, (1, 1), name=str(at))
        model = ir.from_proto(net.output(x).model())
        prepare(model)
        data = random_data(0, 4, x=(16, 40, 40))
        calibration = observe(model, in_memory(data, model), model_hash="m")
        plan = plan_graph(model, calibration, TARGETS["x86-vnni"], ranges="mse")
        return find_slow_nodes(model.graph, plan, calibration, estimate_costs(model, "m", "x86-vnni"))

    assert find_slow(silu=False) == []
    assert set("0123456789") <= set(find_slow(silu=True))


def test_a_large_dense_layer_is_another_kind() -> None:
    net = Net(0)
    net.output(net.dense(net.input("x", 1024), 1024, 1024, name="large"))
    (kind,) = (find_kind(node) for node in ir.from_proto(net.model()).graph)
    assert kind == rates.LARGE_DENSE


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        (
            {("plain", "table"): 0.80, ("table", "measured"): 0.99},
            "table",
        ),  # another split of the same time: not worth a change
        ({("plain", "table"): 0.80, ("table", "measured"): 0.90}, "measured"),
        ({("plain", "table"): 0.99, ("plain", "measured"): 0.90}, "measured"),
        ({("plain", "table"): 1.20, ("plain", "measured"): 0.98}, "plain"),
    ],
)
def test_of_splits_that_are_alike_the_table_s_is_taken(times: dict[tuple[str, str], float], taken: str) -> None:
    def time(one: Choice, other: Choice) -> TimeTrial:
        ratio = times[one.slow[0], other.slow[0]]
        return TimeTrial(other, ratio, ratio - 0.01, ratio + 0.01)

    plain, table, measured = (Choice((name,)) for name in ("plain", "table", "measured"))
    assert _take_surely_faster(plain, (table, measured), time).slow == (taken,)
    assert _take_surely_faster(plain, (plain, plain), time) == plain  # nothing is timed


def test_what_looks_faster_on_a_busy_machine_is_timed_again() -> None:
    """Intervals as they came out at a load of 12: none of them tells the choices apart."""

    def trial(choice: Choice, ratio: float, low: float, high: float) -> TimeTrial:
        return TimeTrial(choice, ratio, low, high)

    plain, table, measured = Choice(), Choice(("table",)), Choice(("measured",))
    wide = (trial(measured, 0.73, 0.4, 0.91), trial(table, 0.754, 0.48, 1.06), trial(plain, 0.85, 0.46, 1.14))
    assert best_trial(wide).choice == plain
    assert list_contenders(wide, plain, table) == [table, measured]
    assert list_contenders(wide[1:], plain, table) == [table]
    assert list_contenders(wide[::2], plain, table) == [measured]
    alike = (trial(table, 0.82, 0.6, 1.1), trial(plain, 0.85, 0.6, 1.1))
    assert list_contenders(alike, plain, table) == []  # too little to save
    clear = (trial(measured, 0.6, 0.59, 0.61), trial(plain, 0.85, 0.84, 0.86))
    assert list_contenders(clear, plain, table) == [table, measured]
    assert list_contenders((), plain, table) == []


def test_names_that_decide_nothing_change_no_byte(folder: Path) -> None:
    """Measured times name nodes that follow others anyway, one in this run and not in the next."""
    written = []
    for at, slow in enumerate([("b",), ("b", "no such node"), ("a_out", "b")]):
        trial = TimeTrial(Choice(slow), 0.5, 0.5, 0.5)
        costs = Costs(hash_file(folder / "model.onnx"), "by hand", FREE, {"b": (1.0, 9.0)}, tuple("abcd"), (trial,))
        (folder / "costs.json").write_text(to_text(costs))
        assert quantize("--costs", "costs.json", "-o", f"{at}.onnx") == 0
        written.append((folder / f"{at}.onnx").read_bytes())
    assert written[0] == written[1] == written[2]


def test_costs_of_a_split_are_those_of_its_sides_and_conversions() -> None:
    model, calibration, plan = planned(chain())
    nodes = {"a": (1.0, 10.0), "b": (2.0, 20.0), "c": (3.0, 30.0), "d": (4.0, 40.0)}
    costs = Costs("m", "test", Rates(0.0, 0.0, 0.0, node_us=1.0), nodes)

    def cost(*slow: str) -> float:
        return cost_of(model.graph, plan, calibration, costs, slow)

    assert cost() == pytest.approx(100 + 2)
    assert cost(*"abcd") == pytest.approx(10)
    assert cost("b", "c") == pytest.approx(10 + 5 + 40 + 4)
    cheapest = tuple(find_slow_nodes(model.graph, plan, calibration, costs))
    assert cost(*cheapest) == min(cost(*s) for n in range(5) for s in itertools.combinations("abcd", n))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("x86-vnni", "times are estimates from the table of rates for x86-vnni, not measured: "),
        (
            "arm64",
            "times are estimates from the table of rates for arm64, estimated from onnxruntime's source, not run: ",
        ),
    ],
)
def test_times_of_another_cpu_are_the_table_s(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    monkeypatch.setattr(times, "detect_target", lambda: TARGETS["x86-avx2"])
    assert folder.exists()
    assert quantize("--target", target, "-o", "one.onnx") == 0
    assert said in capsys.readouterr().out


def test_a_network_that_integers_would_slow_down_stays_float_by_the_table(folder: Path) -> None:
    """Small convolutions of few channels, with which every integer kernel is slower."""
    net = Net(3)
    x = net.op("Relu", net.conv(net.input("x", 8, 6, 6), 8, 6, name="one"))
    x = net.conv(x, 6, 6, group=6, name="two")
    net.output(net.dense(net.op("Flatten", x), 6 * 36, 8, name="three")).save(folder / "model.onnx")
    assert quantize("--effort", "fast", "-o", "one.onnx") == 0
    assert not any(kernel.integer for kernel in find_kernels(folder / "one.onnx"))


def test_conversions_cost_something_here() -> None:
    found = conversion_rates()
    assert 0 < found.quantize < 100
    assert 0 <= found.dequantize < 100
    assert 0 <= found.transpose < 100


def test_costs_come_back_from_their_file() -> None:
    costs = Costs("m", "cpu", Rates(0.1, 0.2, 0.3, 1.0), {"a": (1.5, 2.5)}, ("a",), *TRIALS, 30.5)
    assert from_text(to_text(costs), "x") == costs
    assert costs.hash == from_text(to_text(costs), "x").hash


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "fcdeploy.costs/2"}', '{"schema": "fcdeploy.costs/9"}'])
def test_what_is_no_file_of_costs_is_named(text: str) -> None:
    with fails("costs 'c.json'", "measures and writes them"):
        from_text(text, "costs 'c.json'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    chain().save(Path("model.onnx"))
    np.savez("data.npz", **DATA)
    return tmp_path


def quantize(*arguments: str) -> int:
    floor = () if "--floor" in arguments else ("--floor", "none")
    return main(["quantize", "model.onnx", "--int8", "--data", "data.npz", *floor, *arguments])


def test_measured_costs_are_written_and_repeat_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize("--costs", "costs.json", "-o", "one.onnx") == 0
    costs = from_text((folder / "costs.json").read_text(), "costs")
    assert set("abcd") <= set(costs.nodes)
    assert any(trial.choice == Choice() for trial in costs.trials)
    assert any(set(trial.choice.slow) == set("abcd") for trial in costs.trials)
    assert costs.confirmed
    assert quantize("--costs", "costs.json", "-o", "two.onnx") == 0
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
    capsys.readouterr()
    assert quantize("--costs", "costs.json", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plan"]["costs"] == hash_choice(costs.confirmed[-1].choice)


def test_costs_of_another_model_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "costs.json").write_text(to_text(Costs("other", "cpu", FREE, {})))
    assert quantize("--costs", "costs.json", "-o", "one.onnx") == 2
    assert "error: costs 'costs.json' are those of another model" in capsys.readouterr().err
    assert not (folder / "one.onnx").exists()


def test_a_slow_layer_computes_in_float_from_stored_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ir.load(folder / "model.onnx")
    trial = TimeTrial(Choice(("b",)), 0.5, 0.5, 0.5)
    costs = Costs(hash_file(folder / "model.onnx"), "by hand", FREE, {"b": (1.0, 9.0)}, tuple("abcd"), (trial,))
    (folder / "costs.json").write_text(to_text(costs))
    assert quantize("--costs", "costs.json", "--floor", "none", "-o", "one.onnx", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [node["node"] for node in said["nodes_float"]][:1] == ["b"]
    assert "9.0 us as integers, 1.0 us in float: slower as integers" in said["nodes_float"][0]["why"]
    assert quantize("--costs", "costs.json", "--floor", "none", "--dry-run", "--json") == 0
    nodes = json.loads(capsys.readouterr().out)["plan"]["nodes"]
    assert [row["node"] for row in nodes if row.get("cause") == "time"] == ["b"]
    kernels = {kernel.node: kernel for kernel in find_kernels(folder / "one.onnx")}
    assert not kernels["b"].integer
    assert all(kernels[name].integer for name in "acd")
    initializers = {t.name: t for t in onnx.load(folder / "one.onnx").graph.initializer}
    weight = next(node for node in model.graph if node.name == "b").inputs[1]
    assert weight is not None
    assert initializers[f"{weight.name}/q"].data_type == onnx.TensorProto.INT8
    x = DATA["x"]
    exact, found = (Session(folder / name).run({"x": x})[0] for name in ("model.onnx", "one.onnx"))
    assert measure_fidelity(exact, found).sqnr_db > 25


def test_all_weights_stored_is_float_within_the_rounding_of_weights(folder: Path) -> None:
    costs = Costs(
        hash_file(folder / "model.onnx"),
        "by hand",
        FREE,
        {},
        tuple("abcd"),
        (TimeTrial(Choice(tuple("abcd")), 0.5, 0.5, 0.5),),
    )
    (folder / "costs.json").write_text(to_text(costs))
    assert quantize("--costs", "costs.json", "-o", "one.onnx") == 0
    exact, found = (Session(folder / name).run({"x": DATA["x"]})[0] for name in ("model.onnx", "one.onnx"))
    assert measure_fidelity(exact, found).sqnr_db > 35
    assert (folder / "one.onnx").stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size
    assert not any(kernel.integer for kernel in find_kernels(folder / "one.onnx"))


def test_what_looked_fastest_and_is_not_falls_back_to_float(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a run that was lucky once would leave it: the last that was confirmed stands, and the report says why."""
    everywhere, nowhere = Choice(), Choice(tuple("abcd"))
    trials = (TimeTrial(everywhere, 0.95, 0.9, 1.0), TimeTrial(nowhere, 1.0, 0.99, 1.01))
    lost, stands = TimeTrial(everywhere, 1.06, 1.04, 1.08), TimeTrial(nowhere, 1.0, 0.99, 1.01)
    model = hash_file(folder / "model.onnx")
    (folder / "costs.json").write_text(to_text(Costs(model, "cpu", FREE, {}, tuple("abcd"), trials, (lost, stands))))
    assert quantize("--costs", "costs.json", "-o", "one.onnx") == 0
    said = capsys.readouterr().out
    assert "what looked fastest took 1.06 (1.04 to 1.08) of the float time when it was run again" in said
    assert "float is fastest here: integers everywhere take 0.95 of its time; only weights are bytes" in said
    assert not any(kernel.integer for kernel in find_kernels(folder / "one.onnx"))
    slow = TimeTrial(nowhere, 1.05, 1.03, 1.07)
    (folder / "costs.json").write_text(to_text(Costs(model, "cpu", FREE, {}, tuple("abcd"), trials, (lost, slow))))
    assert quantize("--costs", "costs.json", "-o", "two.onnx") == 0
    assert "keep the float model for speed" in capsys.readouterr().out
    assert quantize("--costs", "costs.json", "-o", "three.onnx", "--json") == 0
    said_too = json.loads(capsys.readouterr().out)
    assert (said_too["ratio"], said_too["ratio_low"], said_too["ratio_high"]) == (1.05, 1.03, 1.07)


def test_layers_with_dynamic_activations_are_tried_both_ways_in_every_choice() -> None:
    everything, split, nowhere = Choice(), Choice(("conv",), ("dense",)), Choice(("conv", "dense", "lstm"))
    assert vary_dynamic([everything, split, nowhere], []) == [everything, split, nowhere]
    assert vary_dynamic([everything, split, nowhere], ["lstm"]) == [
        everything, Choice(("lstm",)),
        split, Choice(("conv", "lstm"), ("dense",)),
        Choice(("conv", "dense")), nowhere,
    ]  # fmt: skip


def test_an_lstm_is_timed_and_may_stay_float(tmp_path: Path) -> None:
    net = Net(0)
    weights = [net.constant(net.normal(1, 256, n, size=0.2)) for n in (32, 64)]
    x = net.op("Transpose", net.input("x", 9, 32), perm=[1, 0, 2], name="turn")
    net.output(net.ops("LSTM", x, *weights, outputs=1, name="lstm", hidden_size=64)[0]).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(24, 6, x=(9, 32)))
    costs = tmp_path / "costs.json"
    start = [
        "quantize",
        str(tmp_path / "model.onnx"),
        "--int8",
        "--data",
        str(tmp_path / "data.npz"),
        "--costs",
        str(costs),
    ]
    assert main([*start, "-o", str(tmp_path / "measured.onnx")]) == 0
    found = from_text(costs.read_text(), "costs")
    assert found.layers == ("lstm",)
    assert {trial.choice for trial in found.trials} == {Choice(), Choice(("lstm",))}
    assert min(found.nodes["lstm"]) > 0
    taken = {Choice(): "DynamicQuantizeLSTM", Choice(("lstm",)): "LSTM"}
    for choice, op in taken.items():
        costs.write_text(to_text(replace(found, confirmed=(TimeTrial(choice, 1.0, 1.0, 1.0),))))
        assert main([*start, "-o", str(tmp_path / f"{op}.onnx")]) == 0
        assert op in {node.op_type for node in onnx.load(tmp_path / f"{op}.onnx").graph.node}


def test_the_hash_is_that_of_what_is_read_back() -> None:
    """A time of 0, written as it stands, would come back as 0.0 and with another hash."""
    costs = Costs("m", "s", Rates(1.0, 2.0, 3.0, 4.0), {"a": (0, 1), "b": (0.5, 0)})
    assert from_text(to_text(costs), "costs").hash == costs.hash


@pytest.mark.parametrize(
    ("ratio", "low", "high", "noisy"),
    [(1.03, 0.75, 2.06, True), (0.53, 0.4, 0.9, False), (1.5, 1.1, 2.0, False), (1.0, 0.95, 1.05, False)],
)
def test_what_is_too_uneven_to_decide_by_decides_nothing(ratio: float, low: float, high: float, noisy: bool) -> None:
    costs = Costs("m", "cpu", FREE, {}, ("a",), (), (TimeTrial(Choice(), ratio, low, high),))
    assert bool(find_noise(costs)) == noisy


def wide(low: float, high: float) -> Costs:
    """Costs whose choice leaves a layer in float, where integers everywhere took a third to twice the time of float."""
    trials = (TimeTrial(Choice(), 1.03, low, high), TimeTrial(Choice(("a",)), 0.8, 0.79, 0.81))
    return Costs("m", "cpu", FREE, {}, ("a", "b"), trials, trials[1:])


def test_a_ratio_that_is_too_uneven_is_given_by_its_ends() -> None:
    (noisy,), (clear,) = (tuple(describe_times(CostBasis(wide(*ends)))) for ends in ((0.75, 2.06), (1.0, 1.05)))
    assert noisy.startswith(
        "0.80 (0.79 to 0.81) of the float time; integers everywhere would take between 0.75 and 2.06"
    )
    assert clear.endswith("integers everywhere would take 1.03, so 1 layer stays float")


def test_the_plan_is_of_the_decision_and_not_of_the_times(folder: Path) -> None:
    """Times that differ and lead to the same choice give the same bytes."""
    for name, us in (("one", 1.0), ("other", 1.7)):
        costs = Costs(
            hash_file(folder / "model.onnx"), name, FREE, {"b": (us, 9.0 + us)}, tuple("abcd"),
            (TimeTrial(Choice(("b",)), us / 2, us / 2, us / 2),),
        )  # fmt: skip
        (folder / f"{name}.json").write_text(to_text(costs))
        assert quantize("--costs", f"{name}.json", "-o", f"{name}.onnx") == 0
    assert (folder / "one.onnx").read_bytes() == (folder / "other.onnx").read_bytes()


def test_what_left_int8_and_the_largest_samples_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By measured costs, at a floor that integers do not hold, on pictures of two sizes."""
    monkeypatch.setattr(measure, "CONFIRMED_SECONDS", 0.01)
    net, random = Net(1), np.random.default_rng(0)
    x = net.input("x", 8, "rows", "columns")
    for name in "ab":
        x = net.op("Relu", net.conv(x, 8, 8, name=name))
    net.output(x).save(tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for at in range(16):
        rows = 12 if at % 5 == 0 else 6
        np.save(tmp_path / "data" / f"{at:02}.npy", random.normal(size=(8, rows, 6)).astype(np.float32))
    trials = (TimeTrial(Choice(), 0.5, 0.5, 0.5),)
    costs = Costs(hash_file(tmp_path / "net.onnx"), "cpu", FREE, dict.fromkeys("ab", (9.0, 5.0)), (), trials)
    (tmp_path / "costs.json").write_text(to_text(costs))
    report = fcdeploy.quantize(
        tmp_path / "net.onnx",
        data=tmp_path / "data",
        output=tmp_path / "int8.onnx",
        costs=tmp_path / "costs.json",
        floor="99,60",
    )
    assert report.values["floor"]["left_out"]
    assert 0 < report.values["ratio_low"] <= report.values["ratio"] <= report.values["ratio_high"]
    assert report.values["ratio_at_largest"] > 0
    assert any(line.endswith(" of the float time with what left int8, measured on this CPU") for line in report.lines)
    assert any(line.endswith(" of the float time at the largest samples, x 1,8,12,6") for line in report.lines)
