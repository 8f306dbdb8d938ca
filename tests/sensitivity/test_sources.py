"""Sources of error of an int8 model: which there are, the model without one of them, and what each costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from error_sources import batch, spoil, top1
from networks import Line, Net, quantize_net, random_data
from small_models import quantized, residual, samples

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.graph.model import read_model
from fcdeploy.int8.refining.smooth import compute_smoothing, rescale
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.session import Session
from fcdeploy.sensitivity.ablation import leave_unrounded
from fcdeploy.sensitivity.error_sources import find_sources
from fcdeploy.sensitivity.local_errors import measure_tensor_errors, measure_weight_errors
from fcdeploy.sensitivity.rank import rank_sources
from fcdeploy.tables.types import TYPES

Array = np.ndarray[Any, Any]


def images(net: Net) -> Net:
    """Channels added to the stem, a border, a pool, clips, a concatenation of bytes, a sum, depthwise, dense."""
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="stem"))
    six = net.constant(0.9)
    low = net.constant(0.0)
    a = net.op("Clip", net.conv(x, 8, 8, group=8, name="deep"), low, six, name="clip")
    a = net.op("Pad", a, net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), name="border")
    a = net.op("MaxPool", a, kernel_shape=[3, 3], strides=[1, 1], name="largest")
    b = net.op("Concat", a, x, axis=1, name="both")
    y = net.op("Add", net.conv(b, 16, 16, name="one"), net.conv(b, 16, 16, name="two"), name="sum")
    y = net.op("Mul", net.op("Relu", y), net.constant(net.normal(16, 1, 1)), name="gate")
    y = net.op("Flatten", net.op("GlobalAveragePool", y, name="mean"), name="flat")
    return net.output(net.dense(y, 16, 5, name="last"))


def tokens(net: Net) -> Net:
    """Matrix products on three axes, and a layer that stays float on its own grounds."""
    x = net.input("x", 7, 12)
    y = net.op(
        "Add",
        net.op("MatMul", x, net.constant(net.normal(12, 64, size=0.3)), name="first"),
        net.constant(net.normal(64)),
    )
    y = net.op("MatMul", net.op("Tanh", y, name="bent"), net.constant(net.normal(64, 32, size=0.2)), name="second")
    return net.output(net.op("Transpose", y, perm=[0, 2, 1], name="turn"))


def recurrent(net: Net) -> Net:
    x = net.op("Transpose", net.input("x", 6, 8), perm=[1, 0, 2])
    w, r, b = (net.constant(net.normal(*shape, size=0.4)) for shape in ((1, 48, 8), (1, 48, 12), (1, 96)))
    y = net.op("LSTM", x, w, r, b, name="cell", hidden_size=12)
    y = net.op("Transpose", net.op("Squeeze", y, net.constant([1], np.int64)), perm=[1, 0, 2])
    return net.output(net.op("MatMul", y, net.constant(net.normal(12, 4, size=0.3)), name="head"))


def indexed(net: Net) -> Net:
    """Indices that are made of the shape of a tensor in bytes."""
    x = net.op("Relu", net.conv(net.input("x", 3, 4, 4), 3, 8, name="stem"))
    index = net.op("Expand", net.constant(np.zeros((1, 8, 4, 4), np.int64), np.int64), net.op("Shape", x))
    y = net.op("GatherElements", x, index, axis=1, name="pick")
    return net.output(net.op("Flatten", net.conv(y, 8, 4, name="last")))


SHAPES = {indexed: (3, 4, 4), images: (3, 8, 8), tokens: (7, 12), recurrent: (6, 8)}


def line(network: Any, **options: Any) -> Line:
    return quantize_net(network(Net(1)), random_data(1, 48, x=SHAPES[network]), **options)


def answer(model: ir.Model | onnx.ModelProto, x: Array, *, optimize: bool = True) -> Array:
    given = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    (found,) = Session(given, threads=1, optimize=optimize).run({"x": x})
    return np.asarray(found)


def peer(tmp_path: Path) -> tuple[ir.Model, list[ir.Model]]:
    """A model that onnxruntime's tool has quantized, and what it was made from."""
    path = residual(tmp_path / "float.onnx")
    made = read_model(quantized(path, samples(64, 3, 8, 8), tmp_path / "int8.onnx"))
    prepared = read_model(path)
    prepare(prepared)
    return made, [prepared, read_model(path)]


