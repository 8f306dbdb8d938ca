"""ReduceMean over the spatial axes as GlobalAveragePool."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.form_global_average_pool import form_global_average_pool

SIZES = {3: (5,), 4: (5, 4), 5: (5, 4, 3)}


def reduce_mean(axes: list[int], source: str = "x", output: str = "y", *, opset: int, keepdims: int) -> object:
    if opset < 18:
        return op("ReduceMean", source, output, axes=axes, keepdims=keepdims)
    return op("ReduceMean", f"{source} axes_{output}", output, keepdims=keepdims)


def model_of(rank: int, axes: list[int], keepdims: int, opset: int) -> ir.Model:
    node = reduce_mean(axes, opset=opset, keepdims=keepdims)
    constants = {} if opset < 18 else {"axes_y": np.asarray(axes, np.int64)}
    return graph([node], {"x": ["n", 3, *SIZES[rank]]}, ["y"], constants, opset=opset)  # type: ignore[list-item]


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("rank", "axes"), [(3, [2]), (3, [-1]), (4, [2, 3]), (4, [-1, -2]), (4, [3, 2]), (5, [2, 3, 4]), (5, [-3, 3, 4])]
)
def test_every_form_of_the_spatial_mean(rank: int, axes: list[int], keepdims: int, opset: int) -> None:
    model = model_of(rank, axes, keepdims, opset)
    assert apply(form_global_average_pool, model).count == 1
    assert ops(model) == ["GlobalAveragePool"] if keepdims else ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_of_means_is_one_mean(keepdims: int, opset: int) -> None:
    second = [2] if keepdims else [-1]
    nodes = [
        reduce_mean([3], "x", "rows", opset=opset, keepdims=keepdims),
        reduce_mean(second, "rows", "y", opset=opset, keepdims=keepdims),
    ]
    constants = {"axes_rows": np.asarray([3]), "axes_y": np.asarray(second)} if opset >= 18 else {}
    model = graph(nodes, {"x": ["n", 3, 5, 4]}, ["y"], constants, opset=opset)  # type: ignore[arg-type]
    assert apply(form_global_average_pool, model).count == 2
    assert "ReduceMean" not in ops(model)


@pytest.mark.parametrize("axes", [[1], [1, 2, 3], [0, 2, 3], [2], [3]])
def test_other_axes_are_declined(axes: list[int]) -> None:
    changes = apply(form_global_average_pool, model_of(4, axes, 1, 18))
    assert changes.count == 0
    assert changes.declined == (
        f"ReduceMean 'n_y' keeps: it reduces axes {axes} of a tensor of rank 4, not exactly the spatial ones",
    )


def test_two_means_that_are_no_spatial_mean_stay_two() -> None:
    nodes = [op("ReduceMean", "x", "rows", axes=[3]), op("ReduceMean", "rows", "y", axes=[1])]
    model = graph(nodes, {"x": ["n", 3, 5, 4]}, ["y"], opset=13)
    assert apply(form_global_average_pool, model).count == 0


def test_axes_computed_at_run_time_are_declined() -> None:
    nodes = [op("Shape", "x", "s"), op("Slice", "s one two", "a"), op("ReduceMean", "x a", "y")]
    constants = {"one": np.asarray([0]), "two": np.asarray([1])}
    model = graph(nodes, {"x": [2, 3, 5, 4]}, {"y": [None, None, None, None]}, constants)
    assert apply(form_global_average_pool, model).declined == (
        "ReduceMean 'n_y' keeps: its axes are computed at run time",
    )
