"""Dense layers in one form, and the fact about onnxruntime that the form rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.graph.edit import Changes
from fcdeploy.prepare.passes.form_gemm import form_gemm
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.session import LoadOptions, Session


def prepared(model: ir.Model) -> Changes:
    changes = prepare(model)
    return Changes("prepare", sum(item.count for item in changes))


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), (1, 1), ()])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_matmul_and_add_become_gemm(shape: tuple[int, ...], swapped: bool, opset: int) -> None:
    nodes = [op("MatMul", "x w", "m"), op("Add", "b m" if swapped else "m b", "y")]
    constants = {"w": normal(7, 5), "b": np.asarray(normal(*shape), np.float32)}
    model = graph(nodes, {"x": ["n", 7]}, ["y"], constants, opset=opset)
    apply(prepared, model)
    (node,) = model.graph
    assert node.op_type == "Gemm"
    assert [value.shape.numpy() for value in node.inputs[1:] if value and value.shape] == [(7, 5), (5,)]


@settings(max_examples=25, deadline=None)
@given(
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25, 0.0]),
    transposed=st.booleans(),
    bias=st.sampled_from([None, (5,), (1, 5), (1,), ()]),
)
def test_gemm_in_one_form(alpha: float, beta: float, transposed: bool, bias: tuple[int, ...] | None) -> None:
    constants = {"w": normal(5, 7) if transposed else normal(7, 5)}
    if bias is not None:
        constants["b"] = np.asarray(normal(*bias), np.float32)
    inputs = "x w" if bias is None else "x w b"
    node = op("Gemm", inputs, "y", alpha=alpha, beta=beta, transB=int(transposed))
    model = graph([node], {"x": ["n", 7]}, ["y"], constants)
    apply(form_gemm, model)
    (node,) = model.graph  # type: ignore[assignment]
    assert not node.attributes  # type: ignore[attr-defined]


def test_a_large_weight_stays_transposed() -> None:
    weight = normal(2048, 2049)
    model = graph([op("Gemm", "x w b", "y", transB=1)], {"x": ["n", 2049]}, ["y"], {"w": weight, "b": normal(1, 2048)})
    apply(form_gemm, model, tolerance=1e-4)
    (node,) = model.graph
    assert node.attributes["transB"].as_int() == 1
    assert node.inputs[1].name == "w"
    assert node.inputs[2].const_value.shape == [2048]


def test_a_large_weight_with_a_factor_is_made_when_it_is_read() -> None:
    weight = normal(2048, 2049)
    model = graph([op("Gemm", "x w", "y", transB=1, alpha=0.5)], {"x": ["n", 2049]}, ["y"], {"w": weight})
    apply(form_gemm, model, tolerance=1e-4)
    tensor = model.graph.initializers["w.alpha"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), weight * np.float32(0.5))


@pytest.mark.parametrize(
    ("node", "x", "weight", "why"),
    [
        (op("MatMul", "x w", "y"), [2, 3, 7], (7, 5), "MatMul 'n_y' stays: its input 'x' has rank 3, Gemm wants 2"),
        (op("MatMul", "x w", "y"), [3, 7], (2, 7, 5), "MatMul 'n_y' stays: its weight 'w' has rank 3, Gemm wants 2"),
        (op("MatMul", "w x", "y"), [7, 5], (3, 7), "MatMul 'n_y' stays: its second factor 'x' is computed at run time"),
        (
            op("Gemm", "x w", "y", transA=1),
            [7, 3],
            (7, 5),
            "Gemm 'n_y' keeps its form: its input is transposed (transA)",
        ),
        (
            op("Gemm", "w x", "y", transB=1),
            [7, 5],
            (3, 5),
            "Gemm 'n_y' keeps its form: its weight 'x' is computed at run time",
        ),
        (
            op("Gemm", "x w x", "y", beta=2.0),
            [5, 5],
            (5, 5),
            "Gemm 'n_y' keeps its form: its bias 'x' is computed at run time and has factor beta = 2.0",
        ),
        (op("Gemm", "x w x", "y"), [5, 5], (5, 5), "Gemm 'n_y' keeps its form: its bias 'x' is computed at run time"),
        (
            op("Gemm", "x w w", "y"),
            [5, 5],
            (5, 5),
            "Gemm 'n_y' keeps its form: its bias 'w' has shape (5, 5), not one number per output",
        ),
    ],
)
def test_declines(node: onnx.NodeProto, x: list[int], weight: tuple[int, ...], why: str) -> None:
    model = graph([node], {"x": x}, ["y"], {"w": normal(*weight)})
    changes = apply(form_gemm, model)
    assert changes.count == 0
    assert changes.declined == (why,)


@pytest.mark.parametrize("transposed", [0, 1])
def test_onnxruntime_fuses_either_orientation_with_a_scale_per_output(transposed: int, tmp_path: Path) -> None:
    """The choice of (in, out) costs nothing: both become QGemm, and compute what the unfused nodes do."""
    inputs, outputs = 24, 10
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.02, outputs).astype(np.float32)
    shape = (outputs, inputs) if transposed else (inputs, outputs)
    constants = {
        "w": rng.integers(-60, 60, shape).astype(np.int8),
        "ws": scale,
        "wz": np.zeros(outputs, np.int8),
        "b": rng.integers(-999, 999, outputs).astype(np.int32),
        "bs": scale * np.float32(0.02),
        "bz": np.zeros(outputs, np.int32),
        "xs": np.float32(0.02),
        "xz": np.uint8(7),
        "ys": np.float32(0.3),
        "yz": np.uint8(100),
    }
    nodes = [
        op("QuantizeLinear", "x xs xz", "xq"),
        op("DequantizeLinear", "xq xs xz", "xd"),
        op("DequantizeLinear", "w ws wz", "wd", axis=0 if transposed else 1),
        op("DequantizeLinear", "b bs bz", "bd", axis=0),
        op("Gemm", "xd wd bd", "g", transB=transposed),
        op("QuantizeLinear", "g ys yz", "gq"),
        op("DequantizeLinear", "gq ys yz", "y"),
    ]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    data = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    fused = Session(data, load=LoadOptions(dump=tmp_path / "fused.onnx"))
    assert "QGemm" in {node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node}
    x = rng.uniform(-0.1, 4, (5, inputs)).astype(np.float32)
    (found,), (expected,) = fused.run({"x": x}), Session(data, optimize=False).run({"x": x})
    assert np.abs(found - expected).max() <= 0.3 + 1e-6  # at most one step of the output, on a rounding tie


def test_ops_of_a_multilayer_perceptron() -> None:
    nodes = [
        op("MatMul", "x w1", "m1"),
        op("Add", "m1 b1", "a1"),
        op("Relu", "a1", "r1"),
        op("Gemm", "r1 w2 b2", "y", transB=1),
    ]
    constants = {"w1": normal(7, 5), "b1": normal(5), "w2": normal(3, 5), "b2": normal(3)}
    model = graph(nodes, {"x": ["n", 7]}, ["y"], constants)
    apply(prepared, model)
    assert ops(model) == ["Gemm", "Relu", "Gemm"]