@pytest.mark.parametrize(
    ("network", "types"),
    [(images, ("int8", "int8")), (tokens, ("int8", "int8")), (images, ("int8", "none")), (images, ("int8", "int16")),
     (tokens, ("int4", "none")), (recurrent, ("int8", "dynamic")), (recurrent, ("int8", "int8")),
     (indexed, ("int8", "int8"))],
)  # fmt: skip
def test_without_every_source_it_is_the_float_model(network: Any, types: tuple[str, str]) -> None:
    """One after the other; so bytes that are passed by are clipped as in float, and every constant is the float one."""
    made = line(network, types=TYPES[types])
    x, model = made.data["x"], made.int8
    expected = answer(made.float_model, x)
    found = find_sources(model)
    assert found
    first = measure_fidelity(expected, answer(model, x)).sqnr_db
    for source in found:
        model = leave_unrounded(model, [made.prepared], source)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert find_sources(model) == []
    assert first < 60
    assert measure_fidelity(expected, answer(model, x)).sqnr_db > 100


def test_without_every_source_a_peers_model_is_float_too(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    x = samples(32, 3, 8, 8, seed=1)
    for source in find_sources(model):
        model = leave_unrounded(model, floats, source)
    assert measure_fidelity(answer(floats[1], x), answer(model, x)).sqnr_db > 100


def test_sources_and_their_groups(tmp_path: Path) -> None:
    """A residual block: a tensor that two nodes read, one that is only reshaped, one that is an answer."""
    found = {(source.name, source.kind): source for source in find_sources(peer(tmp_path)[0])}
    weights = {name: source.group for (name, kind), source in found.items() if kind == "weights"}
    assert weights == {"w1": ("conv1",), "w2": ("conv2",), "w3": ("conv3",), "w4": ("dense",)}
    tensors = {name: source.group for (name, kind), source in found.items() if kind == "tensor"}
    assert tensors["x"] == ("conv1",)
    assert tensors["r1"] == ("conv1", "conv2", "add")
    assert tensors["c2"] == ("conv2", "add")
    assert tensors["r2"] == ("add", "conv3")
    assert tensors["g"] == ("pool", "dense")  # rounded again behind the Flatten, which changes nothing
    assert len(tensors) == 7
    assert tensors["logits_QuantizeLinear_Input"] == ("dense",)
    macs = {"conv1": 8 * 27 * 64, "conv2": 8 * 72 * 64, "conv3": 16 * 72 * 9, "dense": 96}
    for source in found.values():
        assert source.share == pytest.approx(sum(macs.get(name, 0) for name in source.group) / sum(macs.values()))


@pytest.mark.parametrize("name", ["x", "r1", "c2", "r2", "r3"])
def test_a_tensor_that_is_not_rounded(tmp_path: Path, name: str) -> None:
    """Against the file edited by hand: whoever reads the DequantizeLinear reads what the QuantizeLinear reads."""
    model, floats = peer(tmp_path)
    x = samples(32, 3, 8, 8, seed=1)
    (source,) = (source for source in find_sources(model) if source.name == name)
    edited = onnx.load(tmp_path / "int8.onnx")
    (quantize,) = (node for node in edited.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == name)
    (back,) = (node for node in edited.graph.node if quantize.output[0] in node.input)
    relu = onnx.helper.make_node("Relu", [name], ["clipped"]) if name.startswith("r") else None
    for node in edited.graph.node:
        node.input[:] = [
            "clipped" if relu and i == back.output[0] else name if i == back.output[0] else i for i in node.input
        ]
    if relu:
        edited.graph.node.insert(list(edited.graph.node).index(quantize), relu)
    made = leave_unrounded(model, floats, source)
    assert np.allclose(answer(made, x, optimize=False), answer(edited, x, optimize=False), rtol=0, atol=1e-5)
    assert np.abs(answer(model, x, optimize=False) - answer(edited, x, optimize=False)).max() > 1e-3


def test_weights_that_are_not_rounded(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    x = samples(32, 3, 8, 8, seed=1)
    (source,) = (source for source in find_sources(model) if source.name == "w2")
    edited = onnx.load(tmp_path / "int8.onnx")
    (real,) = (item for item in onnx.load(tmp_path / "float.onnx").graph.initializer if item.name == "w2")
    edited.graph.initializer.append(real)
    for node in edited.graph.node:
        node.input[:] = ["w2" if i == "w2_DequantizeLinear_Output" else i for i in node.input]
    made = leave_unrounded(model, floats, source)
    assert (
        measure_fidelity(answer(edited, x, optimize=False), answer(made, x, optimize=False)).sqnr_db > 45
    )  # but for the bias
    # and the runtime does not round them again by itself
    assert measure_fidelity(answer(made, x, optimize=False), answer(made, x)).sqnr_db > 50


def test_the_model_itself_is_left_alone() -> None:
    made = line(images)
    before = ir.to_proto(made.int8).SerializeToString()
    for source in find_sources(made.int8):
        leave_unrounded(made.int8, [made.prepared], source)
    assert ir.to_proto(made.int8).SerializeToString() == before


def test_weights_on_the_bytes_of_a_picture() -> None:
    """Their float form reads the same bytes: with nothing rounded but the rest, or with nothing at all, as float does."""
    bytes_ = np.random.default_rng(3).integers(0, 256, (48, 3, 8, 8))
    step, lowest = (np.reshape(row, (1, 3, 1, 1)) for row in ([0.017, 0.0175, 0.0174], [-2.118, -2.036, -1.804]))
    x = (lowest + step * bytes_).astype(np.float32)
    made = quantize_net(images(Net(1)), {"x": x})
    assert made.plan.tensors["x"].pixels
    found = find_sources(made.int8)
    (picture,) = (each for each in found if each.kind == "tensor" and each.op == "input")
    assert (picture.name, picture.node, picture.group) == ("x", "", ("stem",))
    assert all(set(each.group) <= {node.name for node in made.prepared.graph} for each in found)
    (stem,) = (each for each in found if each.node == "stem" and each.kind == "weights")
    assert measure_weight_errors(made.int8, [made.prepared], found)[stem].sqnr_db > 35
    expected = answer(made.float_model, x)
    others = [each for each in found if each is not stem]
    for model in (
        leave_unrounded(made.int8, [made.prepared], stem, *others),
        leave_unrounded(made.int8, [made.prepared], *found[::-1]),
    ):
        assert measure_fidelity(expected, answer(model, x)).sqnr_db > 80
    before, after = (measure_fidelity(expected, answer(each, x)).sqnr_db
                     for each in (made.int8, leave_unrounded(made.int8, [made.prepared], stem)))  # fmt: skip
    assert after > before - 1


def test_an_added_channel_that_carries_something_unknown_has_no_floats() -> None:
    """Zeros in its place would leave out more than a rounding."""
    made = line(images)
    (stem,) = (each for each in find_sources(made.int8) if each.node == "stem" and each.kind == "weights")
    stored = made.int8.graph.initializers[stem.integers[0]]
    weight = stored.const_value.numpy().copy()
    weight[:, 3] = 1
    stored.const_value = ir.tensor(weight, name=stored.name)
    with fails("the float model has no weights like", "give the float model"):
        leave_unrounded(made.int8, [made.prepared], stem)


def test_a_model_whose_only_tensor_is_its_input() -> None:
    net = Net(1)
    made = quantize_net(net.output(net.dense(net.input("x", 16), 16, 8, name="only")), random_data(1, 32, x=(16,)))
    found = [each for each in find_sources(made.int8) if each.name == "x"]
    (row,) = measure_tensor_errors(made.int8, [made.prepared], found, {"x": made.data["x"]}).values()
    assert row.sqnr_db > 30


def test_bytes_times_what_is_computed_are_no_weights() -> None:
    """A float model may hold bytes of its own; only a constant scale makes them rounded floats."""
    net = Net(1)
    x = net.input("x", 8)
    mask = net.op("Cast", net.constant(np.ones((1, 8)), np.uint8), to=1)
    net.output(net.dense(net.op("Mul", mask, x), 8, 4))
    assert find_sources(ir.from_proto(net.model())) == []


def shortcut(net: Net) -> Net:
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 16, name="stem"))
    y = net.op("Relu", net.conv(x, 16, 16, group=16, name="deep"))
    y = net.op("Relu", net.op("Add", net.conv(y, 16, 16, name="one"), x, name="sum"))
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 16, 5, name="last"))


