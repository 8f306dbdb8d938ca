"""Layers that round their activations by themselves: computed again, proven, or named with the reason why not."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Line, Net, quantize_net, random_data
from onnx.reference import ReferenceEvaluator

from fcdeploy.arithmetic.kernels import dynamic
from fcdeploy.arithmetic.weights.layout import pack_blocks, unpack_blocks
from fcdeploy.commands.inspect import inspect
from fcdeploy.proof.exact import Exactness, check_exactness
from fcdeploy.proof.saturation import UNPROVEN, prove_no_saturation
from fcdeploy.reporting.exactness import describe_exactness
from fcdeploy.tables.types import TYPES

Array = np.ndarray[Any, Any]
DATA = random_data(0, 8, x=(200,))
x86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="of kernels on x86")


def dense() -> Net:
    """Dense layers with and without bias, of widths that end inside a block, a Relu between them."""
    net = Net(2)
    x = net.op("Relu", net.dense(net.input("x", 200), 200, 150, transB=1, name="first"), name="relu")
    x = net.op("Tanh", net.dense(x, 150, 70, bias=False, name="second"), name="tanh")
    return net.output(net.dense(x, 70, 9, name="third"))


def line(weights: str, activations: str) -> Line:
    return quantize_net(dense(), DATA, target="x86-avx2", types=TYPES[weights, activations])


def compare(model: ir.Model, count: int = 5, **how: Any) -> Exactness:
    return check_exactness(model, [{"x": DATA["x"][:count]}], **how)


@pytest.mark.parametrize("types", [("int8", "dynamic"), pytest.param(("int4", "none"), marks=x86)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_rounds_by_itself_is_computed_again(types: tuple[str, str], count: int) -> None:
    found = compare(line(*types).int8, count)
    assert found.passed, describe_exactness(found)
    assert {row.node for row in found.rows} == {"first", "second", "third"}
    assert [row.elements for row in found.rows if row.node == "first"] == [150 * count]
    assert not found.skipped
    assert all(row.floats for row in found.rows)


@pytest.mark.parametrize("types", [("int8", "dynamic"), pytest.param(("int4", "none"), marks=x86)])
def test_some_outputs_of_a_layer_stand_for_all(types: tuple[str, str]) -> None:
    found = compare(line(*types).int8, budget=20_000)
    assert found.passed
    first = next(row for row in found.rows if row.node == "first")
    assert 0 < first.elements < first.of == 750


@pytest.mark.parametrize(
    ("types", "name"),
    [(("int8", "dynamic"), "dynamic_dense"), pytest.param(("int4", "none"), "blockwise_dense", marks=x86)],
)
def test_one_wrong_sum_is_found(types: tuple[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(dynamic, name)

    def wrong(*arguments: Any) -> Array:
        found: Array = right(*arguments)
        found[-1, -1] += 1e-4 * np.abs(found).max()
        return found

    monkeypatch.setattr(dynamic, name, wrong)
    found = compare(line(*types).int8)
    assert not found.passed
    assert [row.differ for row in found.rows] == [1, 1, 1]


def test_the_scale_of_a_run_is_as_onnx_defines_it() -> None:
    random = np.random.default_rng(0)
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in zip("xysz", (1, 2, 1, 2), strict=True)
    ]
    graph = onnx.helper.make_graph([node], "one", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    evaluator = ReferenceEvaluator(model)
    for shift, size in ((0.0, 1.0), (9.0, 1.0), (-9.0, 1.0), (0.3, 1e-6), (0.0, 1e6)):
        x = (size * random.normal(size=(7, 33)) + shift).astype(np.float32)
        _, scale, zero = evaluator.run(None, {"x": x})
        assert dynamic.choose_dynamic_qparams(x) == (scale, zero)
    assert dynamic.choose_dynamic_qparams(np.zeros((2, 3), np.float32)) == (1.0, 0)


@given(
    st.integers(1, 5), st.integers(1, 70), st.sampled_from([16, 32, 64]), st.sampled_from([4, 8]), st.integers(0, 99)
)
@settings(max_examples=40)
def test_packed_weights_are_unpacked(out: int, inputs: int, block: int, bits: int, seed: int) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    integers = np.random.default_rng(seed).integers(low, high + 1, (out, inputs)).astype(np.int8)
    np.testing.assert_array_equal(unpack_blocks(pack_blocks(integers, block, bits), inputs, bits), integers)


def test_a_recurrent_layer_is_named_with_the_reason() -> None:
    net = Net(4)
    shapes = ((1, 4 * 16, 12), (1, 4 * 16, 16), (1, 8 * 16))
    weights = [net.constant(net.normal(*shape, size=0.3)) for shape in shapes]
    x = net.op("Transpose", net.input("x", 5, 12), name="turn", perm=[1, 0, 2])
    net.output(net.ops("LSTM", x, *weights, outputs=1, name="lstm", hidden_size=16)[0])
    data = random_data(1, 4, x=(5, 12))
    int8 = quantize_net(net, data, types=TYPES["int8", "dynamic"]).int8
    found = check_exactness(int8, [data])
    assert [(row.node, row.op) for row in found.skipped] == [("lstm", "DynamicQuantizeLSTM")]
    assert "no reference" in found.skipped[0].why
    assert not found.passed
    (proof,) = prove_no_saturation(int8)
    assert (proof.node, proof.adds_pairs, proof.safe) == ("lstm", True, True)  # both weights keep the bound


def test_blocks_are_proven_and_what_is_unknown_says_so() -> None:
    blocks = line("int4", "none").int8
    proofs = prove_no_saturation(blocks)
    assert [(proof.node, proof.safe, proof.adds_pairs) for proof in proofs] == [
        (name, True, False) for name in ("first", "second", "third")
    ]
    assert {("4 bits" in proof.why, "8-bit" in proof.why) for proof in proofs} <= {(True, False), (False, True)}
    for node in blocks.graph:
        if node.op_type == "MatMulNBits":
            node.attributes.add(ir.AttrInt64("bits", 3))
    odd = prove_no_saturation(blocks)
    assert [(proof.proven, proof.safe, proof.verdict) for proof in odd] == [(False, False, UNPROVEN)] * 3
    for node in blocks.graph:
        if node.op_type == "MatMulNBits":
            node.attributes.add(ir.AttrInt64("accuracy_level", 1))
    assert prove_no_saturation(blocks) == ()  # computes in float


def test_inspect_says_it(tmp_path: Path) -> None:
    path = tmp_path / "blocks.onnx"
    ir.save(line("int4", "none").int8, path)
    report = inspect(path, saturation=True)
    assert report.values["safe"]
    assert [row["proven"] for row in report.values["saturation"]] == [True] * 3
    assert "no kernel adds pairs of products in 16 bits in 3 layers of bytes: exact everywhere" in report.lines
    model = ir.load(path)
    next(node for node in model.graph if node.op_type == "MatMulNBits").op_type = "QMoE"
    ir.save(model, path)
    report = inspect(path, saturation=True)
    assert not report.values["safe"]
    assert any(line.startswith("not proven for 1 of 3 layers, the first QMoE 'first': how") for line in report.lines)
    titled = {table.title: table for table in report.tables}["Pairs of products in 16 bits"]
    assert [row[7] for row in titled.rows].count(UNPROVEN) == 1


@pytest.mark.parametrize(("axis", "rows"), [(1, 1), (0, 0)])
def test_floats_times_dequantized_weights_become_blocks(axis: int, rows: int) -> None:
    """With scales along the inputs the runtime leaves them in float."""
    random = np.random.default_rng(0)
    make, tensor = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes = [make("DequantizeLinear", ["w", "s"], ["d"], "dq", axis=axis), make("MatMul", ["x", "d"], ["y"], "dense")]
    held = [tensor(random.integers(-127, 128, (64, 8)).astype(np.int8), "w"),
            tensor(np.full(8 if axis else 64, 0.02, np.float32), "s")]  # fmt: skip
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["n", width]) for name, width in (("x", 64), ("y", 8))]
    graph = onnx.helper.make_graph(nodes, "one", ends[:1], ends[1:], held)
    found = prove_no_saturation(
        ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    )
    assert len(found) == rows
    assert all(proof.safe and not proof.adds_pairs for proof in found)
