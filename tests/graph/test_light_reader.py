"""ONNX files read without onnx, against onnx itself."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net
from onnx import TensorProto, helper, numpy_helper
from small_models import family

from fcdeploy.errors import FcdeployError
from fcdeploy.graph import light_reader, wire
from fcdeploy.graph.light_reader import LightConstant, read_outline
from fcdeploy.graph.model import read_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return family(tmp_path_factory.mktemp("family"))


def dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    shape = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape)


def test_outlines_are_what_onnx_reads(models: dict[str, Path]) -> None:
    for path in models.values():
        graph, outline = onnx.load(path).graph, read_outline(path)
        assert [(n.op, n.name, n.domain) for n in outline.nodes] == [(n.op_type, n.name, n.domain) for n in graph.node]
        assert [n.inputs for n in outline.nodes] == [tuple(n.input) for n in graph.node]
        assert [n.outputs for n in outline.nodes] == [tuple(n.output) for n in graph.node]
        assert outline.outputs == {value.name: dims(value) for value in graph.output}
        weights = {tensor.name: tensor for tensor in graph.initializer}
        assert outline.inputs == {value.name: dims(value) for value in graph.input if value.name not in weights}
        assert {name: constant.dims for name, constant in outline.constants.items()} == {
            name: tuple(tensor.dims) for name, tensor in weights.items()
        }
        for ours, theirs in zip(outline.nodes, graph.node, strict=True):
            expected = {a.name: helper.get_attribute_value(a) for a in theirs.attribute}
            for name, value in ours.attributes.items():
                there = expected[name]
                assert value == (
                    there.decode() if isinstance(there, bytes) else tuple(there) if isinstance(there, list) else there
                )


def test_a_length_of_minus_one_is_any(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [-1, 3]) for name in "xy")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), tmp_path / "m.onnx")
    outline = read_outline(tmp_path / "m.onnx")
    assert (outline.inputs, outline.outputs) == ({"x": (None, 3)}, {"y": (None, 3)})


def test_no_shape_is_not_that_of_a_single_number(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", None), ("s", []))]
    (out,) = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "s"], ["y"])], "g", ends, [out])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    outline = read_outline(tmp_path / "m.onnx")
    assert (outline.inputs, outline.outputs) == ({"x": (), "s": ()}, {"y": ()})
    assert outline.unranked == {"x", "y"}


@pytest.mark.parametrize("raw", [True, False])
def test_integers_of_constants_are_read(tmp_path: Path, raw: bool) -> None:
    values = [0, -1, 3, 2**40]
    tensor = (
        numpy_helper.from_array(np.array(values), "shape")
        if raw
        else helper.make_tensor("shape", TensorProto.INT64, [4], values)
    )
    net = Net()
    net.weights.append(tensor)
    path = net.output(net.op("Reshape", net.input("x", 3, "t", 5), "shape")).save(tmp_path / "m.onnx")
    outline = read_outline(path)
    assert outline.constants["shape"] == LightConstant((4,), tuple(values))
    assert outline.inputs == {"x": ("n", 3, "t", 5)}
    assert outline.opset == 17


@given(st.binary(max_size=200))
def test_no_bytes_bring_it_down(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "m.onnx"
    path.write_bytes(data)
    with suppress(FcdeployError):
        read_outline(path)


def test_cut_files_are_refused_or_read(models: dict[str, Path], tmp_path: Path) -> None:
    whole = models["residual8"].read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 997):
        cut.write_bytes(whole[:length])
        with fails("is not an ONNX model, or is damaged"):
            read_outline(cut)


def one_node(**more: Any) -> onnx.ModelProto:
    """y = Relu(x)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


BOMBS = (
    "nodes", "inputs", "values", "weights", "attributes", "names", "texts", "integers", "axes", "metadata", "sets",
    "functions", "external", "in a function", "in a subgraph",
)  # fmt: skip


def bombs() -> dict[str, onnx.ModelProto]:
    """Models with a thousand parts that are nearly nothing in the file, wherever a message may be repeated."""
    models = {name: one_node() for name in BOMBS}
    for name, add in {
        "nodes": lambda m: m.graph.node.add(), "inputs": lambda m: m.graph.input.add(),
        "values": lambda m: m.graph.value_info.add(), "weights": lambda m: m.graph.initializer.add(),
        "attributes": lambda m: m.graph.node[0].attribute.add(), "names": lambda m: m.graph.node[0].input.append(""),
        "metadata": lambda m: m.metadata_props.add(), "sets": lambda m: m.opset_import.add(),
        "functions": lambda m: m.functions.add(),
        "axes": lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(),
    }.items():  # fmt: skip
        for _ in range(1000):
            add(models[name])
    listed = models["texts"].graph.node[0].attribute.add(name="a", type=8)
    listed.strings.extend([b""] * 4000)
    models["integers"].graph.node[0].attribute.add(name="a", type=7).ints.extend([1] * 8000)
    outside = models["external"].graph.initializer.add(name="w", data_type=1)
    body = models["in a function"].functions.add(name="f", domain="own")
    inner = models["in a subgraph"].graph.node[0].attribute.add(name="body", type=5).g
    for _ in range(1000):
        outside.external_data.add()
        body.node.add()
        inner.node.add()
    return models


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_too_many_parts_is_refused_before_it_is_parsed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MOST_PARTS", 900)
    path = tmp_path / "m.onnx"
    path.write_bytes(bombs()[name].SerializeToString())
    monkeypatch.setattr(onnx, "load", None)
    for read in (read_model, read_outline):
        with fails("has more than 900 nodes, names, attributes and other parts"):
            read(path)


def test_trees_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx writes lists of numbers one by one, and a forest is little else."""
    monkeypatch.setattr(wire, "MOST_PARTS", 900)
    lists = {name: [1] * 500 for name in ("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids")}
    numbers = {name: [1.0] * 500 for name in ("nodes_values", "nodes_hitrates", "target_weights")}
    trees = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **lists, **numbers)
    trees.attribute.append(helper.make_attribute("nodes_modes", ["LEAF"] * 500))
    model = one_node()
    model.graph.node.append(trees)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(read_outline(path).nodes) == 2
    trees.attribute.extend([helper.make_attribute(f"a{number}", [1] * 500) for number in range(10)])
    model.graph.node.append(trees)
    path.write_bytes(model.SerializeToString())
    with fails("in attributes (a number in a list is an eighth, a text a quarter)"):
        read_outline(path)


@pytest.mark.parametrize("dims", [b"\x08\x01" * 65, b"\x0a\x81\x05" + b"\x01" * 641], ids=["one by one", "packed"])
def test_a_tensor_of_too_many_axes_is_refused(dims: bytes) -> None:
    content = dims
    for number in (5, 7):  # initializer, graph
        content = bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content
    with fails("a tensor has more than 64 axes"):
        wire.check_parts(content, "m.onnx")


def test_a_file_that_is_cut_while_it_is_read_is_damaged(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it mapped, the process would end by SIGBUS, and with it a server that looks for changed models."""
    path = tmp_path / "m.onnx"
    shutil.copy(next(iter(models.values())), path)
    read = light_reader._read_model
    monkeypatch.setattr(light_reader, "_read_model", lambda data: (os.truncate(path, 100), read(data))[1])
    with fails("is not an ONNX model, or is damaged"):
        read_outline(path)
