"""Functions of bytes in files for every CPU: the bits of exact arithmetic, in any order, shape and runtime."""

from __future__ import annotations

from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, random_data
from onnx.reference import ReferenceEvaluator

from fcdeploy.arithmetic.function_tables import FUNCTIONS, tabulate
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.graph.model import read_model
from fcdeploy.int8.writing.conversions import Conversions
from fcdeploy.int8.writing.exact_functions import ExactFunctions
from fcdeploy.native.program.interpret import run as interpret
from fcdeploy.native.program.steps import Pointwise
from fcdeploy.native.reading.operators import read_program
from fcdeploy.records.plan import QParams
from fcdeploy.serve.meaning import find_probabilities

Array = np.ndarray[Any, Any]
getcontext().prec = 40


def model_of(op: str, q: QParams | None, rank: int, axis: int | None, opset: int, length: int = 1) -> bytes:
    """Of any shape: what uint8 stands for, or float32 where there is no scale, to its function."""
    x = ir.Value(
        name="x", shape=ir.Shape([None] * rank), type=ir.TensorType(ir.DataType.UINT8 if q else ir.DataType.FLOAT)
    )
    y = ir.Value(name="y", shape=ir.Shape([None] * rank), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", op, [x], attributes, outputs=[y], name="node")
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": opset}, name="g")
    write = ExactFunctions(graph, Conversions(graph))
    if q is not None:
        write.of_bytes(node, x, q, length)
    else:
        write.of_floats(node, x, length)
    return bytes(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString())


def run(model: bytes, x: Array) -> list[Array]:
    """In onnxruntime, and in ONNX's own reference, which is NumPy."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": x})[0], ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"x": x})[0]]


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1), st.floats(1e-4, 0.5), st.integers(0, 255), st.booleans(), st.integers(1, 3),
    st.sampled_from([13, 18]),
)  # fmt: skip
def test_a_softmax_has_the_same_bits_in_any_order(
    seed: int, scale: float, zero: int, in_bytes: bool, rank: int, opset: int
) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 400 if rank == 1 else 12, rank).tolist())
    axis = int(random.integers(-rank, rank))
    x = random.integers(0, 256, shape).astype(np.uint8)
    step = Decimal(float(np.float32(scale))) if in_bytes else Decimal(1)
    if not in_bytes:
        x = (scale * 255 * random.normal(size=shape)).astype(np.float32)
    model = model_of("Softmax", QParams("uint8", (scale,), zero) if in_bytes else None, rank, axis, opset, shape[axis])
    found, reference = run(model, x)
    np.testing.assert_array_equal(found, reference)
    order = random.permutation(shape[axis])
    np.testing.assert_array_equal(run(model, x.take(order, axis))[0], found.take(order, axis))
    # beside 1e-6, what rounding x_i - max x moves, as it does in any float softmax
    rows = np.moveaxis(x.astype(np.float64), axis, -1).reshape(-1, shape[axis])
    for row, answer in zip(rows, np.moveaxis(found, axis, -1).reshape(rows.shape), strict=True):
        below = [step * (Decimal(each) - Decimal(row.max())) for each in row.tolist()]
        total = sum(each.exp() for each in below)
        for power, each in zip(below, answer, strict=True):
            near = Decimal("1e-6") + abs(power) / 2**24
            assert abs(Decimal(float(each)) - power.exp() / total) <= near * power.exp() / total + Decimal("1e-34")


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-9, 1e-3, 1.0, 60.0]))
def test_an_exponential_is_a_product_of_its_digits(seed: int, size: float) -> None:
    x = np.append(size * np.random.default_rng(seed).uniform(-1, 1, 50), [0, -1e-9, 1 - 2**-24, -127 / 128]).astype(
        np.float32
    )
    found, reference = run(model_of("Exp", None, 1, None, 13), x)
    np.testing.assert_array_equal(found, reference)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=8e-7)


def test_beyond_what_floats_hold_an_exponential_stays_a_number() -> None:
    """In native code, too, which has an Exp again."""
    model, x = model_of("Exp", None, 1, None, 13), np.array([-1e30, -81, 89, 1e30], np.float32)
    found, _ = run(model, x)
    np.testing.assert_allclose(found, np.exp([-80.0, -80.0, 88.0, 88.0]), rtol=1e-6)
    program = read_program(ir.from_proto(onnx.load_from_string(model)), "net", {"x": [4]})
    assert [step.kind for step in program.steps if isinstance(step, Pointwise)] == ["Clip", "Exp"]
    np.testing.assert_allclose(interpret(program, {"x": x})["y"], found, rtol=1e-6)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_tables_are_the_runtime_s_functions(op: str) -> None:
    """Within a few of its last bits: it computes in float32."""
    q = QParams("uint8", (0.031,), 100 if op not in ("Log", "Reciprocal") else 0)
    codes = np.arange(256, dtype=np.uint8)
    for answer in run(model_of(op, q, 1, None, 13), codes):
        np.testing.assert_array_equal(answer, tabulate(op, q))
    real = (codes.astype(np.float32) - np.float32(q.zero_point)) * np.float32(q.scale[0])
    node = ir.Node(
        "", op, [x := ir.Value(name="x", shape=ir.Shape([256]), type=ir.TensorType(ir.DataType.FLOAT))], num_outputs=1
    )
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", x.type, x.shape
    graph = ir.Graph([x], list(node.outputs), nodes=[node], opset_imports={"": 13}, name="g")
    plain = bytes(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString())
    there = ort.InferenceSession(plain, providers=["CPUExecutionProvider"]).run(None, {"x": real})[0]
    np.testing.assert_allclose(tabulate(op, q), there, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("op", ["Softmax", "Exp", "Sigmoid"])
@pytest.mark.parametrize("behind", ["Gemm", "GlobalAveragePool"])
def test_only_files_for_every_cpu_have_them(op: str, behind: str, tmp_path: Path) -> None:
    """A Gemm gives floats to what does not read bytes, a pool gives bytes."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, name="conv"), name="relu")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"), name="flat")
    x = net.dense(x, 8, 5, name="dense") if behind == "Gemm" else x
    file = net.output(net.op(op, x, name="last")).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **random_data(0, 20, x=(3, 6, 6)))
    operators, answers = {}, []
    samples = random_data(1, 8, x=(3, 6, 6))
    for target in ("portable", "x86-avx2"):
        out = tmp_path / f"{target}.onnx"
        report = quantize(
            file, data=tmp_path / "d.npz", output=out, target=target, costs="none", floor="none", effort="fast",
            keep_float=["last"],
        )  # fmt: skip
        graph = onnx.load(out).graph
        operators[target] = {node.op_type for node in graph.node}
        assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}
        session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, samples)[0])
        if target == "portable":
            program = read_program(read_model(out), "net")
            native = [interpret(program, {"x": sample[None]})[graph.output[0].name] for sample in samples["x"]]
            np.testing.assert_allclose(np.concatenate(native), answers[0], rtol=1e-5, atol=1e-7)
            exact = not (op == "Sigmoid" and behind == "Gemm")  # of floats, which are more than 256
            assert report.values["one_answer"]["float_outputs"] == ([] if exact else [graph.output[0].name])
            assert any(line == "the same bytes on every CPU" for line in report.lines) is exact
            assert (op in operators[target]) is not exact
            if op == "Softmax":
                assert find_probabilities(read_outline(out), graph.output[0].name, None) == "scores"
    assert op in operators["x86-avx2"]
    np.testing.assert_allclose(*answers, rtol=0.1, atol=0.02)
