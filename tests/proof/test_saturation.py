"""The overflow proof against brute force over activations, and against what the kernels then compute."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_models
from byte_convolutions import convolution_sums
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net
from onnx import TensorProto as Tp
from saturating_layers import model, node, only, qdq

from fcdeploy import cli
from fcdeploy.commands.inspect import inspect
from fcdeploy.proof.byte_bounds import TensorBounds
from fcdeploy.proof.saturation import ELSEWHERE, EXACT, SATURATES, SaturationProof, bound_pair_sums, prove_no_saturation
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
many = settings(max_examples=40, deadline=None)


def brute(rows: Array, low: int, high: int) -> tuple[int, int, int, int]:
    """Every pair of every channel at every pair of activations."""
    a = np.arange(low, high + 1)
    worst, channels, pairs = [], set(), 0
    for n, k in product(range(len(rows)), range(0, rows.shape[1], 2)):
        w = [int(v) for v in rows[n, k : k + 2]] + [0]
        sums = a[:, None] * w[0] + a[None, :] * w[1]
        worst += [int(sums.min()), int(sums.max())]
        if sums.min() < -32768 or sums.max() > 32767:
            channels.add(n)
            pairs += 1
    found = max(worst, key=lambda s: s / (32767 if s > 0 else -32768))
    return found, (32767 if found > 0 else -32768), len(channels), pairs


def summary(proof: SaturationProof) -> tuple[Any, ...]:
    return proof.worst, proof.limit, proof.channels, proof.pairs


def extreme(random: np.random.Generator, shape: tuple[int, ...], peak: int = 127) -> Array:
    return random.integers(-peak, peak + 1, shape).astype(np.int8)


@many
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31))
def test_reach_is_the_worst_over_all_activations(k: int, n: int, one: int, other: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-128, 128, (n, k)).astype(np.int8)
    low, high = min(one, other), max(one, other)
    found = bound_pair_sums(rows, low, high)
    expected = brute(rows, low, high)
    assert found[2:] == expected[2:]
    assert found[0] == expected[0] or found[0] * expected[1] == expected[0] * found[1] or found[0] == expected[0] == 0


@many
@given(st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2]), st.integers(40, 127), st.integers(0, 2**31))
def test_convolution_is_brute_force_and_tells_what_the_kernel_does(
    each: int, groups: int, peak: int, seed: int
) -> None:
    """Pairs as a patch of the image holds them: found without the layout function, by giving each tap its number."""
    random = np.random.default_rng(seed)
    w = extreme(random, (2 * groups, each, 2, 3), peak)
    proof = only(qdq("Conv", w, group=groups, axis=0))
    order = [(c, r, s) for r in range(2) for s in range(3) for c in range(each)]
    rows = np.array([[channel[tap] for tap in order] for channel in w])
    assert summary(proof) == brute(rows, 0, 255)
    assert proof.verdict == (SATURATES + ELSEWHERE if proof.pairs else EXACT)
    worst_input = np.where(rows[:, :, None, None] > 0, 255, 0).astype(
        np.uint8
    )  # (out, K, 1, 1): for each channel its own
    ends = [
        np.moveaxis(each_end[:, :, 0, 0].reshape(-1, 2, 3, each), -1, 1)
        for each_end in (worst_input, 255 - worst_input)
    ]
    differs = False
    for image in np.concatenate(ends):
        x = np.tile(image, (groups, 1, 1))[None]
        got, true = (convolution_sums(x, w, groups=groups, exact=exact) for exact in (False, True))
        differs |= bool((got != true).any())
    assert differs == (not proof.safe)


@pytest.mark.parametrize(("op", "attributes", "rows"), [
    ("MatMul", {}, lambda w: w.T), ("Gemm", {}, lambda w: w.T), ("Gemm", {"transB": 1}, lambda w: w),
])  # fmt: skip
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dense_pairs_lie_along_the_inputs_whatever_the_axis_of_the_scales(
    op: str, attributes: dict[str, int], rows: Any, axis: int | None
) -> None:
    w = extreme(np.random.default_rng(3), (5, 5))
    assert summary(only(qdq(op, w, axis=axis, after=op == "Gemm", **attributes))) == brute(rows(w), 0, 255)


def test_depthwise_unsigned_weights_and_float_layers_are_exact() -> None:
    w = np.full((4, 1, 3, 3), 127, np.int8)
    depthwise = only(qdq("Conv", w, group=4))
    assert (depthwise.safe, depthwise.adds_pairs, depthwise.margin) == (True, False, None)
    assert "depthwise" in depthwise.why
    for attributes in ({}, {"group": 1}):  # one channel in and out is depthwise, said or not, as the runtime shows
        assert only(qdq("Conv", w[:1], **attributes)).safe
        net = Net()
        scales = [net.constant(scale) for scale in (1.0, 1.0, 2000.0)]
        zeros = [net.constant(0, kind) for kind in (np.uint8, np.int8, np.uint8)]
        net.input("x", 1, 3, 3, dtype=Tp.UINT8)
        read = ["x", scales[0], zeros[0], net.constant(w[:1], np.int8), scales[1], zeros[1], scales[2], zeros[2]]
        session = Session(ir.from_proto(net.output(net.op("QLinearConv", *read, **attributes)).model()))
        (got,) = session.run({"x": np.full((1, 1, 3, 3), 255, np.uint8)})
        assert got.item() == round(9 * 127 * 255 / 2000)  # sums of two that saturate would give half of it
    multiplied = only(qdq("Conv", np.full((8, 1, 3, 3), 127, np.int8), group=4))
    assert not multiplied.safe  # two outputs per input: an ordinary product
    unsigned = only(qdq("MatMul", np.full((4, 4), 255, np.uint8)))
    assert unsigned.safe
    assert "unsigned weights" in unsigned.why
    assert (
        prove_no_saturation(qdq("Conv", np.full((4, 4, 3, 3), 127, np.int8), after=False)) == ()
    )  # needs a Q: stays float
    assert not only(qdq("MatMul", np.full((4, 4), 127, np.int8), after=False)).safe  # does not


@pytest.mark.parametrize(("before", "zero", "bounds"), [
    ((node("Relu", "x", "b"),), 20, (20, 255)),
    ((node("Clip", "x _ three", "b"),), 20, (0, 50)),
    ((node("Relu", "x", "r"), node("Clip", "r _ three", "b")), 0, (0, 30)),
    ((node("Sigmoid", "x", "b"),), 0, (0, 10)),
    ((node("Tanh", "x", "b"),), 100, (90, 110)),
    ((node("Clip", "x three six", "m"), node("MaxPool", "m", "b", kernel_shape=[1, 1])), 0, (0, 60)),
    ((node("Sigmoid", "x", "m"), node("Concat", "m m", "b", axis=1)), 0, (0, 10)),
    ((node("Neg", "x", "b"),), 0, (0, 255)),
    ((node("Sigmoid", "x", "m"), node("Resize", "m box scales", "b", coordinate_transformation_mode="tf_crop_and_resize",
                                      extrapolation_value=12.0, mode="nearest")), 0, (0, 120)),
])  # fmt: skip
def test_bounds_come_from_the_graph(before: tuple[onnx.NodeProto, ...], zero: int, bounds: tuple[int, int]) -> None:
    """Scale 0.1: 3 is 30 above the zero point, which convolutions also read at their borders."""
    w = np.array([[[[127]], [[127]]], [[[-127]], [[-100]]]], np.int8)
    proof = only(qdq("Conv", w, before=before, zero=zero))
    assert summary(proof) == brute(w[:, :, 0, 0], *bounds)
    assert proof.safe == (255 not in bounds)


def test_borders_are_zero_points_even_where_no_activation_is() -> None:
    """Activations are 30 to 60 above it: of 127 and -127, the second meets a border."""
    w = np.array([[[[127]], [[-127]]]], np.int8)
    proof = only(qdq("Conv", w, before=(node("Clip", "x three six", "b"),)))
    assert (proof.worst, proof.limit) == (127 * 60, 32767)


def test_bounds_hold_for_every_activation_the_runtime_computes() -> None:
    """A second pair of Q and DQ with coarser steps, behind a clip."""
    from fcdeploy.runtime.session import Session

    weights = {
        "s": np.float32(0.037),
        "z": np.uint8(31),
        "t": np.float32(0.09),
        "u": np.uint8(7),
        "hi": np.float32(4.4),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Clip", "d _ hi", "c"),
        node("QuantizeLinear", "c t u", "p"), node("DequantizeLinear", "p t u", "y"),
    ]  # fmt: skip
    network = model(nodes, weights)
    last = next(n for n in network.graph if n.name == "QuantizeLinear_p")
    known = TensorBounds()
    for each in network.graph:
        known.add(each)
    low, high = known.of(last.outputs[0]).ends()
    reached = Session(network).run({"x": np.linspace(-20, 20, 4001, dtype=np.float32)})[0] / np.float32(0.09) + 7
    assert (low, high) == (round(reached.min()), round(reached.max()))
    assert (low, high) != (0, 255)


def test_rows_that_a_gemm_reads_as_columns_have_the_bounds_of_all() -> None:
    """Channels of a tensor that is read transposed are its rows."""
    low = node("Clip", "x _ three", "c"), node("Mul", "c apart", "b")
    w = np.array([[127, 127], [127, 127]], np.int8)
    network = qdq("Gemm", w, before=low, zero=0, transA=1)
    assert summary(only(network)) == brute(w.T, 0, 30)


def test_signed_activations_become_unsigned_between_q_and_dq_only() -> None:
    w = np.full((2, 2), 127, np.int8)
    proof = only(qdq("MatMul", w, kind=np.int8))
    assert (proof.worst, proof.safe) == (2 * 255 * 127, False)
    assert "made unsigned" in proof.why
    clipped = only(qdq("MatMul", w, kind=np.int8, zero=-128, before=(node("Clip", "x _ six", "b"),)))
    assert (clipped.worst, clipped.safe) == (2 * 60 * 127, True)
    weights = {"s": np.float32(1), "z": np.int8(0), "w": w}
    proof = only(model([node("QLinearMatMul", "x s z w s z s z", "y")], weights, Tp.INT8))
    assert (proof.safe, proof.adds_pairs) == (True, False)


QGEMM = {"s": np.float32(1), "z": np.uint8(0), "wz": np.int8(0)}


@pytest.mark.parametrize(("nodes", "rows"), [
    ([node("QLinearMatMul", "x s z w s wz s z", "y")], lambda w: w.T),
    ([node("QGemm", "x s z w s wz", "y", transB=1)], lambda w: w),
    ([node("MatMulInteger", "x w z wz", "y")], lambda w: w.T),
    ([node("MatMulIntegerToFloat", "x w s s z wz", "y")], lambda w: w.T),
    ([node("DynamicQuantizeMatMul", "x w s wz", "y")], lambda w: w.T),
])  # fmt: skip
def test_integer_operators_of_the_file(nodes: list[onnx.NodeProto], rows: Any) -> None:
    w = extreme(np.random.default_rng(7), (5, 6))
    assert summary(only(model(nodes, {**QGEMM, "w": w}, Tp.UINT8))) == brute(rows(w), 0, 255)


def test_integer_convolution_recurrent_and_stacked_weights() -> None:
    random = np.random.default_rng(8)
    w = extreme(random, (2, 2, 1, 3))
    names = "x s z w s wz s z"
    conv = only(model([node("QLinearConv", names, "y")], {**QGEMM, "w": w}, Tp.UINT8))
    assert summary(conv) == brute(np.moveaxis(w, 1, -1).reshape(2, 6), 0, 255)
    integer = only(model([node("ConvInteger", "x w z z", "y")], {**QGEMM, "w": w.view(np.uint8)}, Tp.UINT8))
    assert (integer.safe, integer.adds_pairs) == (True, False)
    u, r = extreme(random, (1, 3, 8)), extreme(random, (1, 2, 8))
    lstm = only(model([node("DynamicQuantizeLSTM", "x u r", "y", hidden_size=2)], {"u": u, "r": r}))
    both = [brute(u[0].T, 0, 255), brute(r[0].T, 0, 255)]
    assert lstm.pairs == both[0][3] + both[1][3]
    assert lstm.worst in (both[0][0], both[1][0])
    stack = extreme(random, (3, 4, 5))
    assert summary(only(qdq("MatMul", stack))) == brute(np.moveaxis(stack, 1, 2).reshape(15, 4), 0, 255)


def test_weights_behind_transpose_or_quantized_at_load_or_at_run_time() -> None:
    w = extreme(np.random.default_rng(9), (4, 6))
    common = [node("QuantizeLinear", "x s z", "xq"), node("DequantizeLinear", "xq s z", "xd")]
    weights = {**QGEMM, "w": w, "ws": np.float32(0.5), "f": (w * 0.5).astype(np.float32)}
    turned = [node("DequantizeLinear", "w ws wz", "wd"), node("Transpose", "wd", "wt", perm=[1, 0])]
    assert summary(only(model([*common, *turned, node("MatMul", "xd wt", "y")], weights))) == brute(w, 0, 255)
    late = [node("QuantizeLinear", "f ws wz", "wq"), node("DequantizeLinear", "wq ws wz", "wd")]
    assert summary(only(model([*common, *late, node("MatMul", "xd wd", "y")], weights))) == brute(w.T, 0, 255)
    moving = [
        node("Neg", "x", "v"),
        node("QuantizeLinear", "v ws wz", "wq"),
        node("DequantizeLinear", "wq ws wz", "wd"),
    ]
    assert only(model([*common, *moving, node("MatMul", "xd wd", "y")], weights)).adds_pairs is False
    given_bytes = only(
        model([node("MatMulInteger", "x v", "y"), node("Cast", "x", "v", to=Tp.INT8)][::-1], {}, Tp.UINT8)
    )
    assert (given_bytes.worst, given_bytes.safe, given_bytes.channels) == (2 * 255 * -128, False, 0)
    assert "at run time" in given_bytes.why


def unsafe(folder: Path) -> Path:
    path = folder / "unsafe.onnx"
    ir.save(qdq("Conv", np.full((3, 2, 1, 1), 127, np.int8)), path)
    return path


def test_inspect_names_the_worst_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = unsafe(tmp_path)
    assert cli.main(["inspect", str(path), "--saturation", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["safe"] is False
    (row,) = said["saturation"]
    expected = {
        "node": "Conv_o",
        "op": "Conv",
        "worst": 64770,
        "limit": 32767,
        "channels": 3,
        "pairs": 3,
        "safe": False,
    }
    assert {key: row[key] for key in expected} == expected
    assert row["margin"] == pytest.approx(100 * (1 - 64770 / 32767))
    assert cli.main(["inspect", str(path), "--saturation"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"1 of 1 layer can overflow, worst 'Conv_o' with 64,770 against 32,767: {SATURATES}{ELSEWHERE}"


def test_inspect_of_another_tools_models(tmp_path: Path) -> None:
    """onnxruntime's reduced range halves every weight, so that none can overflow."""
    float_model = small_models.residual(tmp_path / "r.onnx")
    reduced = inspect(
        small_models.quantized(float_model, small_models.samples(16, 3, 8, 8), tmp_path / "r8.onnx"), saturation=True
    )
    assert reduced.values["safe"] is True
    assert len(reduced.values["saturation"]) == 4
    margins = [row["margin"] for row in reduced.values["saturation"]]
    assert margins == sorted(margins)
    assert reduced.lines[-1].endswith(f"in 4 layers, least margin {margins[0]:.1f} %: {EXACT}")
    with fails("is not quantized", "fcdeploy quantize"):
        inspect(float_model, saturation=True)
    assert "saturation" not in inspect(float_model).values


