"""Layers for the emulator of the AVX2 kernels, and what the real kernels computed of some of them.

`avx2_kernels.npz` holds what onnxruntime 1.31.1 computed of every case of `recorded()` with its kernels for AVX2, 1 and 2
threads alike: on an AMD EPYC whose AVX-512 and VNNI were hidden from it (its cpuid instructions answered without them).
On a CPU with AVX2 and without VNNI it is made again by

    PYTHONPATH=. python tests/helpers/avx2_cases.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from byte_convolutions import add_fused, convolution_sums, convolution_wraps
from onnx import TensorProto as Tp
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.arithmetic.kernels import avx2, neon
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
FILE = Path(__file__).parent / "avx2_kernels.npz"
TYPES = {np.dtype(np.uint8): Tp.UINT8, np.dtype(np.int8): Tp.INT8, np.dtype(np.int32): Tp.INT32}
X_SCALE, Y_ZERO = np.float32(0.02), 100
THREADS = (1, 2)
SHARES = (0.4, 0.1)  # of bytes at the highest and at the lowest of their type
DENSE_OPS = ("QLinearMatMul", "QGemm", "QGemm to float", "MatMulIntegerToFloat", "MatMulInteger")


@dataclass(frozen=True)
class Layer:
    """A model of one node, and what the emulators say of it: pairs that saturate, exact ones, those of ARM CPUs.

    `arm` has that without dot product instructions and with them.
    """

    node: onnx.NodeProto
    inputs: dict[str, Array]
    weights: dict[str, Any]
    out: int
    saturating: Array
    exact: Array
    arm: tuple[Array, Array]

    def run(self, threads: int) -> Array:
        """The real kernel's output."""
        return run(self.node, self.inputs, self.weights, self.out, threads)


def run(node: onnx.NodeProto, inputs: dict[str, Array], weights: dict[str, Any], out: int, threads: int = 1) -> Array:
    """The output y of a model of one node."""
    result: Array = Session(write_model(node, inputs, weights, out), threads=threads).run(inputs)[0]
    return result


