"""What the kernels write on this CPU against exact arithmetic; and that the check can fail.

Every network's kernels are the real ones.  On a CPU that adds pairs of products in 16 bits a model with full weights
must fail; elsewhere it must fail as soon as the reference saturates instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_models
import torch
from conftest import fails, run_command
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import Line, Net, quantize_net, random_data
from onnx import TensorProto as Tp
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.arithmetic.kernels import avx2, reference
from fcdeploy.arithmetic.kernels.reference import QuantizedArray
from fcdeploy.arithmetic.windows import Window
from fcdeploy.commands.inspect import inspect
from fcdeploy.proof import exact
from fcdeploy.proof.exact import Exactness, LayerExactness, check_exactness
from fcdeploy.proof.operands import RecomputedNode, SkippedNode, find_integer_nodes
from fcdeploy.reporting.exactness import describe_exactness
from fcdeploy.runtime.session import Session

IMAGE, SERIES, VOLUME, FLAT, ROWS = (3, 12, 12), (8, 20), (3, 6, 6, 6), (40,), (6, 24)


def saturates_here() -> bool:
    """One pair, 255 * 127 twice: 64,770, or 32,767 where it is added in 16 bits."""
    graph = oh.make_graph(
        [oh.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "one",
        [oh.make_tensor_value_info("a", Tp.UINT8, (1, 2))],
        [oh.make_tensor_value_info("y", Tp.INT32, None)],
        [nh.from_array(np.full((2, 1), 127, np.int8), "w")],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8)
    (answer,) = Session(model.SerializeToString()).run({"a": np.full((1, 2), 255, np.uint8)})
    return bool(answer.item() == 32767)


def compare(line: Line, samples: int = 4, budget: int = exact.BUDGET) -> Exactness:
    return check_exactness(line.int8, [{name: array[:samples] for name, array in line.data.items()}], budget=budget)


def images(net: Net) -> str:
    """Three channels, which become four, strides, groups and depthwise layers, clips of every kind."""
    x = net.op("Relu", net.conv(net.input("x", *IMAGE), 3, 8, name="first"))
    six = [net.constant(0.0), net.constant(6.0)]
    x = net.op("Clip", net.conv(x, 8, 8, group=8, name="depthwise"), *six)
    x = net.conv(x, 8, 16, (1, 1), name="pointwise", pad=False)
    x = net.op("Relu", net.conv(x, 16, 16, group=4, name="grouped", strides=[2, 2]))
    x = net.conv(x, 16, 16, (3, 2), name="odd", pad=False, bias=False, dilations=[2, 1], pads=[1, 0, 2, 1])
    return net.conv(x, 16, 8, name="same", pad=False, auto_pad="SAME_LOWER", strides=[2, 1])


def series(net: Net) -> str:
    x = net.op("Relu", net.conv(net.input("x", *SERIES), 8, 16, (5,), name="first"))
    return net.conv(net.conv(x, 16, 16, (3,), group=16, name="depthwise"), 16, 8, (1,), pad=False, name="pointwise")


def volumes(net: Net) -> str:
    x = net.op("Relu", net.conv(net.input("x", *VOLUME), 3, 8, (3, 3, 3), name="first"))
    return net.conv(x, 8, 6, (1, 3, 3), name="second", strides=[1, 2, 1])


def dense(net: Net) -> str:
    x = net.op("Relu", net.dense(net.input("x", *FLAT), 40, 33, name="first", transB=1))
    return net.dense(net.op("Relu", net.dense(x, 33, 24, bias=False, name="second")), 24, 10, name="last")


def rows(net: Net) -> str:
    """A MatMul on three axes, its bias a constant that is added."""
    x = net.op("MatMul", net.input("x", *ROWS), net.constant(net.normal(24, 16, size=0.2)), name="first")
    x = net.op("Relu", net.op("Add", x, net.constant(net.normal(16)), name="bias"))
    return net.op("MatMul", x, net.constant(net.normal(16, 8, size=0.3)), name="second")


def between(net: Net) -> str:
    """Everything without weights."""
    a = net.conv(net.input("x", *IMAGE), 3, 8, name="a")
    b = net.op("LeakyRelu", net.conv(a, 8, 8, name="b"), name="leaky", alpha=0.2)
    x = net.op("Mul", net.op("Add", a, b, name="add"), net.op("Sigmoid", b, name="sigmoid"), name="mul")
    big = net.op("Mul", b, net.constant(7.0), name="scaled")
    x = net.conv(net.op("Concat", x, big, name="concat", axis=1), 16, 8, name="c")
    x = net.op("AveragePool", x, name="average", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    x = net.conv(x, 8, 8, name="d")
    x = net.op("AveragePool", x, name="all", kernel_shape=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1)
    x = net.op("GlobalAveragePool", net.conv(x, 8, 8, name="e"), name="mean")
    return net.dense(net.op("Flatten", x), 8, 4, name="last")


NETWORKS: dict[str, tuple[Callable[[Net], str], tuple[int, ...], set[str]]] = {
    "images": (images, IMAGE, {"first", "depthwise", "pointwise", "grouped", "odd", "same"}),
    "series": (series, SERIES, {"first", "depthwise", "pointwise"}),
    "volumes": (volumes, VOLUME, {"first", "second"}),
    "dense": (dense, FLAT, {"first", "second", "last"}),
    "rows": (rows, ROWS, {"first", "second"}),
    "between": (between, IMAGE, {"add", "leaky", "mul", "sigmoid", "concat", "average", "all", "mean", "last"}),
}


def line_of(name: str, seed: int = 0, **options: Any) -> Line:
    write, shape, _ = NETWORKS[name]
    net = Net(seed)
    return quantize_net(net.output(write(net)), random_data(seed, 24, x=shape), **options)


@pytest.fixture(scope="module")
def lines() -> dict[str, Line]:
    return {name: line_of(name) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_kernel_is_exact_here(name: str, seed: int) -> None:
    line = line_of(name, seed)
    found = compare(line)
    assert found.passed, describe_exactness(found)
    assert found.undisturbed
    assert not found.skipped
    assert {row.node for row in found.rows} >= NETWORKS[name][2] - {"bias"}
    assert all(row.elements == row.of > 0 and row.levels <= 1 for row in found.rows)
    assert sum(row.floats for row in found.rows) == (name in ("dense", "between", "rows"))


@pytest.mark.parametrize("name", NETWORKS)
def test_another_scale_in_the_reference_is_caught(name: str, lines: dict[str, Line], monkeypatch: Any) -> None:
    """Each layer in turn: 2 % more of its output's scale, or for floats of its input's."""
    line = lines[name]
    honest = list(find_integer_nodes(line.int8))
    for wrong in honest:
        assert isinstance(wrong, RecomputedNode)
        if wrong.written.scale is not None:
            other = replace(wrong, written=replace(wrong.written, scale=wrong.written.scale * np.float32(1.02)))
        else:
            first = replace(wrong.inputs[0], scale=wrong.inputs[0].scale * np.float32(1.02))
            other = replace(wrong, inputs=(first, *wrong.inputs[1:]))
        monkeypatch.setattr(
            exact, "find_integer_nodes", lambda _, t=wrong, o=other: [o if each is t else each for each in honest]
        )
        found = compare(line)
        assert not found.passed
        assert [row.node for row in found.rows if not row.passed] == [wrong.node.name]
        assert found.rows[0].node == wrong.node.name


@pytest.mark.parametrize(("ceil", "count"), [(False, True), (True, False), (True, True)])
def test_pools_are_those_of_torch(ceil: bool, count: bool) -> None:
    """Whose padding is the same on both sides, and whose last windows may reach beyond it."""
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 11)).astype(np.uint8)
    pooled = torch.nn.AvgPool2d((3, 2), (2, 3), (1, 1), ceil_mode=ceil, count_include_pad=count)
    wanted = pooled(torch.from_numpy(x.astype(np.float32) - 128) * 0.5).numpy()
    operand = QuantizedArray(x, np.float32(0.5), 128)
    found = reference.average(operand, Window((3, 2), (2, 3), (1, 1), (1, 1), (1, 1)), count_padding=count, ceil=ceil)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_means_of_windows_one_by_one(data: st.DataObject) -> None:
    """Dilated, padded differently on each side, or beyond the image: what each window holds is looked up by its indices."""
    length = data.draw(st.integers(3, 9))
    kernel, stride, dilation = (data.draw(st.integers(1, 3)) for _ in range(3))
    span = dilation * (kernel - 1) + 1
    pads = data.draw(st.tuples(*[st.integers(0, span - 1)] * 2))
    count, ceil = data.draw(st.booleans()), data.draw(st.booleans())
    padded = length + sum(pads)
    assume(padded >= span)
    x = np.arange(1, length + 1, dtype=np.uint8) ** 2
    begins = [at - pads[0] for at in range(0, padded, stride) if at + span <= padded]
    if ceil and (padded - span) % stride and (more := begins[-1] + stride) < length:
        begins.append(more)
    wanted = []
    for begin in begins:
        places = [begin + dilation * k for k in range(kernel)]
        counted = [at for at in places if 0 <= at < length or (count and -pads[0] <= at < length + pads[1])]
        assume(counted)
        wanted.append(sum(float(x[at]) for at in counted if 0 <= at < length) / len(counted))
    window = Window((kernel,), (stride,), pads[:1], pads[1:], (dilation,))
    operand = QuantizedArray(x[None, None], np.float32(1), 0)
    found = reference.average(operand, window, count_padding=count, ceil=ceil)
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-6)


def of_two_bytes(op: str, scales: tuple[float, float], inputs: int = 1, **attributes: Any) -> ir.Model:
    """An operator between bytes as another tool writes it, with one scale in front of it and one behind."""
    node, value = oh.make_node, oh.make_tensor_value_info
    names = [f"x{index}" for index in range(inputs)]
    nodes = [node("QuantizeLinear", [x, "s", "z"], [f"{x}q"], f"{x}q") for x in names]
    nodes += [node("DequantizeLinear", [f"{x}q", "s", "z"], [f"{x}d"], f"{x}d") for x in names]
    nodes += [
        node(op, [f"{x}d" for x in names], ["y"], "op", **attributes), node("QuantizeLinear", ["y", "t", "z"], ["yq"], "yq"),
        node("DequantizeLinear", ["yq", "t", "z"], ["out"], "out"),
    ]  # fmt: skip
    weights = {"s": np.float32(scales[0]), "t": np.float32(scales[1]), "z": np.array(128, np.uint8)}
    graph = oh.make_graph(
        nodes, "two", [value(x, Tp.FLOAT, ["n", 4, 9, 9]) for x in names],
        [value("out", Tp.FLOAT, None)], [nh.from_array(np.asarray(v), n) for n, v in weights.items()],
    )  # fmt: skip
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8))


def test_a_pool_is_compared_with_what_onnx_says() -> None:
    """onnxruntime's kernel divides the last windows by the whole of them, where ceil_mode meets counted padding."""
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 9)).astype(np.float32)
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
    model = of_two_bytes("AveragePool", (0.03, 0.03), count_include_pad=1, **attributes)
    found = exact.check_exactness(model, [{"x0": x}])
    assert not found.passed and "AveragePool 'op'" in describe_exactness(found)
    model = of_two_bytes("AveragePool", (0.03, 0.03), count_include_pad=0, **attributes)
    assert exact.check_exactness(model, [{"x0": x}]).passed


