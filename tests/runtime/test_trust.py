"""What onnxruntime computes otherwise than written: each trap is shown to be real, then refused; its harmless twin is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from conftest import fails
from fused_layers import (
    BIAS,
    BIAS_SCALE,
    CONV,
    IMAGE,
    PRODUCT,
    ROWS,
    SCALES,
    SQUARE,
    WRONG,
    ZEROS,
    N,
    biased,
    layer,
)
from networks import Net, random_data
from onnx import TensorProto, helper, numpy_helper
from small_models import family

from fcdeploy.commands.bench import bench
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.graph.model import name_everything, read_model
from fcdeploy.runtime import options as session_options
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.kernels import optimize_graph
from fcdeploy.runtime.options import ACCURACY_LEVEL, KEY, read_options
from fcdeploy.runtime.session import Session
from fcdeploy.runtime.trust import refuse_untrusted

Array = np.ndarray[Any, Any]
NONSENSE, ROUNDING = 25.0, 120.0  # dB: a fusion gone wrong, a fusion that is right


def sqnr(model: ir.Model, x: Array) -> float:
    """Of the model as onnxruntime optimizes it against the same file as it is written, in dB."""
    y, written = (Session(model, threads=1, optimize=on).run({"x": x})[0].astype(np.float64) for on in (True, False))
    noise = np.sum((y - written) ** 2)
    return float("inf") if noise == 0 else float(10 * np.log10(np.sum(written**2) / noise))


def fused(model: ir.Model) -> set[str]:
    plain = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Identity"}
    return {node.op_type for node in optimize_graph(model)} - plain


RIGHT = {
    "matmul": (layer("MatMul", ROWS, SQUARE, SCALES, 1), ROWS),
    "matmul, equal scales": (layer("MatMul", ROWS, SQUARE, np.full(N, 0.01), 0), ROWS),
    "gemm": (layer("Gemm", ROWS, SQUARE, SCALES, 1, zero=ZEROS, bias=biased(1, PRODUCT)), ROWS),
    "gemm transposed": (layer("Gemm", ROWS, SQUARE, SCALES, 0, zero=ZEROS, transB=1), ROWS),
    "gemm left in float": (layer("Gemm", ROWS, SQUARE, SCALES, 0), ROWS),
    "gemm bias left in float": (layer("Gemm", ROWS, SQUARE, SCALES, 1, bias=biased(1, PRODUCT)), ROWS),
    "gemm of no square, left in float": (
        layer("Gemm", ROWS, SQUARE[:, :8].copy(), SCALES, 0, zero=ZEROS), ROWS,
    ),
    "conv": (layer("Conv", IMAGE, CONV, SCALES[:8], 0, bias=biased(1, PRODUCT[:8])), IMAGE),
    "conv, bias scale rounded": (layer("Conv", IMAGE, CONV, SCALES[:8], 0, bias=biased(1.0000001, PRODUCT[:8])), IMAGE),
    "conv, bias of zeros": (
        layer("Conv", IMAGE, CONV, SCALES[:8], 0, bias=(BIAS[:8] * 0, np.ones(8, np.float32), np.zeros(8, np.int32))),
        IMAGE,
    ),
    "depthwise": (layer("Conv", IMAGE, CONV[:, :1].copy(), SCALES[:8], 0, group=8), IMAGE),
    "per tensor": (layer("MatMul", ROWS, SQUARE, 0.01), ROWS),
}  # fmt: skip


REPAIRED = {"matmul": (1, 32), "matmul, negative axis": (1, 32)}
"""The onnxruntime that computes it as it is written again."""


def repaired(name: str) -> bool:
    return tuple(map(int, ort.__version__.split(".")[:2])) >= REPAIRED.get(name, (math.inf,))


@pytest.mark.parametrize("name", WRONG)
def test_what_fuses_wrongly_is_refused(name: str) -> None:
    model, x, why = WRONG[name]
    if repaired(name):
        assert sqnr(model, x) > ROUNDING
        assert refuse_untrusted(model, "repaired.onnx") == ()
        return
    assert sqnr(model, x) < NONSENSE
    with fails("model 'trap.onnx': node 'layer', a ", "fcdeploy quantize"):
        refuse_untrusted(model, "trap.onnx")
    with fails(why):
        refuse_untrusted(model, "trap.onnx")


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not(name: str) -> None:
    model, x = RIGHT[name]
    assert sqnr(model, x) > ROUNDING
    assert refuse_untrusted(model, "fine.onnx") == ()


def test_what_fails_at_its_first_run_is_refused_before() -> None:
    model = layer("MatMul", ROWS, SQUARE[:, :8].copy(), SCALES, 0)
    if repaired("matmul"):
        assert sqnr(model, ROWS) > ROUNDING
        assert refuse_untrusted(model, "repaired.onnx") == ()
        return
    with fails("onnxruntime cannot run the model"):
        Session(model, threads=1).run({"x": ROWS})
    with fails("node 'layer', a MatMul: the scales of weight 'w' are along axis 0"):
        refuse_untrusted(model, "trap.onnx")


def test_a_bias_that_keeps_a_convolution_in_float_is_a_warning() -> None:
    model = layer("Conv", IMAGE, CONV, SCALES[:8], 0, bias=biased(1.5, PRODUCT[:8]))
    assert sqnr(model, IMAGE) > ROUNDING
    assert fused(model) == {"Conv"}
    (warning,) = refuse_untrusted(model, "slow.onnx")
    assert warning == f"node 'layer', a Conv: {BIAS_SCALE}, so that no integer kernel runs it"


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_weights_alone_are_a_warning(kind: str) -> None:
    """Ordinary activations lose what int8 activations lose; one that dwarfs its neighbours swallows them."""
    weight, extra = SQUARE, {}
    if kind == "int4":
        weight = (SQUARE // 8).astype(ml_dtypes.int4)
    options: dict[str, Any] = {"quantized_input": False, "quantized_output": False, "dequantize": extra}
    model = layer("MatMul", ROWS, weight, SCALES, 1, **options)
    assert fused(model) == {"MatMulNBits"}
    assert 30 < sqnr(model, ROWS) < 60
    dwarf = ROWS.copy()
    dwarf[:, 0] = 1e4
    hollow = layer(
        "MatMul", ROWS, np.where(np.arange(N)[:, None] == 0, 0, weight).astype(weight.dtype), SCALES, **options
    )
    assert sqnr(hollow, dwarf) < 1
    (warning,) = refuse_untrusted(model, "small.onnx")
    assert warning.startswith(
        "of 'layer' the weights have 8 bits or less and the activations more, but onnxruntime rounds"
    )
    exact = layer("MatMul", ROWS, weight, SCALES, 1, entries={ACCURACY_LEVEL: "1"}, **options)
    assert sqnr(exact, ROWS) > ROUNDING
    assert refuse_untrusted(exact, "exact.onnx") == ()
    accepted = layer("MatMul", ROWS, weight, SCALES, 1, entries={ACCURACY_LEVEL: "4"}, **options)
    assert sqnr(accepted, ROWS) < 60
    assert refuse_untrusted(accepted, "accepted.onnx") == ()


def test_weights_alone_that_do_not_fuse_are_right() -> None:
    model = layer("Gemm", ROWS, SQUARE, SCALES, 0, transB=1, quantized_input=False, quantized_output=False)
    assert sqnr(model, ROWS) > ROUNDING
    assert refuse_untrusted(model, "fine.onnx") == ()


def test_zero_points_of_the_wrong_type_or_number() -> None:
    wrong = layer("MatMul", ROWS, SQUARE, SCALES, 1, zero=np.zeros(N, np.uint8))
    with fails("onnxruntime"):
        Session(wrong, threads=1)
    with fails("node 'weight', a DequantizeLinear: its zero point is UINT8, its integers are INT8"):
        refuse_untrusted(wrong, "trap.onnx")
    single = layer("MatMul", ROWS, SQUARE, SCALES, 1, zero=np.int8(0))
    with fails("node 'weight', a DequantizeLinear: zero points 1, scales 16, expected as many"):
        refuse_untrusted(single, "trap.onnx")


def test_commands_refuse(tmp_path: Path) -> None:
    path, sound = tmp_path / "trap.onnx", tmp_path / "sound.onnx"
    ir.save(WRONG["matmul, float output"][0], path)
    ir.save(RIGHT["matmul"][0], sound)
    np.savez(tmp_path / "data.npz", x=ROWS[:, None])
    with fails("node 'layer', a MatMul: the scales of weight 'w' are along axis 0"):
        inspect(path)
    with fails("node 'layer', a MatMul: the scales of weight 'w' are along axis 0"):
        validate(path, against=sound, data=tmp_path / "data.npz")
    assert all("fails under session.x64quantprecision" in warning for warning in inspect(sound).warnings)
    only = tmp_path / "only.onnx"
    ir.save(layer("MatMul", ROWS, SQUARE, SCALES, quantized_input=False, quantized_output=False), only)
    assert any("of 'layer' the weights have 8 bits or less" in warning for warning in inspect(only).warnings)


def test_honest_models_pass(tmp_path: Path) -> None:
    """What onnxruntime's own tool makes, and the float models it makes it from."""
    for path in family(tmp_path).values():
        assert refuse_untrusted(read_model(path), path.name) == ()


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_bias_that_overflows_is_refused(op: str, wide: bool) -> None:
    """onnxruntime rounds a float bias to int32 by itself, whether 8 bits or 16, and the overflow is silent."""

    def built(bias: Array) -> ir.Model:
        kinds = (np.int16, np.int16) if wide else (np.uint8, np.int8)
        domain = "com.microsoft" if wide else ""
        shape = (2, 3, 2, 2) if op == "Conv" else (2, 3)
        arrays = {
            "w": np.arange(-6, 6).reshape((4, 3, 1, 1) if op == "Conv" else (3, 4)).astype(kinds[1]),
            "ws": np.full(4, 1e-9, np.float32), "wz": np.zeros(4, kinds[1]), "b": bias.astype(np.float32),
            "xs": np.float32(1e-2), "z": np.array(0, kinds[0]), "ys": np.float32(0.1),
        }  # fmt: skip
        node = helper.make_node
        nodes = [
            node("QuantizeLinear", ["x", "xs", "z"], ["xq"], domain=domain),
            node("DequantizeLinear", ["xq", "xs", "z"], ["xd"], domain=domain),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0 if op == "Conv" else 1, domain=domain),
            node(op, ["xd", "wd", "b"], ["r"], "layer"),
            node("QuantizeLinear", ["r", "ys", "z"], ["q"], domain=domain),
            node("DequantizeLinear", ["q", "ys", "z"], ["y"], domain=domain),
        ]
        graph = helper.make_graph(
            nodes, "trap",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
        )  # fmt: skip
        sets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
        model = ir.from_proto(helper.make_model(graph, opset_imports=sets, ir_version=8))
        name_everything(model.graph)
        return model

    x = np.ones((2, 3, 2, 2) if op == "Conv" else (2, 3), np.float32)
    large, small = built(np.full(4, 5.0)), built(np.full(4, 0.015))
    assert sqnr(large, x) < 1
    assert sqnr(small, x) > 20
    with fails("node 'layer', a " + op + ": its bias does not fit 32 bits of input scale x weight scale"):
        refuse_untrusted(large, "m.onnx")
    assert refuse_untrusted(small, "m.onnx") == ()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"K": 65}, "'q' has 160 elements, expected 320"),
        ({"N": 4}, "'q' has 160 elements, expected 128"),
        ({"bits": 8}, "'q' has 160 elements, expected 320"),
        ({"block_size": 32}, "'s' has 5 elements, expected 10"),
        ({"block_size": 48}, "K 64, N 5, bits 4 and block_size 48 are none"),
        ({"bits": 3}, "K 64, N 5, bits 3 and block_size 64 are none"),
        ({"K": 0}, "K 0, N 5, bits 4 and block_size 64 are none"),
    ],
)
def test_packed_weights_of_another_size_are_refused(attributes: dict[str, int], message: str) -> None:
    said = {"K": 64, "N": 5, "bits": 4, "block_size": 64}
    node = helper.make_node(
        "MatMulNBits", ["x", "q", "s"], ["y"], "packed", domain="com.microsoft", **said | attributes
    )
    arrays = {"q": np.zeros((5, 1, 32), np.uint8), "s": np.ones((5, 1), np.float32)}
    graph = helper.make_graph(
        [node], "packed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    with fails(f"node 'packed', a MatMulNBits: {message}"):
        refuse_untrusted(ir.from_proto(helper.make_model(graph, opset_imports=sets, ir_version=8)), "m.onnx")


def test_options_travel_with_the_model(tmp_path: Path) -> None:
    """A path, bytes and a graph obey them alike: exact where the default rounds activations."""
    options: dict[str, Any] = {"quantized_input": False, "quantized_output": False}
    plain = layer("MatMul", ROWS, SQUARE, SCALES, **options)
    model = layer("MatMul", ROWS, SQUARE, SCALES, entries={ACCURACY_LEVEL: "1"}, **options)
    path = tmp_path / "m.onnx"
    ir.save(model, path)
    forms: list[Any] = [path, str(path), path.read_bytes(), model]
    written = Session(plain, threads=1, optimize=False).run({"x": ROWS})[0]
    rounded = Session(plain, threads=1).run({"x": ROWS})[0]
    assert np.abs(rounded - written).max() > 1e-3
    for form in forms:
        assert read_options(form) == {ACCURACY_LEVEL: "1"}
        np.testing.assert_allclose(Session(form, threads=1).run({"x": ROWS})[0], written, rtol=1e-5, atol=1e-5)
    session_options.write_options(model, {"session.disable_prepacking": "1"})
    assert read_options(model) == {ACCURACY_LEVEL: "1", "session.disable_prepacking": "1"}


def test_options_that_may_not_travel(tmp_path: Path) -> None:
    model = layer("MatMul", ROWS, SQUARE, SCALES)

    def says(text: str) -> Path:
        model.metadata_props[KEY] = text
        ir.save(model, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    with fails("sets 'session.custom_library', which a model may not set", "session.x64quantprecision"):
        Session(says(json.dumps({"session.custom_library": "/tmp/evil.so"})))
    with fails("sets 'session.x64quantprecision' to '2', expected \"0\" or \"1\""):
        Session(says(json.dumps({"session.x64quantprecision": "2"})))
    with fails("sets 'session.x64quantprecision' to 1"):
        Session(says(json.dumps({"session.x64quantprecision": 1})))
    with fails("is not JSON: '{'"):
        Session(says("{"))
    with fails("is '[]', expected a JSON object"):
        inspect(says("[]"))
    with fails("sets 'session.custom_library'"):
        inspect(says(json.dumps({"session.custom_library": "x"})))


def test_metadata_is_found_without_reading_the_weights(tmp_path: Path) -> None:
    """Against protobuf's own parser, on a file with fields of every kind; and nothing is found in what is no model."""
    model = layer("MatMul", ROWS, SQUARE, SCALES, entries={"session.x64quantprecision": "1"})
    model.model_version, model.doc_string, model.domain = 7, "a" * 300, "d"
    model.metadata_props["other"] = "x" * 200
    path = tmp_path / "m.onnx"
    ir.save(model, path)
    assert session_options.read_metadata(path) == {p.key: p.value for p in onnx.load(path).metadata_props}
    (tmp_path / "none.onnx").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    (tmp_path / "noise.onnx").write_bytes(noise)
    for name in ("none.onnx", "noise.onnx", "missing.onnx"):
        assert read_options(tmp_path / name) == {}


@pytest.mark.parametrize(("target", "carried"), [("x86-vnni", {"session.x64quantprecision": "1"}), ("portable", {})])
def test_a_file_whose_pairs_overflow_asks_for_32_bit_sums(target: str, carried: dict[str, str], tmp_path: Path) -> None:
    """And is then computed by exact arithmetic on every CPU, which the emulator says."""
    net = Net(5)
    net.output(net.dense(net.op("Relu", net.dense(net.input("x", 32), 32, 64)), 64, 8))
    model, int8 = net.save(tmp_path / "m.onnx"), tmp_path / "m8.onnx"
    np.savez(tmp_path / "calib.npz", **random_data(5, 96, x=(32,)))
    made = quantize(model, data=tmp_path / "calib.npz", output=int8, costs="none", target=target)
    assert read_options(int8) == carried
    (judged,) = (float(line.split(" dB")[0].split()[-1]) for line in made.lines if line.startswith("judged: "))
    warned = bench(int8, seconds=0.01).warnings
    assert any(line.startswith("made for x86-vnni, and this one is ") for line in warned) == bool(
        carried and detect_target().name == "x86-avx2"
    )
    assert judged > 30  # as the target adds, where pairs that overflow here leave less
    proofs = inspect(int8, saturation=True).values["saturation"]
    assert all(row["safe"] for row in proofs) == (not carried)
    np.savez(tmp_path / "eval.npz", **random_data(6, 4, x=(32,)))
    assert inspect(int8, exact=True, data=tmp_path / "eval.npz").passed


def test_options_of_a_float_model_go_with_its_int8_form(tmp_path: Path) -> None:
    net = Net(5)
    net.output(net.dense(net.input("x", 8), 8, 4))
    model = ir.from_proto(net.model())
    session_options.write_options(model, {"session.disable_prepacking": "1"})
    ir.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", **random_data(5, 8, x=(8,)))
    quantize(tmp_path / "m.onnx", data=tmp_path / "calib.npz", output=tmp_path / "m8.onnx", costs="none")
    assert read_options(tmp_path / "m8.onnx") == {"session.disable_prepacking": "1"}


@pytest.mark.parametrize(
    ("flags", "needed"),
    [({"avx2"}, True), ({"sse4_1"}, True), ({"avx2", "avx_vnni"}, False), ({"avx512_vnni"}, False), ({"asimd"}, False)],
)
def test_32_bit_sums_are_asked_for_where_kernels_do_not_have_them(flags: set[str], needed: bool) -> None:
    entries = {"session.x64quantprecision": "1", "session.disable_prepacking": "1"}
    found = session_options.select_for_cpu(entries, flags)
    assert ("session.x64quantprecision" in found) == needed
    assert found["session.disable_prepacking"] == "1"
