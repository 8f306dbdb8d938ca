"""Sandwiches: a layer, one operator drawn from its ONNX schema with attributes and rank, and a layer: see scripts/sweep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper

from scripts.sweeps.builder import (
    FLAG,
    NEWEST,
    SAMPLES,
    VALUES,
    Array,
    Builder,
    Draw,
    Sandwich,
    axis_of,
    draw_attributes,
)

UNARY = {
    "LeakyRelu", "Sigmoid", "Relu", "Identity", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Gelu", "Mish",
    "Swish", "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Erf", "Abs", "Neg", "Sin", "Cos", "Floor", "Ceil", "Round",
    "Sign", "Dropout",
}  # fmt: skip
POSITIVE = {"Log", "Sqrt", "Reciprocal"}  # of numbers above 0 only
BINARY = {"Add", "Mul", "Sub", "Div", "Max", "Min", "Sum", "Mean", "Pow", "PRelu"}
POOLS = {"AveragePool", "MaxPool", "LpPool"}
GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}
REDUCTIONS = {
    f"Reduce{kind}" for kind in ("Max", "Min", "Mean", "Sum", "L1", "L2", "Prod", "SumSquare", "LogSumExp")
}  # fmt: skip
ALONG = {"Softmax", "LogSoftmax", "Hardmax", "LpNormalization"}
NORMALIZATIONS = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization", "LRN"}
LAYERS = {"Conv", "Gemm", "MatMul", "ConvTranspose"}


def draw_sandwich(draw: Draw, op: str) -> Sandwich:
    """A layer, the operator, a layer, with everything drawn."""
    opsets = [n for n in (13, 17, 18, 19, 21, 23, 25, NEWEST) if knows(op, n)]
    opset = draw(st.sampled_from(opsets))
    built = Builder(draw(st.integers(0, 99)))
    rank = draw(st.sampled_from(RANKS.get(op, (2, 3, 4, 4, 5))))
    channels = draw(st.sampled_from((4, 6, 8)))
    shape = (channels, *(draw(st.integers(4, 7)) for _ in range(rank - 2)))
    x = built.layer("x", (3, *shape[1:]), channels, "before")
    if draw(st.booleans()):
        x = built.add("Relu", x, name="relu")[0]
    written = FAMILY[op](draw, built, op, opset, x, shape)
    said = str(built.nodes[-1]).replace("\n", " ")
    result = _shape_of(built, opset, (3, *shape[1:]), written)
    if result is not None and len(result) > 1 and all(result[1:]) and result[0] == 1:
        if not 2 <= len(result) <= 5:
            written = built.add("Flatten", written, axis=1, name="flat")[0]
            result = (1, math.prod(result[1:]))
        if _is_float(built, opset, (3, *shape[1:]), written):
            written = built.layer(written, result[1:], 5, "after")
    model = _model(built, opset, (3, *shape[1:]), written)
    data = np.random.default_rng(7).standard_normal((SAMPLES, 3, *shape[1:])).astype(np.float32)
    return Sandwich(op, model, f"opset {opset}, (n, {', '.join(map(str, shape))}): {said}", {"x": data})


def knows(op: str, opset: int) -> bool:
    """Whether the operator is in this set."""
    return defs.has(op, opset) and not defs.get_schema(op, opset).deprecated


def _model(built: Builder, opset: int, shape: tuple[int, ...], output: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        built.nodes, "sandwich",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [onnx.ValueInfoProto(name=output)], built.weights,
    )  # fmt: skip
    sets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=sets, ir_version=min(10, helper.find_min_ir_version_for(sets)))
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


def _run(built: Builder, opset: int, shape: tuple[int, ...], output: str) -> Array | None:
    """What one sample gives, None where onnxruntime does not run it."""
    made = _model(built, opset, shape, output)
    x = np.random.default_rng(3).standard_normal((1, *shape)).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        return np.asarray(ort.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})[0])
    except Exception:  # an operator set, type or attribute that it has no kernel for
        return None


def _shape_of(built: Builder, opset: int, shape: tuple[int, ...], output: str) -> tuple[int, ...] | None:
    found = _run(built, opset, shape, output)
    return None if found is None else found.shape


def _is_float(built: Builder, opset: int, shape: tuple[int, ...], output: str) -> bool:
    found = _run(built, opset, shape, output)
    return found is not None and found.dtype == np.float32


# --- what stands in the middle: (draw, built, op, opset, x, shape without samples) to the name of its result ---


def _unary(draw: Draw, built: Builder, op: str, opset: int, x: str, _: tuple[int, ...]) -> str:
    return built.add(op, x, name="op", **draw_attributes(draw, op, opset))[0]


def _positive(draw: Draw, built: Builder, op: str, opset: int, x: str, _: tuple[int, ...]) -> str:
    above = built.add("Add", built.add("Abs", x)[0], built.constant(0.5))[0]
    return built.add(op, above, name="op", **draw_attributes(draw, op, opset))[0]


def _binary(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    rank = len(shape) + 1
    kind = draw(st.sampled_from(["same", "channel", "scalar", "row", "other"]))
    if op == "PRelu" and kind in ("same", "other"):
        kind = "channel"
    if kind == "same":
        other = built.layer("x", (3, *shape[1:]), shape[0], "beside")
    elif kind == "other":
        other = built.normal(1, *shape)
    elif kind == "channel":
        other = built.normal(*(shape[0], *[1] * (rank - 2)))
    elif kind == "row":
        other = built.normal(shape[-1])
    else:
        other = built.normal(*([1] * draw(st.integers(0, 1))))
    if op in ("Div", "Pow"):
        other = built.add("Add", built.add("Abs", other)[0], built.constant(0.5))[0]
        x = built.add("Abs", x)[0] if op == "Pow" else x
    pair = [x, other] if op in ("PRelu", "Pow", "Div") or draw(st.booleans()) else [other, x]
    return built.add(op, *pair, name="op", **draw_attributes(draw, op, opset))[0]


def _window(draw: Draw, spatial: tuple[int, ...], schema: Any) -> dict[str, Any]:
    """Kernel, strides, pads and dilations of a pool, such that every window begins in the image."""
    n = len(spatial)
    kernel = [draw(st.integers(1, 3)) for _ in spatial]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if draw(st.booleans()):
        found["strides"] = [draw(st.integers(1, 3)) for _ in spatial]
    if "dilations" in schema.attributes and draw(st.integers(0, 3)) == 0:
        found["dilations"] = [draw(st.integers(1, 2)) for _ in spatial]
    how = draw(st.sampled_from(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if how == "pads":
        found["pads"] = [draw(st.integers(0, max(0, kernel[i % n] - 1))) for i in range(2 * n)]
    elif how != "none" and "auto_pad" in schema.attributes:
        found["auto_pad"] = how
    return found


def _pool(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    schema = defs.get_schema(op, opset)
    given = {**draw_attributes(draw, op, opset), **_window(draw, shape[1:], schema)}
    return built.add(op, x, name="op", **given)[0]


def _reduction(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    rank = len(shape) + 1
    axes = draw(st.lists(st.integers(1, rank - 1), min_size=1, max_size=rank - 1, unique=True))
    axes = [axis - rank if draw(st.booleans()) else axis for axis in axes]
    given = draw_attributes(draw, op, opset, leave=("noop_with_empty_axes",))
    if "axes" in defs.get_schema(op, opset).attributes:
        return built.add(op, x, name="op", axes=axes, **given)[0]
    return built.add(op, x, built.constant(axes, np.int64), name="op", **given)[0]


def _along(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    rank = len(shape) + 1
    given = {"axis": draw(axis_of(rank))} if draw(st.booleans()) else {}
    if op == "LpNormalization" and draw(st.booleans()):
        given["p"] = draw(VALUES[op, "p"])
    return built.add(op, x, name="op", **given)[0]


def _reshape(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    n = math.prod(shape)
    target = draw(st.sampled_from([[0, -1], [0, shape[0], -1], [-1, n], [0, 1, shape[0], -1], [0, -1, 1, 1]]))
    return built.add(op, x, built.integers(*target), name="op", **({"allowzero": 0} if opset > 13 else {}))[0]


def _flatten(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    return built.add(op, x, axis=draw(st.sampled_from([1, -len(shape)])), name="op")[0]


def _transpose(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    return built.add(op, x, name="op", perm=[0, *draw(st.permutations(range(1, len(shape) + 1)))])[0]


def _squeeze(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    rank = len(shape) + 1
    at = draw(st.integers(1, rank))
    wide = built.add("Unsqueeze", x, built.integers(at), name="op")[0]
    if op == "Unsqueeze":
        return wide
    return built.add("Squeeze", wide, built.integers(at - rank - 1 if draw(st.booleans()) else at), name="op2")[0]


def _slice(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    axis = draw(axis_of(len(shape) + 1))
    length = shape[axis % (len(shape) + 1) - 1]
    step = draw(st.sampled_from([1, 1, 2, -1]))
    begin, end = (length - 1, -length - 1) if step < 0 else (draw(st.integers(0, length - 1)), 1000)
    ends = (built.integers(begin), built.integers(end), built.integers(axis), built.integers(step))
    return built.add(op, x, *ends, name="op")[0]


def _gather(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    axis = draw(axis_of(len(shape) + 1))
    length = shape[axis % (len(shape) + 1) - 1]
    index = draw(st.lists(st.integers(-length, length - 1), min_size=1, max_size=4))
    chosen = built.constant(index if draw(st.booleans()) else index[0], np.int64)
    return built.add(op, x, chosen, axis=axis, name="op")[0]


def _expand(_: Draw, built: Builder, op: str, __: int, x: str, shape: tuple[int, ...]) -> str:
    wide = built.add("Unsqueeze", x, built.integers(2))[0]
    return built.add(op, wide, built.integers(1, 1, 2, *[1] * (len(shape) - 1)), name="op")[0]


def _tile(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    return built.add(op, x, built.integers(1, *(draw(st.integers(1, 2)) for _ in shape)), name="op")[0]


def _split(draw: Draw, built: Builder, op: str, opset: int, x: str, _: tuple[int, ...]) -> str:
    parts = {"num_outputs": 2} if opset >= 18 else {}
    first, second = built.add(op, x, outputs=2, axis=1, name="op", **parts)
    return built.add("Add", first, second)[0] if draw(st.booleans()) else second


def _depth(draw: Draw, built: Builder, op: str, opset: int, x: str, _: tuple[int, ...]) -> str:
    if op == "DepthToSpace":
        x = built.add("Concat", *[x] * 4, axis=1)[0]
        return built.add(op, x, blocksize=2, name="op", **draw_attributes(draw, op, opset))[0]
    x = built.add("Resize", x, "", built.constant([1.0, 1, 2, 2]), name="up")[0]
    return built.add(op, x, blocksize=2, name="op")[0]


def _pad(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    rank, given = len(shape) + 1, draw_attributes(draw, op, opset)
    if given.get("mode") == "wrap" and opset < 19:
        given.pop("mode")
    pads = [0] * (2 * rank)
    for at in (*range(2, rank), *range(rank + 2, 2 * rank)):
        pads[at] = draw(st.integers(0, 2))
    fill = [built.constant(draw(st.sampled_from([0.0, 0.5, -1.0, 30.0])))] if draw(st.booleans()) else []
    return built.add(op, x, built.integers(*pads), *fill, name="op", **given)[0]


def _resize(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    given = draw_attributes(draw, op, opset)
    if given.get("coordinate_transformation_mode") == "half_pixel_symmetric" and opset < 19:
        given.pop("coordinate_transformation_mode")
    if draw(st.booleans()):
        scales = [1.0, 1.0, *(draw(st.sampled_from([0.5, 1.0, 1.5, 2.0])) for _ in shape[1:])]
        return built.add(op, x, "", built.constant(scales), name="op", **given)[0]
    sizes = [draw(st.integers(2, 9)) for _ in shape[1:]]
    head = built.add("Slice", built.add("Shape", x)[0], built.integers(0), built.integers(2))[0]
    whole = built.add("Concat", head, built.integers(*sizes), axis=0)[0]
    return built.add(op, x, "", "", whole, name="op", **given)[0]


def _concat(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    other = built.layer("x", (3, *shape[1:]), shape[0], "beside")
    if draw(st.booleans()):
        other = built.add("Mul", other, built.constant(draw(st.sampled_from([0.05, 20.0]))))[0]
    return built.add(op, x, other, axis=draw(axis_of(len(shape) + 1)), name="op")[0]


def _where(draw: Draw, built: Builder, op: str, _: int, x: str, shape: tuple[int, ...]) -> str:
    condition = built.constant(built.random.random(shape) > 0.5, np.bool_)
    other = built.layer("x", (3, *shape[1:]), shape[0], "beside") if draw(st.booleans()) else built.normal(1)
    return built.add(op, condition, x, other, name="op")[0]


def _clip(draw: Draw, built: Builder, op: str, _: int, x: str, __: tuple[int, ...]) -> str:
    bounds = [draw(st.sampled_from([None, -1.0, 0.0])), draw(st.sampled_from([None, 1.0, 6.0]))]
    return built.add(op, x, *("" if bound is None else built.constant(bound) for bound in bounds), name="op")[0]


def _normalization(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    channels, rank = shape[0], len(shape) + 1
    given = draw_attributes(draw, op, opset)
    positive = lambda *lengths: built.constant(np.abs(built.random.standard_normal(lengths)) + 0.5)  # noqa: E731
    if op == "LRN":
        return built.add(op, x, name="op", **{"size": 3, **given})[0]
    if op == "LayerNormalization":
        axis = draw(axis_of(rank))
        rest = shape[axis % rank - 1 :]
        return built.add(op, x, positive(*rest), built.normal(*rest), axis=axis, name="op", **given)[0]
    if op == "GroupNormalization":
        of = channels if opset >= 21 else 2
        return built.add(op, x, positive(of), built.normal(of), num_groups=2, name="op", **given)[0]
    more = [built.normal(channels), positive(channels)] if op == "BatchNormalization" else []
    return built.add(op, x, positive(channels), built.normal(channels), *more, name="op", **given)[0]


def _layer(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    channels, spatial = shape[0], shape[1:]
    if op == "MatMul":
        return built.add(op, x, built.normal(shape[-1], 6, size=0.3), name="op")[0]
    if op == "Gemm":
        transposed = draw(FLAG)
        weight = built.normal(*((6, channels) if transposed else (channels, 6)), size=0.3)
        given = {key: value for key, value in draw_attributes(draw, op, opset).items() if key in ("alpha", "beta")}
        bias = [built.normal(*draw(st.sampled_from([(6,), (1, 6), (1,), ()])))] if draw(st.booleans()) else []
        return built.add(op, x, weight, *bias, transB=transposed, name="op", **given)[0]
    group = draw(st.sampled_from([1, 2, channels]))
    given = _window(draw, spatial, defs.get_schema(op, opset))
    kernel = given["kernel_shape"]
    if op == "ConvTranspose":
        if "auto_pad" in given or "pads" in given:
            given = {key: value for key, value in given.items() if key not in ("auto_pad", "pads")}
        strides = given.get("strides", [1] * len(spatial))
        if draw(st.booleans()) and max(strides) > 1:
            given["output_padding"] = [stride - 1 for stride in strides]
        weight = built.normal(channels, 8 // group if group < 8 else 1, *kernel, size=0.3)
    else:
        weight = built.normal(channels * 2, channels // group, *kernel, size=0.3)
    return built.add(op, x, weight, group=group, name="op", **given)[0]


def _topk(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    given = draw_attributes(draw, op, opset)
    return built.add(op, x, built.integers(2), outputs=2, axis=draw(axis_of(len(shape) + 1)), name="op", **given)[0]


def _cumsum(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    axis = built.constant(draw(axis_of(len(shape) + 1)), np.int64)
    return built.add(op, x, axis, name="op", **draw_attributes(draw, op, opset))[0]


def _grid_sample(draw: Draw, built: Builder, op: str, opset: int, x: str, _: tuple[int, ...]) -> str:
    given = draw_attributes(draw, op, opset)
    if opset < 20 and "mode" in given:
        given["mode"] = {"linear": "bilinear", "cubic": "bicubic"}.get(given["mode"], given["mode"])
    grid = built.constant(built.random.uniform(-1.2, 1.2, (1, 3, 4, 2)))
    count = built.add("Slice", built.add("Shape", x)[0], built.integers(0), built.integers(1))[0]
    wide = built.add("Expand", grid, built.add("Concat", count, built.integers(3, 4, 2), axis=0)[0])[0]
    return built.add(op, x, wide, name="op", **given)[0]


def _einsum(_: Draw, built: Builder, op: str, __: int, x: str, shape: tuple[int, ...]) -> str:
    equation = {2: "nc,cd->nd", 3: "nci,cd->ndi", 4: "nchw,cd->ndhw"}[len(shape) + 1]
    return built.add(op, x, built.normal(shape[0], 6, size=0.3), equation=equation, name="op")[0]


def _cast(_: Draw, built: Builder, op: str, __: int, x: str, ___: tuple[int, ...]) -> str:
    return built.add("Cast", built.add(op, x, to=TensorProto.DOUBLE, name="op")[0], to=TensorProto.FLOAT)[0]


def _elements(draw: Draw, built: Builder, op: str, opset: int, x: str, shape: tuple[int, ...]) -> str:
    zeros = built.constant(np.zeros((1, *shape), np.int64), np.int64)
    index = built.add("Expand", zeros, built.add("Shape", x)[0])[0]
    if op == "GatherElements":
        return built.add(op, x, index, axis=1, name="op")[0]
    given = {"reduction": draw(st.sampled_from(["none", "add"]))} if opset >= 16 else {}
    return built.add(op, x, index, built.add("Neg", x)[0], axis=1, name="op", **given)[0]


def _nd(_: Draw, built: Builder, op: str, __: int, x: str, shape: tuple[int, ...]) -> str:
    swap = [1, 0, *range(2, len(shape) + 1)]
    moved = built.add("Transpose", x, perm=swap)[0]
    if op == "GatherND":
        taken = built.add(op, moved, built.constant([[0], [shape[0] - 1]], np.int64), name="op")[0]
        return built.add("Transpose", taken, perm=swap)[0]
    update = built.add("Gather", moved, built.integers(1), axis=0)[0]
    return built.add(
        "Transpose", built.add(op, moved, built.constant([[0]], np.int64), update, name="op")[0], perm=swap
    )[0]


FAMILY: dict[str, Callable[..., str]] = {
    **dict.fromkeys(UNARY, _unary), **dict.fromkeys(POSITIVE, _positive), **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(POOLS, _pool), **dict.fromkeys(GLOBAL_POOLS, _unary), **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(ALONG, _along), "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _squeeze, "Slice": _slice, "Gather": _gather, "Expand": _expand, "Tile": _tile, "Split": _split,
    "DepthToSpace": _depth, "SpaceToDepth": _depth, "Pad": _pad, "Resize": _resize, "Concat": _concat, "Where": _where,
    "Clip": _clip, **dict.fromkeys(NORMALIZATIONS, _normalization),
    **dict.fromkeys(LAYERS, _layer), "TopK": _topk, "CumSum": _cumsum, "GridSample": _grid_sample, "Einsum": _einsum,
    "Cast": _cast, "GatherElements": _elements, "ScatterElements": _elements, "GatherND": _nd, "ScatterND": _nd,
}  # fmt: skip
SWEPT = sorted(FAMILY)
RANKS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(POOLS | GLOBAL_POOLS, (3, 4, 4, 5)), "DepthToSpace": (4,), "SpaceToDepth": (4,), "Resize": (4, 4, 3, 5),
    "GridSample": (4,), "InstanceNormalization": (3, 4), "GroupNormalization": (4,), "LRN": (4,), "Einsum": (2, 3, 4),
    "Gemm": (2,), "Conv": (3, 4, 4, 5), "ConvTranspose": (3, 4), "Expand": (3, 4), "Pad": (3, 4, 5), "Tile": (2, 3, 4),
}  # fmt: skip