def test_weights_of_smoothed_channels_are_scaled_alike() -> None:
    """Effort best quantizes a model whose channels were rescaled; the float file has them as they were trained."""
    net = shortcut(Net(1))
    data = random_data(1, 48, x=(3, 8, 8))
    made = quantize_net(net, data)
    smoothed = made.prepared.clone()
    rescale(smoothed, compute_smoothing(smoothed, data))
    exact = rounded = quantize_net(ir.to_proto(smoothed), data).int8
    for source in find_sources(exact):
        exact = leave_unrounded(exact, [made.prepared], source)
    expected = answer(made.float_model, data["x"])
    left, before = (measure_fidelity(expected, answer(each, data["x"])).sqnr_db for each in (exact, rounded))
    # scales are fitted to rounded weights, nine to a channel in the worst layer, and biases stay as rounding moved them
    assert left > before + 3


def test_bytes_that_are_read_with_other_scales_by_nodes_without_names() -> None:
    """Arithmetic with one number is no node in an int8 model: two such readers of one tensor, and it is left unrounded."""
    net = Net(2)
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8))
    half, more = net.op("Mul", x, net.constant(np.float32(0.5))), net.op("Add", x, net.constant(np.float32(0.7)))
    net.output(net.op("Add", net.conv(half, 8, 4), net.conv(more, 8, 4)))
    made = quantize_net(net, random_data(1, 24, x=(3, 8, 8)))
    for node in made.int8.graph:
        node.name = "" if node.op_type == "DequantizeLinear" else node.name
    tensors = [source for source in find_sources(made.int8) if source.kind == "tensor"]
    expected = answer(made.float_model, made.data["x"])
    usual = measure_fidelity(expected, answer(made.int8, made.data["x"])).sqnr_db
    copies = [leave_unrounded(made.int8, [made.prepared], source) for source in tensors]
    assert any(sum("read_as" in (node.name or "") for node in each.graph) == 4 for each in copies)
    assert max(measure_fidelity(expected, answer(each, made.data["x"])).sqnr_db for each in copies) > usual


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    (source,) = (source for source in find_sources(model) if source.name == "w2")
    for other in floats:
        weight = other.graph.initializers["w2"]
        weight.const_value = ir.tensor(samples(8, 8, 3, 3, seed=5), name="w2")
    with fails("the float model has no weights like 'w2' of Conv 'conv2'", "give the float model"):
        leave_unrounded(model, floats, source)
    found = rank_sources(model, floats, [batch(samples(16, 3, 8, 8))])
    assert [source.name for source in found.unknown] == ["w2"]
    assert len(found.costs) == len(find_sources(model)) - 1