def write_model(node: onnx.NodeProto, inputs: dict[str, Array], weights: dict[str, Any], out: int) -> bytes:
    """A model of one node, serialized."""
    graph = oh.make_graph(
        [node],
        "one",
        [oh.make_tensor_value_info(name, TYPES[array.dtype], array.shape) for name, array in inputs.items()],
        [oh.make_tensor_value_info("y", out, None)],
        [nh.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [oh.make_opsetid("", 13), oh.make_opsetid("com.microsoft", 1)]
    return bytes(oh.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def saturates_here() -> bool:
    """One pair, 255 * 127 twice: 64,770, or 32,767 where it is added in 16 bits."""
    node = oh.make_node("MatMulInteger", ["a", "w"], ["y"])
    answer = run(node, {"a": np.full((1, 2), 255, np.uint8)}, {"w": np.full((2, 1), 127, np.int8)}, Tp.INT32)
    assert answer in (64770, 32767)
    return bool(answer == 32767)


def draw(seed: int) -> np.random.RandomState:
    """Numbers that every version of NumPy draws alike, which it promises of this generator only."""
    return np.random.RandomState(seed)


def bytes_like(random: np.random.RandomState, shape: tuple[int, ...], dtype: Any) -> Array:
    """Half of them at an end of the range, so that pairs overflow."""
    info = np.iinfo(dtype)
    array = random.randint(info.min, info.max + 1, shape).astype(dtype)
    extreme = random.random_sample(shape)
    most, least = SHARES
    array[extreme < most] = info.max
    array[extreme > 1 - least] = info.min
    return array


def scales(random: np.random.RandomState, channels: int, reduced: int) -> tuple[Array, np.float32]:
    """Per channel, and of an output that neither vanishes nor always clips."""
    w = random.uniform(0.001, 0.01, channels).astype(np.float32)
    return w, np.float32(X_SCALE * w.mean() * 255 * np.sqrt(reduced) / 2)


def convolution(case: dict[str, Any]) -> Layer:
    """A QLinearConv with random bytes."""
    random = draw(case["seed"])
    kind, weight_kind = case["types"]
    zero = case["zero"] - (128 if kind is np.int8 else 0)
    y_zero = Y_ZERO - (128 if kind is np.int8 else 0)
    x = bytes_like(random, (case["batch"], case["channels"], *case["space"]), kind)
    w = bytes_like(random, (case["outs"], case["channels"] // case["groups"], *case["kernel"]), weight_kind)
    w_scale, y_scale = scales(random, case["outs"], w[0].size)
    bias = random.randint(-5000, 5000, case["outs"]).astype(np.int32)
    geometry = {key: case[key] for key in ("strides", "pads", "dilations")}
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    constants = {"xs": X_SCALE, "xz": kind(zero), "w": w, "ws": w_scale, "ys": y_scale, "yz": kind(y_zero), "b": bias}
    constants["wz"] = np.full(case["outs"], case["weight_zero"], weight_kind)
    node = oh.make_node("QLinearConv", names, ["y"], group=case["groups"], **geometry)
    how = {"zero_point": zero, "weight_zero_point": case["weight_zero"], "groups": case["groups"], **geometry}
    saturating, exact = (convolution_sums(x, w, exact=exact, **how) for exact in (False, True))
    wrapped = [exact - neon.WRAP * convolution_wraps(x, w, dot_product=dot, **how) for dot in (False, True)]
    written = [
        avx2.requantize_sums(
            sums, (X_SCALE, w_scale, y_scale), y_zero, bias=bias, axis=1, dtype=np.dtype(kind).name
        ) for sums in (saturating, exact, *wrapped)
    ]  # fmt: skip
    return Layer(node, {"x": x}, constants, TYPES[np.dtype(kind)], *written[:2], arm=(written[2], written[3]))


def dense(op: str, case: dict[str, Any]) -> Layer:
    """One of DENSE_OPS with random bytes; the weight is stored, or an input like the activations."""
    random = draw(case["seed"])
    a = bytes_like(random, (case["m"], case["k"]), np.uint8)
    w = bytes_like(random, (case["k"], case["n"]), case["kind"])
    w_scale, y_scale = scales(random, case["n"], case["k"])
    bias = random.randint(-5000, 5000, case["n"]).astype(np.int32)
    float_bias = random.normal(size=case["n"]).astype(np.float32)
    three, two = (X_SCALE, w_scale, y_scale), (X_SCALE, w_scale)

    def emulate(*, exact: bool, wraps: bool = False, on_arm: bool = False) -> tuple[str, Array, int]:
        sums = avx2.dense_sums(a, w.T, zero_point=case["zero"], weight_zero_point=case["weight_zero"], exact=exact)
        if wraps and w.dtype == np.int8:
            sums -= neon.WRAP * neon.count_wraps(a, w.T, neon.dense_pairs(case["k"]))
        fused = add_fused(sums, two, float_bias)
        return {
            "QLinearMatMul": ("a xs xz w ws wz ys yz", avx2.requantize_sums(sums, three, Y_ZERO), Tp.UINT8),
            "QGemm": (
                "a xs xz w ws wz b ys yz",
                avx2.requantize_sums(sums, three, Y_ZERO, bias=bias, alpha=1.5),
                Tp.UINT8,
            ),
            "QGemm to float": ("a xs xz w ws wz b", avx2.dequantize_sums(sums, two, bias=bias, alpha=1.5), Tp.FLOAT),
            "MatMulIntegerToFloat": (
                "a w xs ws xz wz fb",
                fused if on_arm else avx2.dequantize_sums(sums, two, float_bias=float_bias),
                Tp.FLOAT,
            ),
            "MatMulInteger": ("a w xz wz", sums.astype(np.int32), Tp.INT32),
        }[op]

    names, saturating, out = emulate(exact=False)
    constants = {
        "xs": X_SCALE, "xz": np.uint8(case["zero"]), "ws": w_scale, "ys": y_scale, "yz": np.uint8(Y_ZERO), "b": bias,
        "wz": np.full(case["n"], case["weight_zero"], case["kind"]), "fb": float_bias, "w": w,
    }  # fmt: skip
    inputs = {"a": a} if case["stored"] else {"a": a, "w": w}
    kernel = op.split()[0]
    domain = "com.microsoft" if kernel in ("QGemm", "MatMulIntegerToFloat") else ""
    node = oh.make_node(kernel, names.split(), ["y"], domain=domain, **({"alpha": 1.5} if kernel == "QGemm" else {}))
    weights = {name: constants[name] for name in names.split() if name not in inputs}
    arm = tuple(emulate(exact=True, wraps=wraps, on_arm=True)[1] for wraps in (True, False))
    return Layer(node, inputs, weights, out, saturating, emulate(exact=True)[1], arm=(arm[0], arm[1]))


def recorded() -> Iterator[tuple[str, Layer]]:
    """The cases of the file: every rank, groups, depthwise, odd lengths, blocks of outputs, batches, zero points."""
    signed, unsigned = (np.uint8, np.int8), (np.uint8, np.uint8)
    shapes: list[tuple[int, int, int, list[int], Any]] = [  # groups, channels and outputs of each, kernel, types
        (1, 1, 5, [3], signed), (1, 3, 16, [3], signed), (1, 40, 33, [3], signed), (2, 5, 3, [2], signed),
        (1, 3, 16, [3, 3], signed), (1, 4, 8, [3, 3], signed), (1, 7, 17, [1, 1], signed), (1, 64, 64, [3, 3], signed),
        (1, 128, 20, [1, 1], signed), (1, 16, 16, [5, 5], signed), (1, 1, 32, [7, 7], signed), (3, 5, 7, [3, 3], signed),
        (4, 16, 8, [3, 3], signed), (16, 2, 2, [3, 3], signed), (16, 1, 1, [3, 3], signed), (40, 1, 1, [3, 3], signed),
        (32, 1, 1, [10, 4], signed), (16, 1, 2, [3, 3], signed), (1, 33, 24, [2, 3], signed), (1, 8, 16, [3, 3], unsigned),
        (16, 1, 1, [3, 3], unsigned), (1, 8, 16, [3, 3], (np.int8, np.int8)), (1, 5, 6, [2, 2, 2], signed),
        (4, 1, 1, [3, 3, 3], signed), (2, 3, 4, [1, 2, 3], signed),
    ]  # fmt: skip
    for at, (groups, each, outs, kernel, types) in enumerate(shapes):
        for batch in (1, 3):
            rank = len(kernel)
            yield f"conv{at}.{batch}", convolution({
                "groups": groups, "channels": groups * each, "outs": groups * outs, "kernel": kernel, "batch": batch,
                "space": [n + 2 + (i + at) % 3 for i, n in enumerate(kernel)], "strides": [1 + (at + batch) % 2] * rank,
                "dilations": [1 + (at % 5 == 4)] * rank, "pads": [(at + i) % 3 for i in range(2 * rank)], "types": types,
                "zero": (0, 255, 131)[at % 3], "weight_zero": 5 if at % 6 == 5 else 0, "seed": 100 * at + batch,
            })  # fmt: skip
    sizes = [(1, 2, 1), (1, 33, 17), (1, 771, 40), (2, 130, 65), (16, 64, 32), (5, 7, 3), (1, 4096, 16), (33, 9, 20)]
    for at, ((m, k, n), op) in enumerate(product(sizes, DENSE_OPS)):
        case = {"m": m, "k": k, "n": n, "stored": at % 3 > 0, "zero": (0, 7, 255)[at % 3], "seed": 5000 + at}
        yield (
            f"dense{at}",
            dense(op, {**case, "weight_zero": 5 * (at % 7 == 6), "kind": (np.int8, np.uint8)[at % 9 == 8]}),
        )


if __name__ == "__main__":
    assert saturates_here(), "the kernels of this CPU add in 32 bits: there is nothing to record"
    real = {name: layer.run(1) for name, layer in recorded()}
    assert all((layer.run(2) == real[name]).all() for name, layer in recorded()), "threads change the answer"
    np.savez_compressed(FILE, **real)
    sys.stdout.write(
        f"{len(real)} layers, {sum(array.size for array in real.values())} outputs, {FILE.stat().st_size} bytes\n"
    )
