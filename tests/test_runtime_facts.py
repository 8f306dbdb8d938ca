"""What fcdeploy takes for granted about onnxruntime, pinned one fact a test: a change fails by name.

Every model here is written by hand, without fcdeploy.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
NAME = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


class Qdq:
    """A Q/DQ graph under construction: `q` and `dq` add pairs, `op` float nodes."""

    def __init__(self, dtype: str = "uint8", zero_point: int = 128, opset: int = 17) -> None:
        self.dtype, self.zero_point, self.opset = dtype, zero_point, opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.inputs: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def input(self, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(f"x{len(self.inputs)}", TensorProto.FLOAT, shape))
        return str(self.inputs[-1].name)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def q(self, x: str, scale: float = 0.05, zero_point: int | None = None) -> str:
        zero = self.constant(self.zero_point if zero_point is None else zero_point, self.dtype)
        return str(self.op("QuantizeLinear", x, self.constant(scale), zero))

    def dq(self, x: str, scale: float = 0.05, zero_point: int | None = None) -> str:
        zero = self.constant(self.zero_point if zero_point is None else zero_point, self.dtype)
        return str(self.op("DequantizeLinear", x, self.constant(scale), zero))

    def pair(self, x: str, scale: float = 0.05, zero_point: int | None = None) -> str:
        return self.dq(self.q(x, scale, zero_point), scale, zero_point)

    def weight(self, array: Array, scale: Any, axis: int | None, zero: str | None = "own") -> str:
        """int8 weights; a scale per index of `axis`. `zero` is the name of the zero points, "own" ones, or None."""
        stored = self.constant(array, np.int8)
        scales = self.constant(scale)
        if zero == "own":
            zero = self.constant(np.zeros(np.shape(scale), np.int8), np.int8)
        along = {} if axis is None else {"axis": axis}
        return str(self.op("DequantizeLinear", *([stored, scales] + ([zero] if zero else [])), **along))

    def bias(self, array: Array, scale: Any) -> str:
        return str(self.op("DequantizeLinear", self.constant(array, np.int32), self.constant(scale), axis=0))

    def model(self, *outputs: str, kind: int = TensorProto.FLOAT) -> bytes:
        graph = helper.make_graph(
            self.nodes, "facts", self.inputs,
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        imports = [helper.make_opsetid("", self.opset)]
        made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
        return made


def kernels(model: bytes, folder: Path, **entries: str) -> list[str]:
    """The operators that run, in order, without copies and layout."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]
    return [op for op in found if op not in ("QuantizeLinear", "DequantizeLinear", "Transpose")]


RANDOM = np.random.default_rng(0)
SCALES = np.linspace(0.01, 0.03, 4).astype(np.float32)


def bytes_of(*shape: int) -> Array:
    return RANDOM.integers(-127, 128, shape).astype(np.int8)