def test_what_a_source_does_on_the_spot() -> None:
    """Against NumPy: what a tensor becomes behind its bytes, what is clipped, what part of 0 .. 255 is used."""
    made = line(images)
    x = np.concatenate([made.data["x"], 3 * made.data["x"]])  # beyond the range
    every = find_sources(made.int8)
    rows = measure_weight_errors(made.int8, [made.prepared], every) | measure_tensor_errors(
        made.int8, [made.prepared], every, {"x": x}
    )
    assert set(rows) == set(every)
    found = {source.name: row for source, row in rows.items()}
    halves = [measure_tensor_errors(made.int8, [made.prepared], every, {"x": part}) for part in (x[:48], x[48:])]
    whole = halves[0][every[-1]] + halves[1][every[-1]]
    assert whole.sqnr_db == pytest.approx(rows[every[-1]].sqnr_db)
    assert (whole.clipped, whole.used) == (rows[every[-1]].clipped, rows[every[-1]].used)
    q = made.plan.tensors["x"]
    integers = np.rint(x / np.float32(q.scale[0])) + q.zero_point
    back = (np.clip(integers, 0, 255) - q.zero_point) * q.scale[0]
    assert found["x"].sqnr_db == pytest.approx(10 * np.log10((x**2.0).sum() / ((x - back) ** 2).sum()), abs=0.01)
    assert found["x"].clipped == pytest.approx(np.mean((integers < 0) | (integers > 255)), abs=1e-4)
    assert 0.01 < float(found["x"].clipped or 0) < 0.5
    assert found["x"].used == 1.0
    lost = (((x - back) ** 2)[(integers < 0) | (integers > 255)]).sum() / ((x - back) ** 2).sum()
    assert found["x"].by_clipping == pytest.approx(lost, abs=0.001)
    assert 0.5 < lost < 1
    weights = made.layers["one"].weight.numpy() * np.reshape(
        made.plan.tensors[made.prepared.graph.node("one").inputs[1].name].scale, (-1, 1, 1, 1)
    )
    real = made.prepared.graph.node("one").inputs[1].const_value.numpy()
    expected = measure_fidelity(real, weights).sqnr_db
    assert found[made.prepared.graph.node("one").inputs[1].name].sqnr_db == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("number", range(11))
