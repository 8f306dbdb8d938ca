"""Small graphs for the tests of the preparation passes, and the checks that every pass must meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import name_everything
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
Shape = Sequence[int | str | None]
RNG = np.random.default_rng(7)


def op(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its first output; names of inputs and outputs are separated by blanks, '-' leaves one out."""
    read = ["" if name == "-" else name for name in inputs.split()]
    written = outputs.split()
    return helper.make_node(op_type, read, written, name=f"n_{written[0]}", **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] | Mapping[str, Shape],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 18,
    dtype: int = onnx.TensorProto.FLOAT,
) -> ir.Model:
    """A checked model of float inputs (or `dtype`); outputs have inferred shapes unless they are given."""
    shapes = dict(outputs) if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    unknown = onnx.TensorProto.UNDEFINED
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype if shape else unknown, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    result = ir.from_proto(model)
    name_everything(result.graph)
    return result


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def count(model: ir.Model) -> Counter[str]:
    return Counter(ops(model))


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def random_feeds(model: ir.Model, free: int = 3) -> dict[str, Array]:
    """Normal inputs; an axis of any length gets `free`."""
    feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = tuple(length if isinstance(length, int) else free for length in value.shape)
        feeds[value.name or ""] = normal(*shape).astype(value.dtype.numpy())
    return feeds


def run(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    return Session(model, threads=1, optimize=False).run(feeds)


def apply(
    function: Callable[[ir.Model], Changes],
    model: ir.Model,
    *,
    feeds: Mapping[str, Array] | None = None,
    tolerance: float = 1e-5,
) -> Changes:
    """Run a pass and check what every pass promises.

    The outputs are equal within `tolerance` of their largest value, and so is every tensor in between whose name is
    still there: ranges that others measured are found by name.  Inputs and outputs keep names, order and types; the
    model is valid; a second call changes nothing.
    """
    feeds = feeds or random_feeds(model)
    before, meant = run(model, feeds), meanings(model, feeds)
    border = [(value.name, value.dtype) for value in [*model.graph.inputs, *model.graph.outputs]]
    infer_shapes(model)
    changes = function(model)
    assert [(value.name, value.dtype) for value in [*model.graph.inputs, *model.graph.outputs]] == border
    onnx.checker.check_model(ir.to_proto(model))
    means = meanings(model, feeds)
    same_names = [(meant[name].astype(means[name].dtype), means[name]) for name in means if name in meant]
    for expected, found in [*zip(before, run(model, feeds), strict=True), *same_names]:
        assert expected.shape == found.shape
        assert expected.dtype == found.dtype
        scale = max(1.0, float(np.abs(expected.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(
            found.astype(np.float64), expected.astype(np.float64), atol=tolerance * scale, rtol=0
        )
    infer_shapes(model)
    assert function(model).count == 0
    return changes


def meanings(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor that a node of the main graph computes, by name."""
    exposed = model.clone()
    values = [value for node in exposed.graph for value in node.outputs if value.name]
    exposed.graph.outputs.clear()
    exposed.graph.outputs.extend(values)
    names = [value.name or "" for value in values]
    return dict(zip(names, run(exposed, feeds), strict=True))
