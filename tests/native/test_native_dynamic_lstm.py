"""onnxruntime's DynamicQuantizeLSTM as native code: beside an LSTM of the numbers that its weights stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from native_kernels import assert_same
from networks import Net

import fcdeploy
from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import Recurrent
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
TIMES, INPUTS, UNITS = 7, 5, 6


class Drawn:
    """Weights (directions, in, 4 units) as bytes, their scales and zero points, a bias, and states to start from."""

    def __init__(self, count: int, dtype: Any, *, rows: bool, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        lowest, highest = (-127, 128) if dtype == np.int8 else (0, 256)
        scales = (count, 4 * UNITS) if rows else (count,)
        zero = 0 if dtype == np.int8 else 128
        self.weights = [
            (
                random.integers(lowest, highest, (count, length, 4 * UNITS)).astype(dtype),
                random.uniform(0.002, 0.006, scales).astype(np.float32),
                np.full(scales, zero, dtype),
            )
            for length in (INPUTS, UNITS)
        ]
        self.bias = random.normal(size=(count, 8 * UNITS)).astype(np.float32)
        self.starts = [random.normal(size=(count, 1, UNITS)).astype(np.float32) for _ in range(2)]

    def real(self) -> list[Array]:
        """The weights as an LSTM has them: (directions, 4 units, in)."""
        lined = [(w, s.reshape(len(w), 1, -1), z.reshape(len(w), 1, -1)) for w, s, z in self.weights]
        return [((w.astype(np.float32) - z) * s).transpose(0, 2, 1) for w, s, z in lined]


def make(drawn: Drawn, direction: str, *, plain: bool, starts: bool) -> onnx.ModelProto:
    """x (times, 1, in) through it, all three outputs given."""
    net = Net()
    x = net.op("Reshape", net.input("x", TIMES, INPUTS), net.constant([TIMES, 1, INPUTS], np.int64))
    begin = [net.constant(each) for each in drawn.starts] if starts else ["", ""]
    weights = [net.constant(each) for each in (*drawn.real(), drawn.bias)]
    more: dict[str, Any] = {"hidden_size": UNITS, "direction": direction}
    net.output(*net.ops("LSTM", x, *weights, "", *begin, outputs=3, **more))
    model = net.model()
    if plain:
        return model
    (node,) = [each for each in model.graph.node if each.op_type == "LSTM"]
    names = []
    for number, array in enumerate(
        [row[0] for row in drawn.weights] + [each for _, *pair in drawn.weights for each in pair]
    ):
        names.append(f"held{number}")
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, names[-1]))
    given = [*node.input, *[""] * (8 - len(node.input))]
    node.input[:] = [given[0], *names[:2], *given[3:8], *names[2:]]
    node.op_type, node.domain = "DynamicQuantizeLSTM", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_it_is_an_lstm_of_stored_weights(direction: str, rows: bool, dtype: Any, starts: bool) -> None:
    drawn = Drawn(2 if direction == "bidirectional" else 1, dtype, rows=rows)
    model = ir.from_proto(make(drawn, direction, plain=False, starts=starts))
    name_everything(model.graph)
    program = read_program(model, "net")
    recurrent = [step for step in program.steps if isinstance(step, Recurrent)]
    assert [step.weight.dtype for step in recurrent] == [np.int8] * len(drawn.bias)
    feeds = {"x": np.random.default_rng(1).normal(size=(1, TIMES, INPUTS)).astype(np.float32)}
    found = run(program, feeds)
    assert_same(build(program), feeds, found)
    plain = Session(make(drawn, direction, plain=True, starts=starts).SerializeToString(), threads=1)
    dynamic = Session(make(drawn, direction, plain=False, starts=starts).SerializeToString(), threads=1)
    for tensor, wanted, rounded in zip(program.outputs, plain.run(feeds), dynamic.run(feeds), strict=True):
        got = found[tensor.name]
        np.testing.assert_allclose(got, wanted, atol=2e-5)
        assert np.abs(rounded - wanted).max() > 3 * np.abs(got - wanted).max()  # what onnxruntime rounds


def test_compile_says_what_it_compares_with(tmp_path: Path) -> None:
    drawn = Drawn(2, np.int8, rows=True)
    path = tmp_path / "net.onnx"
    onnx.save(make(drawn, "bidirectional", plain=False, starts=True), path)
    result = fcdeploy.compile(path, output=tmp_path / "net.so", allow_float=True)
    assert any("onnxruntime rounds its inputs and states anew at every step" in each for each in result.warnings)
    x = np.random.default_rng(1).normal(size=(1, TIMES, INPUTS)).astype(np.float32)
    plain = Session(make(drawn, "bidirectional", plain=True, starts=True).SerializeToString(), threads=1)
    for got, wanted in zip(
        fcdeploy.load_native(tmp_path / "net.so").run({"x": x}).values(), plain.run({"x": x}), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_weights_that_are_computed_are_named() -> None:
    drawn = Drawn(1, np.int8, rows=True)
    proto = make(drawn, "forward", plain=False, starts=False)
    (node,) = [each for each in proto.graph.node if each.op_type == "DynamicQuantizeLSTM"]
    held = next(each for each in proto.graph.initializer if each.name == node.input[1])
    proto.graph.initializer.remove(held)
    proto.graph.input.append(onnx.helper.make_tensor_value_info(held.name, held.data_type, held.dims))
    with fails("is a DynamicQuantizeLSTM that cannot be compiled: its weights are computed at run time"):
        read_program(ir.from_proto(proto), "net")
