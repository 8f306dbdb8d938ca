"""Weights with several readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from prepare_graphs import apply, graph, normal, op

from fcdeploy.prepare.passes.separate_shared_weights import separate_shared_weights
from fcdeploy.runtime.session import Session


def weights(model: ir.Model) -> list[str | None]:
    return [value.name for node in model.graph for value in node.inputs[1:] if value is not None]


def test_each_layer_gets_its_own_copy() -> None:
    nodes = [op("Conv", "x w b", "c", pads=[1] * 4), op("Conv", "c w b", "d", pads=[1] * 4), op("Conv", "d w", "y")]
    constants = {"w": normal(4, 4, 3, 3), "b": normal(4)}
    model = graph(nodes, {"x": ["n", 4, 5, 5]}, ["y"], constants)
    assert apply(separate_shared_weights, model).count == 3
    assert weights(model) == ["w", "b", "w.copy", "b.copy", "w.copy_2"]
    for name in ("w.copy", "w.copy_2"):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), constants["w"])


def test_the_original_stays_with_a_reader_that_is_no_layer() -> None:
    nodes = [op("Gemm", "x w b", "g"), op("Add", "g b", "a"), op("MatMul", "a w", "y")]
    model = graph(nodes, {"x": ["n", 4]}, ["y"], {"w": normal(4, 4), "b": normal(4)})
    assert apply(separate_shared_weights, model).count == 2
    assert weights(model) == ["w", "b.copy", "b", "w.copy"]


def test_a_weight_read_twice_by_one_node_and_shared_scalars() -> None:
    nodes = [op("Gemm", "x w w", "g"), op("Mul", "g s", "m"), op("Add", "m s", "y")]
    model = graph(nodes, {"x": [4, 4]}, ["y"], {"w": normal(4, 4), "s": np.float32(2)})
    assert apply(separate_shared_weights, model).count == 1
    assert weights(model) == ["w", "w.copy", "s", "s"]


def test_a_weight_that_is_an_output_of_the_graph() -> None:
    model = graph([op("MatMul", "x w", "y")], {"x": ["n", 4]}, {"y": ["n", 4], "w": [4, 4]}, {"w": normal(4, 4)})
    assert apply(separate_shared_weights, model).count == 1


def test_a_weight_outside_the_file_is_not_copied(tmp_path: Path) -> None:
    nodes = [op("MatMul", "x w", "m"), op("MatMul", "m w", "y")]
    made = graph(nodes, {"x": ["n", 16]}, ["y"], {"w": normal(16, 16)})
    ir.save(made, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    model = ir.load(tmp_path / "m.onnx")
    assert separate_shared_weights(model).count == 1
    ir.save(model, tmp_path / "copied.onnx")
    x = {"x": normal(2, 16)}
    expected, found = (Session(tmp_path / name).run(x)[0] for name in ("m.onnx", "copied.onnx"))
    np.testing.assert_array_equal(found, expected)
    tensor = model.graph.initializers["w.copy"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert Path(tensor.path) == tmp_path / "m.data"
