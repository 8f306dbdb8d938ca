"""Models in two halves: every cut against a search for paths around it, bytes by hand, the pair against the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_models
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, quantize_net, random_data

from fcdeploy import cli
from fcdeploy.commands import split as split_module
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.split import split
from fcdeploy.files import hash_file
from fcdeploy.transform.cut import KEY, Cuts, fix_shapes

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    plain = small_models.residual(folder / "plain.onnx")
    byte = small_models.quantized(plain, small_models.samples(32, 3, 8, 8), folder / "byte.onnx")
    return {"plain": plain, "byte": byte}


def run(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, feeds), strict=True))


def cut(model: Path, folder: Path, **options: Any) -> tuple[dict[str, Any], Path, Path]:
    values = split(model, output=folder / "half.onnx", **options).values
    return values, folder / "half.first.onnx", folder / "half.second.onnx"


@pytest.mark.parametrize("kind", ["plain", "byte"])
@pytest.mark.parametrize("node", ["conv1", "add", "conv3", "pool"])
def test_the_pair_is_the_whole(kind: str, node: str, models: dict[str, Path], tmp_path: Path) -> None:
    name = {row["node"]: row["tensor"] for row in split(models[kind]).values["cuts"]}
    values, first, second = cut(models[kind], tmp_path, at=node)
    assert values["max_rel"] <= (0 if kind == "byte" else 1e-6)  # a shortcut that is fused with Conv rounds once less
    assert values["cut"]["tensor"] == name[node]
    x = small_models.samples(5, 3, 8, 8, seed=3)
    crossing = run(first, {"x": x})
    assert list(crossing) == [name[node]]
    assert crossing[name[node]].dtype == (np.uint8 if kind == "byte" else np.float32)
    assert crossing[name[node]][0].nbytes == values["cut"]["bytes"]
    whole = run(models[kind], {"x": x})
    assert run(second, crossing).keys() == whole.keys()
    np.testing.assert_allclose(
        run(second, crossing)["logits"], whole["logits"], atol=1e-6 * np.abs(whole["logits"]).max()
    )
    for half in (first, second):
        onnx.checker.check_model(onnx.load(half), full_check=True)


def test_bytes_by_hand(models: dict[str, Path]) -> None:
    """x 3x8x8 floats; conv1 and relu1 8x8x8; conv2 as well, its shortcut waits; conv3 and relu3 16x3x3."""
    rows = split(models["plain"]).values["cuts"]
    assert [row["node"] for row in rows] == ["conv1", "add", "conv3", "pool"]
    weights = [4 * (8 * 27 + 8), 4 * (8 * 72 + 8), 4 * (16 * 72 + 16), 0]
    assert [row["weights"] for row in rows] == list(np.cumsum(weights))
    image, wide, small = 4 * 3 * 64, 4 * 8 * 64, 4 * 16 * 9
    assert max(image + wide, 2 * wide, wide + small, 2 * small) == 2 * wide
    assert [row["activations"] for row in rows] == [2 * wide, 3 * wide, 3 * wide, 3 * wide]  # conv2, add and relu1
    assert [row["macs"] for row in rows] == list(np.cumsum([8 * 64 * 27, 8 * 64 * 72, 16 * 9 * 72, 0]))
    assert [row["bytes"] for row in rows] == [wide, wide, small, 4 * 16]
    assert [row["memory"] for row in rows] == [row["weights"] + row["activations"] for row in rows]


@pytest.mark.parametrize("kind", ["plain", "byte"])
def test_inspect_counts_the_same(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    values, first, _ = cut(models[kind], tmp_path, at="add")
    counted = inspect(first).values
    assert counted["weight_bytes"] == values["cut"]["weights"]
    assert counted["peak_activation_bytes"] == values["cut"]["activations"]
    assert counted["macs"] == values["cut"]["macs"]


def test_the_latest_cut_that_fits(models: dict[str, Path], tmp_path: Path) -> None:
    rows = split(models["plain"]).values["cuts"]
    limit = rows[1]["memory"]
    for memory, node in ((limit, "add"), (limit - 1, "conv1"), (10**9, "pool")):
        values, _, _ = cut(models["plain"], tmp_path, memory=memory, force=True)
        assert values["cut"]["node"] == node
    for macs, node in ((rows[2]["macs"] - 1, "add"), (rows[2]["macs"], "pool")):
        values, _, _ = cut(models["plain"], tmp_path, macs=macs, force=True)
        assert values["cut"]["node"] == node
    with fails(
        "no first half stays within 100 bytes: the smallest, cut behind 'conv1', takes 4,992, 896 of weights and "
        "4,096 of activations",
        "--at conv1",
    ):
        cut(models["plain"], tmp_path, memory=100, force=True)
    with fails("no first half stays within 7 multiply-accumulates", "--at conv1"):
        cut(models["plain"], tmp_path, macs=7, force=True)


def test_scale_and_zero_point_travel_in_both_files(models: dict[str, Path], tmp_path: Path) -> None:
    values, first, second = cut(models["byte"], tmp_path, at="add")
    whole = onnx.load(models["byte"])
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in whole.graph.initializer}
    quantizes = next(node for node in whole.graph.node if node.output[0] == values["cut"]["tensor"])
    assert quantizes.op_type == "QuantizeLinear"
    scale, zero = float(stored[quantizes.input[1]]), int(stored[quantizes.input[2]])
    for number, half in enumerate((first, second), start=1):
        kept = {item.key: item.value for item in onnx.load(half).metadata_props}
        assert json.loads(kept[KEY]) == {
            "half": number, "of": hash_file(models["byte"]), "tensor": values["cut"]["tensor"], "dtype": "uint8",
            "scale": scale, "zero_point": zero,
        }  # fmt: skip
    assert (values["cut"]["scale"], values["cut"]["zero_point"]) == (scale, zero)


def test_our_own_int8_models_send_bytes(tmp_path: Path) -> None:
    net = Net(opset=13)
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="one"))
    y = net.op("Add", net.conv(x, 8, 8, name="two"), x, name="add")
    y = net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2], name="pool")
    net.output(net.dense(net.op("Flatten", y), 128, 5, name="last"))
    line = quantize_net(net, random_data(0, 32, x=(3, 8, 8)))
    ir.save(line.int8, tmp_path / "int8.onnx")
    rows = split(tmp_path / "int8.onnx").values["cuts"]
    assert [row["dtype"] for row in rows] == ["uint8"] * len(rows)
    for row in rows:
        values, first, second = cut(tmp_path / "int8.onnx", tmp_path, at=row["node"], force=True)
        assert values["equal"] == 1
        assert values["cut"]["scale"] > 0
        whole, pair = run(tmp_path / "int8.onnx", line.data), run(second, run(first, line.data))
        np.testing.assert_array_equal(whole["last_out"], pair["last_out"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9))
def test_cuts_are_what_every_path_goes_through(edges: list[tuple[int, int]]) -> None:
    """Random networks of Add: a tensor is a cut exactly where no path from input to output leads around it."""
    net = Net()
    values = [net.input("x", 4)]
    reads: dict[str, set[str]] = {}
    for one, other in edges:
        a, b = values[one % len(values)], values[other % len(values)]
        values.append(net.op("Add", a, b))
        reads[values[-1]] = {a, b}
    end = values[-1]
    model = ir.from_proto(net.output(end).model())

    def reached_without(cut: str) -> bool:
        todo, seen = [end], set()
        while todo:
            value = todo.pop()
            if value == "x":
                return True
            if value != cut and value not in seen:
                seen.add(value)
                todo += reads[value]
        return False

    expected = [value for value in values[1:-1] if not reached_without(value)]
    assert [cut.tensor for cut in Cuts(fix_shapes(model, [])).all()] == expected


def test_what_makes_a_cut_impossible_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    hint = "cuts there are: 'conv1', 'add', 'conv3', 'pool'"
    with fails("cannot be cut behind 'conv2': 'r1' would have to cross as well, which Add 'add' reads", hint):
        cut(models["plain"], tmp_path, at="conv2")
    with fails("cannot be cut behind 'dense': everything would be in the first half", hint):
        cut(models["plain"], tmp_path, at="dense")
    with fails("no node of the model is called 'conv9'", hint):
        cut(models["plain"], tmp_path, at="conv9")
    net = Net()
    x = net.dense(net.input("x", 4), 4, 4, name="early")
    y = net.dense(x, 4, 4, name="middle")
    two = net.output(x, net.op("Add", net.dense(y, 4, 4), net.input("z", 4), name="late")).save(tmp_path / "two.onnx")
    with fails("cannot be cut: behind 'early' 'early_out' is an output of the model itself", "fcdeploy inspect"):
        split(two)
    one = Net()
    with fails("cannot be cut"):
        split(one.output(one.dense(one.input("x", 4), 4, 4)).save(tmp_path / "one.onnx"))


def test_a_pair_that_differs_is_not_written(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = split_module.split_model

    def wrong(*arguments: Any) -> tuple[ir.Model, ir.Model]:
        first, second = honest(*arguments)
        value = second.graph.initializers["b4"]
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.1), name="b4")
        return first, second

    monkeypatch.setattr(split_module, "split_model", wrong)
    with fails("the pair of halves differs by", "--data DATA"):
        cut(models["plain"], tmp_path, at="add")
    assert list(tmp_path.iterdir()) == []


def test_mistakes(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "half.onnx"
    with fails("takes one of --at, --memory, --macs, --device, and -o, here it has --at and --macs and -o"):
        split(models["plain"], output=out, at="add", macs=3)
    with fails("here it has -o", "--memory 256KB"):
        split(models["plain"], output=out)
    with fails("here it has --at"):
        split(models["plain"], at="add")
    taken = tmp_path / "half.second.onnx"
    taken.write_bytes(models["plain"].read_bytes())
    with fails("is also an input"):
        split(taken, output=out, at="add", force=True)
    words = ["transform", "split", str(models["byte"]), "--memory", "8KB", "-o", str(out)]
    assert cli.main(words) == 2
    assert f"output {str(taken)!r} exists" in capsys.readouterr().err
    assert not (tmp_path / "half.first.onnx").exists()
    assert cli.main([*words, "--force"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3].startswith("cut behind 'pool': 'f")
    assert "bytes of uint8 a sample, scale 0." in shown[-3]
    assert shown[-1].startswith("run one behind the other: equal bit for bit on 7 samples drawn with a seed -> ")
    assert cli.main([*words, "--force", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "fcdeploy.transform-split/1"
    assert printed["cut"]["memory"] <= 8192


def test_what_a_loop_gives_its_body_does_not_cross(tmp_path: Path) -> None:
    """Cut behind each layer: the body's own inputs are made by the Loop."""
    helper, number = onnx.helper, onnx.numpy_helper.from_array
    value, normal = helper.make_tensor_value_info, np.random.default_rng(0).normal
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["h", "w"], ["again"])], "body",
        [value("step", 7, []), value("go", 9, []), value("h", 1, ["n", 4])],
        [value("on", 9, []), value("again", 1, ["n", 4])], [number(normal(size=(4, 4)).astype(np.float32), "w")],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "before"),
        helper.make_node("Loop", ["three", "true", "a"], ["b"], "loop", body=body),
        helper.make_node("MatMul", ["b", "last"], ["y"], "behind"),
    ]
    constants = {
        "first": normal(size=(4, 4)),
        "last": normal(size=(4, 4)),
        "three": np.int64(3),
        "true": np.bool_(True),
    }
    initializers = [number(np.asarray(x, np.float32 if np.ndim(x) else None), name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "looped", [value("x", 1, ["n", 4])], [value("y", 1, ["n", 4])], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    assert [row["node"] for row in split(tmp_path / "m.onnx").values["cuts"]] == ["before", "loop"]
    cut(tmp_path / "m.onnx", tmp_path, at="loop")