def test_the_spoilt_source_is_the_dearest(tmp_path: Path, number: int) -> None:
    """Each of a model's sources in turn, wherever it is; nothing tells the ranking which."""
    model, floats = peer(tmp_path)
    found = [source for source in find_sources(model) if len(source.integers) == 1]
    spoil(model, found[number % len(found)])
    ranking = rank_sources(model, floats, [batch(samples(24, 3, 8, 8, seed=2)), batch(samples(24, 3, 8, 8, seed=3))])
    assert ranking.costs[0].source == found[number % len(found)]
    assert ranking.costs[0].low > 0
    assert ranking.costs[0].real
    assert ranking.samples == 48
    assert not ranking.left
    assert not ranking.unknown


def test_drops_are_those_of_the_metric(tmp_path: Path) -> None:
    """Against accuracies counted here; and the error power, with its interval, from arrays."""
    model, floats = peer(tmp_path)
    x = samples(96, 3, 8, 8, seed=2)
    (source,) = (source for source in find_sources(model) if source.name == "r2")
    spoil(model, source, 500)
    exact, whole, fewer = (answer(each, x) for each in (floats[0], model, leave_unrounded(model, floats, source)))
    labels = exact.argmax(axis=1)
    cost = next(c for c in rank_sources(model, floats, [batch(x, label=labels)], top1).costs if c.source == source)
    assert cost.loss is not None
    assert cost.loss.drop == pytest.approx(
        100 * (np.mean(fewer.argmax(1) == labels) - np.mean(whole.argmax(1) == labels))
    )
    assert cost.loss.drop > 5
    e, less = (((array.astype(float) - exact) ** 2).sum(axis=1) for array in (whole, fewer))
    assert cost.share == pytest.approx(1 - less.sum() / e.sum(), abs=1e-6)
    random = np.random.default_rng(0)
    drawn = [random.integers(96, size=96) for _ in range(2000)]
    low, high = np.quantile([1 - less[rows].sum() / e[rows].sum() for rows in drawn], [0.025, 0.975])
    assert (cost.low, cost.high) == pytest.approx((low, high), abs=0.25 * (high - low))


def test_without_labels_drops_are_decisions_that_change_and_ties_fall_to_the_error(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    found = rank_sources(model, floats, [batch(samples(32, 3, 8, 8, seed=2))], top1)
    drops = [cost.loss.drop for cost in found.costs if cost.loss is not None]
    assert len(drops) == len(found.costs)
    assert drops == sorted(drops, reverse=True)
    assert all(cost.loss.p_value is None for cost in found.costs if cost.loss)
    ties = [
        (a, b)
        for a, b in zip(found.costs, found.costs[1:], strict=False)
        if a.loss and b.loss and a.loss.drop == b.loss.drop
    ]
    assert ties
    assert all(a.share >= b.share for a, b in ties)


def test_a_time_budget_tries_the_least_exact_first(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    (source,) = (source for source in find_sources(model) if source.name == "r2")
    spoil(model, source)
    found = rank_sources(model, floats, [batch(samples(32, 3, 8, 8, seed=2))], seconds=0)
    assert [cost.source for cost in found.costs] == [source]
    assert len(found.left) == len(find_sources(model)) - 1


def test_ranking_is_the_same_again(tmp_path: Path) -> None:
    model, floats = peer(tmp_path)
    data = [batch(samples(32, 3, 8, 8, seed=2))]
    assert rank_sources(model, floats, data, top1).costs == rank_sources(model, floats, data, top1).costs