def test_a_model_without_layers_of_bytes_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "add.onnx"
    weights = {"s": np.float32(1), "z": np.uint8(0)}
    ir.save(model([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")], weights), path)
    found = inspect(path, saturation=True)
    assert (found.values["saturation"], found.values["safe"]) == ([], True)
    assert found.lines[-1] == f"no layer multiplies bytes: {EXACT}"


def test_integer_operators_in_a_row_without_stored_types() -> None:
    """What one writes is a byte by its zero point, though the file says no types between them."""
    byte, one = np.uint8(128), np.float32(0.05)
    tensors = {"s": np.asarray(one), "z": np.asarray(byte), "w": np.full((2, 2, 1, 1), 127, np.int8)}
    tensors |= {"ws": np.asarray(one), "wz": np.asarray(np.int8(0))}
    conv = "s z w ws wz s z"
    nodes = [
        node("QuantizeLinear", "x s z", "a"),
        node("QLinearConv", f"a {conv}", "b"),
        node("QLinearConv", f"b {conv}", "c"),
        node("DequantizeLinear", "c s z", "y"),
    ]
    proofs = prove_no_saturation(model(nodes, tensors))
    assert [(row.op, row.safe, row.worst) for row in proofs] == [("QLinearConv", False, 2 * 127 * 255)] * 2
