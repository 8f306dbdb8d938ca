"""Small float models, and what onnxruntime's own tool makes of them in int8: a peer that owes nothing to fcdeploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

Array = np.ndarray[Any, Any]
CLASSES = 6


def save(
    path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: dict[str, Array]
) -> Path:
    """A checked opset 18 model in a file; inputs and outputs are name -> shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def weight(random: np.random.Generator, *shape: int) -> Array:
    """He et al.'s initialization: activations keep their size from layer to layer."""
    fan_in = int(np.prod(shape[1:]))
    return (random.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def residual(path: Path, batch: int | str = "n") -> Path:
    """Two convolutions around a shortcut, a third, a dense layer: x (n, 3, 8, 8) to logits (n, 6)."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", strides=[2, 2]),
        helper.make_node("Relu", ["c3"], ["r3"], "relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["logits"], "dense", transB=1),
    ]
    weights = {
        "w1": weight(random, 8, 3, 3, 3), "b1": weight(random, 8) * 0.1, "w2": weight(random, 8, 8, 3, 3),
        "b2": weight(random, 8) * 0.1, "w3": weight(random, 16, 8, 3, 3), "b3": weight(random, 16) * 0.1,
        "w4": weight(random, CLASSES, 16) * 3, "b4": weight(random, CLASSES) * 0.1,
    }  # fmt: skip
    return save(path, nodes, {"x": [batch, 3, 8, 8]}, {"logits": [batch, CLASSES]}, weights)


def dense(path: Path, outputs: int, *, sigmoid: bool = False, name: str = "y") -> Path:
    """Two dense layers: x (n, 5) to y (n, outputs)."""
    random = np.random.default_rng(1)
    last = "z" if sigmoid else name
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "dense1", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], [last], "dense2", transB=1),
        *([helper.make_node("Sigmoid", ["z"], [name], "sigmoid")] if sigmoid else []),
    ]
    weights = {
        "w1": weight(random, 32, 5), "b1": weight(random, 32), "w2": weight(random, outputs, 32),
        "b2": weight(random, outputs),
    }  # fmt: skip
    return save(path, nodes, {"x": ["n", 5]}, {name: ["n", outputs]}, weights)


def tagger(path: Path) -> Path:
    """A 1-d convolution: x (n, 4, t) to scores (n, t, 6)."""
    random = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1]),
        helper.make_node("Transpose", ["c2"], ["scores"], "transpose", perm=[0, 2, 1]),
    ]
    weights = {
        "w1": weight(random, 16, 4, 3), "b1": weight(random, 16), "w2": weight(random, CLASSES, 16, 3),
        "b2": weight(random, CLASSES),
    }  # fmt: skip
    return save(path, nodes, {"x": ["n", 4, "t"]}, {"scores": ["n", "t", CLASSES]}, weights)


def samples(n: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(100 + seed).normal(size=(n, *shape)).astype(np.float32)


def quantized(model: Path, calibration: Array, out: Path) -> Path:
    """onnxruntime's static quantization: uint8 activations, int8 weights per channel, reduced range (no saturation)."""

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            row = next(self.rows, None)
            return None if row is None else {"x": row[None]}

    quantize_static(
        model, out, Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
        reduce_range=True,
    )  # fmt: skip
    return out


def family(folder: Path) -> dict[str, Path]:
    """Every model here, and with an 8 at the end of its name its int8 form."""
    found = {
        "residual": residual(folder / "residual.onnx"),
        "dense": dense(folder / "dense.onnx", 3),
        "binary": dense(folder / "binary.onnx", 1, sigmoid=True),
        "one": dense(folder / "one.onnx", 1),
        "boxes": dense(folder / "boxes.onnx", 4),
        "tagger": tagger(folder / "tagger.onnx"),
    }
    shapes = {"residual": (3, 8, 8), "tagger": (4, 7)}
    for name in list(found):
        found[f"{name}8"] = quantized(found[name], samples(64, *shapes.get(name, (5,))), folder / f"{name}8.onnx")
    return found


def outputs(path: Path, x: Array, **options: Any) -> Array:
    session = ort.SessionOptions()
    if options.get("plain"):
        session.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if options.get("precise"):
        session.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(path, session, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def product(location: str, weight: bytes | None = None) -> bytes:
    """y = x @ w; w lies in another file, or where it is given, in the model itself."""
    tensor = numpy_helper.from_array(np.frombuffer(weight or bytes(64), np.float32).reshape(4, 4), "w")
    if weight is None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "64")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return bytes(made.SerializeToString())