def test_halves_are_no_fault_of_a_kernel() -> None:
    """A sum whose scale is twice what it reads: every odd one lies half-way."""
    random = np.random.default_rng(0)
    x = {f"x{i}": random.normal(size=(2, 4, 9, 9)).astype(np.float32) for i in range(2)}
    (row,) = exact.check_exactness(of_two_bytes("Add", (0.0313, 0.0626), 2), [x]).rows
    assert row.passed and 0 < row.halves == row.differ
    wrong = replace(row, differ=row.elements // 3, levels=1)
    assert not wrong.passed and replace(wrong, halves=wrong.differ).passed
    assert (wrong + wrong).halves == 2 * row.halves


def full_weights(out: int = 16) -> Line:
    """Both layers have weights of 127 alone, next to each other, and inputs far above zero."""
    net = Net(0)
    x = net.op("Relu", net.op("Conv", net.input("x", 8, 6, 6), net.constant(np.ones((out, 8, 3, 3))), name="conv"))
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"))
    net.output(net.op("Gemm", x, net.constant(np.ones((out, 4))), name="dense"))
    data = {"x": np.random.default_rng(0).uniform(0.5, 1, (24, 8, 6, 6)).astype(np.float32)}
    return quantize_net(net, data, target="x86-vnni")


def test_saturation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    line = full_weights()
    weights = [value.const_value.numpy() for value in line.int8.graph.initializers.values() if value.const_value]
    assert sum(array.size > 30 and bool((array == 127).all()) for array in weights) == 2
    found = compare(line)
    honest = avx2.dense_sums
    if not saturates_here():
        assert found.passed
        monkeypatch.setattr(avx2, "dense_sums", lambda *a, exact, **k: honest(*a, exact=not exact, **k))
        found = compare(line)
    assert not found.passed
    assert {row.node for row in found.rows if not row.passed} == {"conv", "dense"}
    assert found.rows[0].levels > 20
    assert found.rows[0].share > 0.5
    assert describe_exactness(found).startswith("not exact: 2 of 3 layers differ from 32-bit sums, ")


def test_the_bound_keeps_full_weights_from_saturating() -> None:
    assert compare(quantize_net(full_weights().float_model, full_weights().data, target="portable")).passed


def test_a_budget_draws_positions_and_the_same_ones_again(lines: dict[str, Line]) -> None:
    whole, some = compare(lines["images"]), compare(lines["images"], budget=20_000)
    sizes = {row.node: row for row in some.rows}
    first = sizes["first"]  # 8 x 4 x 3 x 3: a channel of zeros was added
    assert first.of == 4 * 8 * 12 * 12
    assert first.elements == 8 * (20_000 // (8 * 4 * 9))
    assert sizes["depthwise"].elements == 8 * (20_000 // (8 * 9))
    assert some.passed
    assert some == compare(lines["images"], budget=20_000)
    assert (
        f"{some.total['elements']:,} elements, drawn from {whole.total['elements']:,}, in 6 layers"
        in describe_exactness(some)
    )
    assert {row.node: row.of for row in whole.rows} == {row.node: row.of for row in some.rows}
    tiny = {row.node: row for row in compare(lines["dense"], budget=100).rows}
    assert tiny["first"].elements == 100 // 40  # one position, and not even all of its channels
    assert tiny["first"].passed


def test_what_is_drawn_is_compared_at_its_own_place(lines: dict[str, Line], monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong element among those drawn is found, wherever it lies."""
    line, honest = lines["images"], avx2.requantize_sums
    monkeypatch.setattr(avx2, "requantize_sums", lambda sums, *a, **k: honest(sums[::-1], *a, **k))
    found = compare(line, budget=20_000)
    assert not any(row.passed for row in found.rows)


def test_batches_add(lines: dict[str, Line]) -> None:
    data = lines["between"].data["x"]
    one = check_exactness(lines["between"].int8, [{"x": data[:4]}])
    two = check_exactness(lines["between"].int8, [{"x": data[:1]}, {"x": data[1:4]}])
    assert one.total["elements"] == two.total["elements"]
    assert one.total["differ"] == two.total["differ"]


def test_the_model_is_left_as_it_was(lines: dict[str, Line]) -> None:
    before = ir.to_proto(lines["between"].int8).SerializeToString()
    compare(lines["between"])
    assert ir.to_proto(lines["between"].int8).SerializeToString() == before


def row(elements: int, differ: int, levels: float, *, floats: bool = False) -> LayerExactness:
    return LayerExactness("n", "Conv", elements, elements, differ, levels, floats)


def test_what_passes() -> None:
    """A level on one in a thousand, or on a single element of a small layer; of floats, nothing."""
    assert row(10_000, 10, 1).passed
    assert row(40, 1, 1).passed
    assert row(40, 0, 0, floats=True).passed
    for bad in (row(10_000, 11, 1), row(10_000, 1, 2), row(40, 2, 1), row(10_000, 1, 0.1, floats=True)):
        assert not bad.passed
    assert (row(10, 1, 1) + row(30, 2, 5)) == row(40, 3, 5)
    skipped = (SkippedNode("s", "Softmax", "no reference"),)
    assert not Exactness((), skipped, True).passed
    assert describe_exactness(Exactness((), skipped, True)) == "not proven: none of 1 node on bytes was compared"
    assert Exactness((), (), True).passed
    assert not Exactness((row(10, 0, 0),), (), False).passed
    assert describe_exactness(Exactness((row(10, 0, 0),), (), False)).startswith(
        "not proven: looking at the integers changed"
    )


def test_what_cannot_be_recomputed_is_said() -> None:
    net = Net(0)
    x = net.conv(net.input("x", *IMAGE), 3, 8, name="conv")
    x = net.op("Where", net.constant(net.normal(8, 1, 1) > 0, bool), x, net.conv(x, 8, 8, name="other"), name="where")
    line = quantize_net(net.output(net.conv(x, 8, 4, name="last")), random_data(0, 24, x=IMAGE))
    found = compare(line)
    assert [(each.node, each.why) for each in found.skipped] == [("where", "no reference for this operator")]
    assert {each.node for each in found.rows} == {"conv", "other", "last"}
    assert found.passed


def test_integer_operators_of_the_file_are_not_compared(tmp_path: Path) -> None:
    node = oh.make_node("MatMulInteger", ["a", "w"], ["y"], "product")
    graph = oh.make_graph(
        [node],
        "one",
        [oh.make_tensor_value_info("a", Tp.UINT8, ("n", 2))],
        [oh.make_tensor_value_info("y", Tp.INT32, ("n", 1))],
        [nh.from_array(np.full((2, 1), 3, np.int8), "w")],
    )
    onnx.save(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    np.savez(tmp_path / "a.npz", a=np.ones((4, 2), np.uint8))
    with fails("number of samples 0 is not positive, expected 1 or more"):
        inspect(tmp_path / "m.onnx", exact=True, data=tmp_path / "a.npz", samples=0)
    found = inspect(tmp_path / "m.onnx", exact=True, data=tmp_path / "a.npz")
    assert not found.passed
    assert found.lines[-1] == "not proven: none of 1 node on bytes was compared"
    assert found.tables[-1].rows == (("product", "MatMulInteger", "an integer operator of the file itself"),)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with another tool's model residual8.onnx, its float.onnx, and samples."""
    monkeypatch.chdir(tmp_path)
    model = small_models.residual(tmp_path / "float.onnx")
    data = small_models.samples(24, 3, 8, 8)
    small_models.quantized(model, data, tmp_path / "other.onnx")
    np.savez(tmp_path / "x.npz", x=data)
    return tmp_path


@pytest.mark.usefixtures("files")
def test_inspect_another_tools_model(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("inspect", "other.onnx", "--exact", "--data", "x.npz")
    code, out, err = run_command(capsys, *line, "--json", "--samples", "3")
    said = json.loads(out)
    assert code == 0, err
    assert said["exact_passed"] is True
    assert {row["node"] for row in said["exact"]} >= {"conv1", "conv2", "conv3", "add", "pool"}
    assert set(said["exact"][0]) == {"node", "op", "elements", "of", "differ", "share", "levels", "halves"}
    assert next(row for row in said["exact"] if row["node"] == "conv1")["elements"] == 3 * 8 * 8 * 8
    code, out, _ = run_command(capsys, *line)
    assert code == 0
    assert out.splitlines()[-1].startswith("exact: ")
    assert "2,048" in out  # conv1 on the 4 samples that are taken by default: 4 x 8 x 8 x 8


@pytest.mark.usefixtures("files")
def test_inspect_exits_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = avx2.requantize_sums
    monkeypatch.setattr(avx2, "requantize_sums", lambda sums, *a, **k: honest(sums + 10_000, *a, **k))
    code, out, _ = run_command(capsys, "inspect", "other.onnx", "--exact", "--data", "x.npz", "--json")
    said = json.loads(out)
    assert code == 1
    assert said["exact_passed"] is False
    order = [row["levels"] for row in said["exact"]]
    assert order[0] == max(order) > 1
    code, out, _ = run_command(capsys, "inspect", "other.onnx", "--exact", "--data", "x.npz")
    assert code == 1
    assert out.splitlines()[-1].startswith("not exact: ")


@pytest.mark.usefixtures("files")
def test_mistakes() -> None:
    with fails("'float.onnx' is not quantized: --exact", "fcdeploy quantize"):
        inspect("float.onnx", exact=True, data="x.npz")
    with fails("--exact runs the model on samples, and there is no --data", "--exact --data DATA"):
        inspect("other.onnx", exact=True)
    with fails("--data is for --exact alone", "--exact --data DATA"):
        inspect("other.onnx", data="x.npz")


@pytest.mark.usefixtures("files")
def test_quantize_for_every_cpu_counts_its_ties(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("quantize", "float.onnx", "--int8", "--costs", "none", "--data", "x.npz", "-o", "int8.onnx", "--force")
    code, out, _ = run_command(capsys, *line, "--target", "portable", "--json")
    said = json.loads(out)
    assert code == 0
    assert set(said["ties"]) == {"elements", "differ", "levels", "halves"}
    assert said["ties"]["levels"] <= 1
    convolutions = 2 * (2 * 8 * 8 * 8 + 16 * 3 * 3)
    assert said["ties"]["elements"] == convolutions + 2 * (8 * 8 * 8 + 16 + small_models.CLASSES)
    assert not [text for text in said["warnings"] if not text.startswith("judged on 8 samples alone")]
    _, out, _ = run_command(capsys, *line, "--target", "portable")
    assert out.splitlines()[-3].startswith("exact: ")
    assert out.splitlines()[-2] == "the same bytes on every CPU"
    assert said["one_answer"] == {"near_halves": [], "rounded_floats": [], "float_outputs": []}
    assert out.splitlines()[-1].startswith("next: ")
    assert "ties" not in json.loads(run_command(capsys, *line, "--target", "x86-avx2", "--json")[1])
    code, _, err = run_command(
        capsys, "calibrate", "float.onnx", "--data", "x.npz", "-o", "bare.calib", "--no-keep-samples"
    )
    assert code == 0, err
    bare = ("quantize", "float.onnx", "--int8", "--costs", "none", "--calibration", "bare.calib", "-o", "int8.onnx")
    assert json.loads(run_command(capsys, *bare, "--force", "--target", "portable", "--json")[1])["ties"] is None
    honest = avx2.requantize_sums
    monkeypatch.setattr(avx2, "requantize_sums", lambda sums, *a, **k: honest(sums + 10_000, *a, **k))
    code, _, err = run_command(capsys, *line, "--target", "portable")
    assert code == 0
    assert "warning: not exact: " in err


@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_rounds_what_the_definition_gives(axis: int) -> None:
    """With a scale of 1/255, which other tools write, half of the kernel's results are a level low: its divisor is 254."""
    net = Net(0)
    x = net.op("Softmax", net.conv(net.input("x", *IMAGE), 3, 8, name="conv"), name="softmax", axis=axis)
    line = quantize_net(net.output(net.conv(x, 8, 4, name="last")), random_data(0, 24, x=IMAGE))
    found = compare(line)
    assert not found.skipped
    assert found.passed
    scale = next(
        v
        for name, v in line.int8.graph.initializers.items()
        if v.const_value is not None and 0.0039 < _first(v) < 0.00393
    )
    scale.const_value = ir.tensor(np.float32(1 / 255), name=scale.name)
    spoilt = compare(line)
    row = next(each for each in spoilt.rows if each.node == "softmax")
    assert (row.passed, row.levels) == (False, 1)


def _first(value: ir.Value) -> float:
    array = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype == np.float32 else 0.0