def conv(g: Qdq, rank: int = 2, *, bias: str = "product", group: int = 1, zero: str | None = "own") -> str:
    """x -> pair -> Conv with 4 channels in and out, not quantized yet behind."""
    x = g.pair(g.input(1, 4, *(6,) * rank))
    w = g.weight(bytes_of(4, 4 // group, *(3,) * rank), SCALES, 0, zero)
    tensors = {
        "none": [],
        "product": [g.bias(np.arange(4), np.float32(0.05) * SCALES)] if bias == "product" else [],
        "other": [g.bias(np.arange(4), np.float32(0.051) * SCALES)] if bias == "other" else [],
    }[bias]
    return str(g.op("Conv", x, w, *tensors, group=group, kernel_shape=[3] * rank))


@pytest.mark.parametrize("bias", ["none", "product"])
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_between_pairs_become_integer_kernels(rank: int, group: int, bias: str, tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(g.pair(conv(g, rank, group=group, bias=bias), 0.1)), tmp_path) == ["QLinearConv"]


def test_a_convolution_that_writes_float_does_not(tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(conv(g)), tmp_path) == ["Conv"]


def test_a_bias_whose_scale_is_not_the_product_does_not_fuse(tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(g.pair(conv(g, bias="other"), 0.1)), tmp_path) == ["Conv"]


@pytest.mark.parametrize(
    ("clip", "zero_point", "scale", "gone"),
    [("Relu", 0, 0.1, True), ("Clip", 0, 6 / 255, True), ("Relu", 100, 0.1, False), ("Clip", 0, 0.1, False)],
)
def test_a_clip_in_front_of_q_vanishes_where_bytes_end(
    clip: str, zero_point: int, scale: float, gone: bool, tmp_path: Path
) -> None:
    """Why clips are absorbed only where saturation does the same: elsewhere they would keep the layer in float."""
    g = Qdq()
    x = conv(g)
    x = g.op("Relu", x) if clip == "Relu" else g.op("Clip", x, g.constant(0.0), g.constant(6.0))
    found = kernels(g.model(g.pair(x, scale, zero_point)), tmp_path)
    assert (found == ["QLinearConv"]) == gone, found


def test_signed_activations_read_twice_do_not_fuse_on_x86(tmp_path: Path) -> None:
    """Why activations are uint8 there: a residual has two readers."""
    found = {}
    for dtype in ("uint8", "int8"):
        g = Qdq(dtype, 128 if dtype == "uint8" else 0)
        x = g.q(conv(g), 0.1)
        w = g.weight(bytes_of(4, 4, 1, 1), SCALES, 0)
        y = g.pair(g.op("Conv", g.dq(x, 0.1), w), 0.1)
        found[dtype] = kernels(g.model(g.pair(g.op("Add", y, g.dq(x, 0.1)), 0.1)), tmp_path)
    assert found["uint8"] == ["QLinearConv", "QLinearConv", "QLinearAdd"]
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert "QLinearAdd" not in found["int8"]


def gemm(g: Qdq, *, zero: str | None = "own", axis: int = 1, **attributes: Any) -> str:
    x = g.pair(g.input(2, 6))
    shape = (4, 6) if attributes.get("transB") else (6, 4)
    w = g.weight(bytes_of(*shape), SCALES, axis, zero)
    return str(g.op("Gemm", x, w, g.bias(np.arange(4), np.float32(0.05) * SCALES), **attributes))


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_becomes_qgemm_and_may_write_float(behind: bool, transposed: int, tmp_path: Path) -> None:
    g = Qdq()
    y = gemm(g, transB=transposed, axis=1 - transposed)
    assert kernels(g.model(g.pair(y, 0.1) if behind else y), tmp_path) == ["QGemm"]


def test_gemm_without_zero_points_on_its_weights_stays_float(tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(gemm(g, zero=None)), tmp_path) == ["Gemm"]


@pytest.mark.parametrize("key", ["alpha", "beta"])
def test_gemm_with_a_factor_stays_float(key: str, tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(gemm(g, **{key: 0.5})), tmp_path) == ["Gemm"]


def shared_zero_points() -> bytes:
    """Two convolutions whose weights have the same zero points, stored once."""
    g = Qdq()
    zero = g.constant(np.zeros(4, np.int8), np.int8)
    x = g.pair(conv(g, zero=zero), 0.1)
    y = g.op("Conv", x, g.weight(bytes_of(4, 4, 3, 3), SCALES, 0, zero))
    return g.model(g.pair(y, 0.1))


def test_shared_zero_points_of_weights_break_precise_sessions(tmp_path: Path) -> None:
    """Why each weight has zero points of its own."""
    assert kernels(shared_zero_points(), tmp_path) == ["QLinearConv"] * 2
    with pytest.raises(Exception, match="AddInitializedOrtValue"):
        kernels(shared_zero_points(), tmp_path, x64quantprecision="1")


@pytest.mark.parametrize(("behind", "kernel"), [(True, "QLinearMatMul"), (False, "MatMulIntegerToFloat")])
def test_matmul_of_sequences_becomes_an_integer_kernel(behind: bool, kernel: str, tmp_path: Path) -> None:
    g = Qdq()
    x = g.pair(g.input(2, 5, 6))
    y = g.op("MatMul", x, g.weight(bytes_of(6, 4), SCALES, 1))
    assert kernels(g.model(g.pair(y, 0.1) if behind else y), tmp_path) == [kernel]


def test_matmul_of_two_activations_becomes_an_integer_kernel(tmp_path: Path) -> None:
    g = Qdq()
    y = g.op("MatMul", g.pair(g.input(2, 5, 6)), g.pair(g.input(2, 6, 3)))
    assert kernels(g.model(g.pair(y, 0.1)), tmp_path) == ["QLinearMatMul"]


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_add_and_mul(kind: str, tmp_path: Path) -> None:
    g = Qdq()
    y = g.op(kind, g.pair(g.input(1, 4, 6)), g.pair(g.input(1, 4, 6), 0.02, 3))
    assert kernels(g.model(g.pair(y, 0.1)), tmp_path) == [f"QLinear{kind}"]


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_a_float_constant_keeps_add_and_mul_float(kind: str, tmp_path: Path) -> None:
    """Why constants are quantized as well."""
    g = Qdq()
    y = g.op(kind, g.pair(g.input(1, 4, 6)), g.constant(RANDOM.normal(size=(1, 4, 6))))
    assert kernels(g.model(g.pair(y, 0.1)), tmp_path) == [kind]
    g = Qdq()
    fixed = g.dq(g.constant(RANDOM.integers(0, 255, (1, 4, 6)), np.uint8))
    y = g.op(kind, g.pair(g.input(1, 4, 6)), fixed)
    assert kernels(g.model(g.pair(y, 0.1)), tmp_path) == [f"QLinear{kind}"]


UNARY: dict[str, dict[str, Any]] = {
    "AveragePool": {"kernel_shape": [2, 2]}, "GlobalAveragePool": {}, "LeakyRelu": {"alpha": 0.1}, "Sigmoid": {},
    "Softmax": {"axis": 1},
}  # fmt: skip


@pytest.mark.parametrize("kind", UNARY)
def test_operators_with_an_integer_kernel_of_their_own(kind: str, tmp_path: Path) -> None:
    g = Qdq()
    y = g.op(kind, g.pair(g.input(1, 4, 6, 6)), **UNARY[kind])
    assert kernels(g.model(g.pair(y, 0.01, 0)), tmp_path) == [f"QLinear{kind}"]


def test_concat_and_where_take_any_scales(tmp_path: Path) -> None:
    g = Qdq()
    a, b = g.pair(g.input(1, 4, 6)), g.pair(g.input(1, 4, 6), 0.02, 3)
    assert kernels(g.model(g.pair(g.op("Concat", a, b, axis=1), 0.1)), tmp_path) == ["QLinearConcat"]
    g = Qdq()
    mask = g.constant(RANDOM.random((1, 4, 6)) > 0.5, np.bool_)
    a, b = g.pair(g.input(1, 4, 6)), g.pair(g.input(1, 4, 6), 0.02, 3)
    assert kernels(g.model(g.pair(g.op("Where", mask, a, b), 0.1)), tmp_path) == ["QLinearWhere"]


FLOAT: dict[str, dict[str, Any]] = {
    "Tanh": {}, "HardSigmoid": {}, "Elu": {}, "Exp": {}, "Softplus": {}, "GlobalMaxPool": {},
    "ReduceMean": {"axes": [2], "keepdims": 1}, "Abs": {}, "Sqrt": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOAT)
def test_operators_without_an_integer_kernel(kind: str, tmp_path: Path) -> None:
    g = Qdq()
    assert kernels(g.model(g.pair(g.op(kind, g.pair(g.input(1, 4, 6, 6)), **FLOAT[kind]))), tmp_path) == [kind]


@pytest.mark.parametrize("kind", ["Sub", "Div", "Max", "Min", "Pow"])
def test_operators_of_two_tensors_without_an_integer_kernel(kind: str, tmp_path: Path) -> None:
    g = Qdq()
    y = g.op(kind, g.pair(g.input(1, 4, 6)), g.pair(g.input(1, 4, 6)))
    assert kernels(g.model(g.pair(y)), tmp_path) == [kind]


def i64(*values: int) -> tuple[list[int], Any]:
    return list(values), np.int64


MOVES: dict[str, tuple[list[tuple[Any, Any]], dict[str, Any]]] = {
    "Reshape": ([i64(1, 24, 6)], {}), "Flatten": ([], {}), "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "Squeeze": ([i64(0)], {}), "Unsqueeze": ([i64(0)], {}), "Slice": ([i64(1), i64(3), i64(2)], {}),
    "Gather": ([i64(2, 0)], {"axis": 1}), "Expand": ([i64(2, 4, 6, 6)], {}), "Tile": ([i64(1, 1, 2, 1)], {}),
    "Split": ([i64(1, 3)], {"axis": 1}), "DepthToSpace": ([], {"blocksize": 2}), "SpaceToDepth": ([], {"blocksize": 2}),
    "Pad": ([i64(0, 0, 1, 1, 0, 0, 1, 1), (7, np.uint8)], {}), "Identity": ([], {}),
    "Resize": ([([], np.float32), ([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
    "ReduceMax": ([], {"axes": [2]}), "ReduceMin": ([], {"axes": [2]}),
    "MaxPool": ([], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), "Clip": ([(10, np.uint8), (200, np.uint8)], {}),
    "Where": ([], {}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", sorted(set(MOVES) - {"Where"}))
def test_bytes_can_be_moved_without_pairs(kind: str, dtype: str) -> None:
    """The int8 model has these operators on the integers themselves: a kernel must exist with optimization off."""
    more, attributes = MOVES[kind]
    g = Qdq(dtype, 0)
    outputs = 2 if kind == "Split" else 1
    constants = [g.constant(v, dtype if kind in ("Clip", "Pad") and t == np.uint8 else t) for v, t in
                 [(min(v, 100) if kind == "Clip" else v, t) for v, t in more]]  # fmt: skip
    y = g.op(kind, g.q(g.input(1, 4, 6, 6)), *constants, outputs=outputs, **attributes)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(g.model(y[0] if outputs == 2 else y, kind=NAME[dtype]), options)
    found = session.run(None, {"x0": RANDOM.normal(size=(1, 4, 6, 6)).astype(np.float32)})[0]
    assert found.dtype == dtype


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_float_convolution_between_pairs_is_quantized_unless_held(kind: str, tmp_path: Path) -> None:
    """Why a LeakyRelu of slope 1 stands behind float convolutions whose result is quantized."""
    found = {}
    for held in (False, True):
        g = Qdq()
        y = g.op(kind, g.pair(g.input(1, 4, 6, 6)), g.constant(RANDOM.normal(size=(4, 4, 3, 3))))
        y = g.op("LeakyRelu", y, alpha=1.0) if held else y
        model = g.model(g.pair(y, 0.5))
        found[held] = kernels(model, tmp_path)
        dump = onnx.load(tmp_path / "optimized.onnx")
        quantized = any(tensor.data_type == TensorProto.INT8 and tensor.dims for tensor in dump.graph.initializer)
        assert quantized != held
    assert found[True][0] in ("Conv", "FusedConv", "ConvTranspose")


def test_neighbouring_products_saturate_without_vnni_and_the_limit_keeps_them_exact() -> None:
    """255 * 128 fits 16 bits; 255 * 254 does not. Where the CPU adds in 32 bits both are exact."""
    exact = {}
    for size in (64, 127):
        g = Qdq("uint8", 0)
        x = g.pair(g.input(1, 64), 1.0)
        w = g.weight(np.full((64, 4), size, np.int8), np.ones(4, np.float32), 1)
        y = g.op("Gemm", x, w, g.bias(np.zeros(4, np.int32), np.ones(4, np.float32)))
        found = ort.InferenceSession(g.model(y)).run(None, {"x0": np.full((1, 64), 255, np.float32)})[0]
        exact[size] = bool((found == 255 * size * 64).all())
    assert exact[64]
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    if "avx2" in flags and not flags & {"avx_vnni", "avx512_vnni", "amx_int8"}:
        assert not exact[127]


def in_blocks(weight: Array, bits: int, block: int, level: int = 4) -> bytes:
    """x -> MatMulNBits -> y; `weight` (out, in) of unsigned integers whose middle is zero, every scale 1."""
    out, read = weight.shape
    packed = weight.reshape(out, -1, block).astype(np.uint8)
    packed = packed if bits == 8 else packed[..., 0::2] | (packed[..., 1::2] << 4)
    tensors = [
        numpy_helper.from_array(packed, "w"),
        numpy_helper.from_array(np.ones(packed.shape[:2], np.float32), "s"),
    ]
    numbers = {"K": read, "N": out, "bits": bits, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], "blocks", domain="com.microsoft", **numbers)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "facts", ends[:1], ends[1:], tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return made


@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks_are_summed_without_saturation(bits: int, block: int) -> None:
    """On every CPU: also seen on AVX2 and AVX-512 kernels where VNNI was hidden.  Two products of 8 bits, 255 * 127 twice,
    would not fit 16 bits, so those kernels add each alone."""
    for end in (0, 2**bits - 1):
        session = ort.InferenceSession(in_blocks(np.full((18, 256), end), bits, block))
        for rows in (1, 2, 5, 16):
            for sign in (1.0, -1.0):
                (found,) = session.run(None, {"x": np.full((rows, 256), sign, np.float32)})
                np.testing.assert_allclose(found, sign * 256 * (end - 2 ** (bits - 1)), rtol=1e-5)


@pytest.mark.parametrize(("axis", "kernel"), [(1, "MatMulNBits"), (None, "MatMulNBits"), (0, "MatMul")])
def test_floats_times_dequantized_bytes_become_blocks(axis: int | None, kernel: str, tmp_path: Path) -> None:
    """Unless the scales run along the inputs; its accuracy level is 4, so the kernel rounds the floats."""
    g = Qdq(opset=21)
    scale = SCALES if axis == 1 else np.float32(0.02) if axis is None else np.full(64, 0.02)
    assert kernels(g.model(g.op("MatMul", g.input(2, 64), g.weight(bytes_of(64, 4), scale, axis))), tmp_path) == [
        kernel
    ]
    (node,) = (node for node in onnx.load(tmp_path / "optimized.onnx").graph.node if node.op_type == kernel)
    level = {attribute.name: attribute.i for attribute in node.attribute}.get("accuracy_level")
    assert level == (4 if kernel == "MatMulNBits" else None)
