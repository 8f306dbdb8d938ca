"""BatchNormalization folded into the layer before or after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import Array, apply, graph, normal, op, ops, run

from fcdeploy.prepare.passes.fold_batchnorm import fold_batchnorm
from fcdeploy.prepare.pipeline import prepare


def statistics(channels: int, *, shift: bool = True) -> dict[str, Array]:
    """Parameters of a BatchNormalization; without a shift, beta and mean are zero."""
    zero = np.zeros(channels, np.float32)
    return {
        "gamma": normal(channels),
        "beta": normal(channels) if shift else zero,
        "mean": normal(channels) if shift else zero,
        "var": np.abs(normal(channels)) + 0.1,
    }


def batchnorm(source: str, output: str) -> Any:
    return op("BatchNormalization", f"{source} gamma beta mean var", output, epsilon=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    dimensions=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 3),
    bias=st.booleans(),
    opset=st.sampled_from([13, 17, 18, 21]),
    transposed=st.booleans(),
)
def test_into_the_convolution_before(
    dimensions: int, groups: int, per_group: int, bias: bool, opset: int, transposed: bool
) -> None:
    inputs, outputs = 4, groups * per_group
    kernel = (3, 2, 1)[:dimensions]
    shape = (inputs, per_group) if transposed else (outputs, inputs // groups)
    constants = {"w": normal(*shape, *kernel), **statistics(outputs)} | ({"b": normal(outputs)} if bias else {})
    layer = op("ConvTranspose" if transposed else "Conv", "x w b" if bias else "x w", "c", group=groups)
    size = (5, 4, 3)[:dimensions]
    model = graph([layer, batchnorm("c", "y")], {"x": ["n", inputs, *size]}, ["y"], constants, opset=opset)
    changes = apply(fold_batchnorm, model)
    assert changes.count == 1
    assert changes.declined == ()
    assert len(ops(model)) == 1


@pytest.mark.parametrize("layer", ["Gemm", "GemmB", "MatMul"])
@pytest.mark.parametrize("shift", [True, False])
def test_into_the_dense_layer_before(layer: str, shift: bool) -> None:
    node = op("MatMul", "x w", "c") if layer == "MatMul" else op("Gemm", "x w", "c", transB=int(layer == "GemmB"))
    weight = normal(5, 7) if layer == "GemmB" else normal(7, 5)
    constants = {"w": weight, **statistics(5, shift=shift)}
    model = graph([node, batchnorm("c", "y")], {"x": ["n", 7]}, ["y"], constants)
    assert apply(fold_batchnorm, model).count == 1
    assert ops(model) == ["MatMul" if layer == "MatMul" and not shift else "Gemm"]


@settings(max_examples=15, deadline=None)
@given(groups=st.sampled_from([1, 2, 4]), shift=st.booleans(), readers=st.integers(1, 2), dimensions=st.integers(1, 3))
def test_into_the_convolutions_after(groups: int, shift: bool, readers: int, dimensions: int) -> None:
    kernel, size = (3, 2, 1)[:dimensions], (6, 5, 4)[:dimensions]
    pads = [0] * 2 * dimensions if shift else [1] * 2 * dimensions
    nodes = [op("Relu", "x", "r"), batchnorm("r", "z")]
    nodes += [op("Conv", f"z w{i}", f"y{i}", group=groups, pads=pads) for i in range(readers)]
    weights = {f"w{i}": normal(8, 4 // groups, *kernel) for i in range(readers)}
    outputs = [f"y{i}" for i in range(readers)]
    model = graph(nodes, {"x": ["n", 4, *size]}, outputs, weights | statistics(4, shift=shift))
    assert apply(fold_batchnorm, model).count == 1
    assert ops(model) == ["Relu"] + ["Conv"] * readers


@pytest.mark.parametrize("node", [op("Gemm", "z w", "y"), op("Gemm", "z v b", "y", transB=1), op("MatMul", "z w", "y")])
def test_into_the_dense_layer_after(node: Any) -> None:
    constants = {"w": normal(4, 6), "v": normal(6, 4), "b": normal(6), **statistics(4)}
    model = graph([op("Relu", "x", "r"), batchnorm("r", "z"), node], {"x": ["n", 4]}, ["y"], constants)
    assert apply(fold_batchnorm, model).count == 1
    assert ops(model) == ["Relu", "Gemm"]


@pytest.mark.parametrize(
    ("variances", "left"), [([1.0, 1.5, 2.0, 3.0], ["Gemm"]), ([1e-4, 1.0, 9.0, 1e6], ["BatchNormalization", "Gemm"])]
)
def test_of_the_network_s_input_only_channels_of_nearly_one_size_are_folded(
    variances: list[float], left: list[str]
) -> None:
    constants = {"w": normal(4, 6), **statistics(4)} | {"gamma": np.ones(4, np.float32), "var": np.float32(variances)}
    model = graph([batchnorm("x", "z"), op("Gemm", "z w", "y")], {"x": ["n", 4]}, ["y"], constants)
    apply(fold_batchnorm, model)
    assert ops(model) == left


def test_a_transposed_convolution_after_takes_a_scale_but_no_shift() -> None:
    def model(shift: bool) -> ir.Model:
        nodes = [op("Relu", "x", "r"), batchnorm("r", "z"), op("ConvTranspose", "z w", "y", group=2, strides=[2, 2])]
        return graph(nodes, {"x": ["n", 4, 3, 3]}, ["y"], {"w": normal(4, 3, 3, 3), **statistics(4, shift=shift)})

    scaled = model(shift=False)
    assert apply(fold_batchnorm, scaled).count == 1
    assert ops(scaled) == ["Relu", "ConvTranspose"]
    (reason,) = apply(fold_batchnorm, model(shift=True)).declined
    assert "ConvTranspose 'n_y' reads padding, which the shift would change" in reason


def test_declines_name_the_other_reader() -> None:
    nodes = [op("Conv", "x w", "c"), batchnorm("c", "z"), op("Add", "c z", "y")]
    model = graph(nodes, {"x": ["n", 3, 5, 5]}, ["y"], {"w": normal(4, 3, 1, 1), **statistics(4)})
    changes = apply(fold_batchnorm, model)
    assert changes.count == 0
    assert changes.declined == (
        "BatchNormalization 'n_z' keeps: its input 'c' is also read by 'n_y'; its output 'z' is read by Add 'n_y'",
    )


@pytest.mark.parametrize(
    ("nodes", "outputs", "why"),
    [
        ([op("Conv", "x w", "c"), batchnorm("c", "y")], ["c", "y"], "its input 'c' is also read by the graph's output"),
        ([op("Relu", "x", "c"), batchnorm("c", "y")], ["y"], "its input 'c' comes from Relu 'n_c'"),
        ([batchnorm("x", "y")], ["y"], "its input 'x' comes from outside; its output 'y' is an output of the graph"),
        (
            [batchnorm("x", "z"), op("Conv", "z w", "y", pads=[1, 1, 1, 1])],
            ["y"],
            "Conv 'n_y' reads padding, which the shift would change",
        ),
        (
            [batchnorm("x", "z"), op("Conv", "z w", "y", auto_pad="SAME_UPPER")],
            ["y"],
            "Conv 'n_y' reads padding, which the shift would change",
        ),
        (
            [op("Relu", "w", "v"), op("Conv", "x v", "c"), batchnorm("c", "y")],
            ["y"],
            "the weight of Conv 'n_c' is computed at run time",
        ),
        (
            [op("Relu", "mean", "m"), op("Conv", "x w", "c"), op("BatchNormalization", "c gamma beta m var", "y")],
            ["y"],
            "one of its parameters is computed at run time",
        ),
    ],
)
def test_declines(nodes: list[Any], outputs: list[str], why: str) -> None:
    model = graph(nodes, {"x": ["n", 4, 5, 5]}, outputs, {"w": normal(4, 4, 3, 3), **statistics(4)})
    changes = apply(fold_batchnorm, model)
    assert changes.count == 0
    (reason,) = changes.declined
    assert why in reason


def test_training_mode_and_infinite_scales_are_declined() -> None:
    constants = {"w": normal(4, 3, 1, 1), **statistics(4)}
    training = op("BatchNormalization", "c gamma beta mean var", "y m v", training_mode=1)
    model = graph([op("Conv", "x w", "c"), training], {"x": ["n", 3, 5, 5]}, ["y"], constants)
    assert fold_batchnorm(model).declined == (
        "BatchNormalization 'n_y' keeps: it computes its statistics from the batch",
    )
    constants["var"] = -np.ones(4, np.float32)
    model = graph([op("Conv", "x w", "c"), batchnorm("c", "y")], {"x": ["n", 3, 5, 5]}, ["y"], constants)
    assert "gives a scale that is not finite" in fold_batchnorm(model).declined[0]


def test_folded_parameters_must_fit_float32() -> None:
    constants = {"w": np.full((4, 3, 1, 1), 1e30, np.float32), **statistics(4)}
    constants["gamma"] = np.full(4, 1e20, np.float32)
    model = graph([op("Conv", "x w", "c"), batchnorm("c", "y")], {"x": ["n", 3, 5, 5]}, ["y"], constants)
    (reason,) = fold_batchnorm(model).declined
    assert "the folded parameters of Conv 'n_c' are not finite in float32" in reason
    assert ops(model) == ["Conv", "BatchNormalization"]


def test_shared_weights_are_folded_apart() -> None:
    constants = {"w": normal(4, 4, 1, 1), **statistics(4)}
    nodes = [op("Conv", "x w", "c"), batchnorm("c", "z"), op("Conv", "z w", "y")]
    model = graph(nodes, {"x": ["n", 4, 5, 5]}, ["y"], constants)
    assert apply(fold_batchnorm, model).count == 1


def test_a_trained_torch_network_keeps_its_answers() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 6, 3, groups=2),
        torch.nn.BatchNorm2d(6),
        torch.nn.Flatten(),
        torch.nn.Linear(6 * 8 * 8, 5),
        torch.nn.BatchNorm1d(5),
    )
    for _ in range(3):
        network(torch.randn(16, 3, 6, 6))
    network.eval()
    x = torch.randn(2, 3, 6, 6)
    expected = network(x).detach().numpy()
    model = ir.from_proto(torch_to_onnx(network, x))
    prepare(model)
    assert "BatchNormalization" not in ops(model)
    (found,) = run(model, {model.graph.inputs[0].name or "": x.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def torch_to_onnx(network: torch.nn.Module, x: torch.Tensor) -> Any:
    """The module as the exporter that keeps BatchNormalization writes it: parameter by parameter."""
    layers, constants, name = [], {}, "x"
    for at, module in enumerate(network):  # type: ignore[arg-type]
        state = {key: value.detach().numpy() for key, value in module.state_dict().items()}
        constants |= {f"{key}{at}": value for key, value in state.items() if value.ndim}
        output = f"t{at}"
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            read = " ".join(f"{key}{at}" for key in ("weight", "bias", "running_mean", "running_var"))
            layers.append(op("BatchNormalization", f"{name} {read}", output, epsilon=module.eps))
        elif isinstance(module, torch.nn.Linear):
            layers.append(op("Gemm", f"{name} weight{at} bias{at}", output, transB=1))
        elif isinstance(module, torch.nn.Conv2d):
            layers.append(op("Conv", f"{name} weight{at}", output, pads=[1, 1, 1, 1]))
        elif isinstance(module, torch.nn.ConvTranspose2d):
            layers.append(op("ConvTranspose", f"{name} weight{at} bias{at}", output, group=module.groups))
        else:
            layers.append(op({"ReLU": "Relu", "Flatten": "Flatten"}[type(module).__name__], name, output))
        name = output
    return ir.to_proto(graph(layers, {"x": ["n", *x.shape[1:]]}, [name], constants))
