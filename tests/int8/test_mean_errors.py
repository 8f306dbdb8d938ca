"""What rounded weights add to a layer's mean output: against convolutions of torch on constant channels, and whole lines."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from networks import Net, in_memory, quantize_net, random_data

from fcdeploy.arithmetic.weights.layout import to_rows
from fcdeploy.graph.nodes import output_axis, weight_of
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.mean_errors import compute_mean_error, read_means


@pytest.mark.parametrize("seed", range(12))
def test_means_of_drawn_convolutions(seed: int) -> None:
    """Where channels are constant the mean input says all: the mean error is that of the convolution, padding included."""
    random = np.random.default_rng(seed)
    groups = int(random.choice([1, 2, 4]))
    inputs, outputs = groups * int(random.integers(1, 4)), groups * int(random.integers(1, 4))
    kernel, stride, pad, dilation = (
        tuple(int(n) for n in random.integers(*ends, size=2)) for ends in ((1, 5), (1, 4), (0, 3), (1, 3))
    )
    space = tuple(int(random.integers(9, 14)) for _ in range(2))
    x = np.broadcast_to(random.normal(size=(3, inputs, 1, 1)), (3, inputs, *space)).astype(np.float32)
    net = Net()
    net.input("x", inputs, *space)
    weight = random.normal(size=(outputs, inputs // groups, *kernel)).astype(np.float32)
    written = net.op(
        "Conv", "x", net.constant(weight), group=groups, strides=stride, pads=(*pad, *pad), dilations=dilation
    )
    model = ir.from_proto(net.output(written).model())
    node = next(node for node in model.graph if node.op_type == "Conv")
    means = read_means(node, weight.shape, observe(model, in_memory({"x": x}, model), model_hash="test"))

    error = random.normal(size=weight.shape).astype(np.float32)
    run = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(error), None, stride, pad, dilation, groups)
    np.testing.assert_allclose(
        compute_mean_error(to_rows(error, 0), means), run.mean(dim=(0, 2, 3)).numpy(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_layer_on_positive_numbers_keeps_its_mean(stored: bool, depthwise: bool) -> None:
    """In integers, and in float from stored bytes: the mean output is float's, where rounding alone had moved it."""
    net, random = Net(), np.random.default_rng(3)
    net.input("x", 24, 9, 9)
    weight = random.normal(size=(24, 1 if depthwise else 24, 5, 5)).astype(np.float32)
    weight[:, :, 0, 0] *= 40.0  # one place that makes all steps coarse
    constants = [net.constant(weight), net.constant(np.zeros(24))]
    net.output(net.op("Conv", "x", *constants, name="last", group=24 if depthwise else 1, pads=(2, 2, 2, 2)))
    data = {"x": np.abs(random_data(5, 24, x=[24, 9, 9])["x"])}
    line = quantize_net(net, data, slow={"last": "for the test"} if stored else None)
    assert line.kinds["last"] == ("weight_only" if stored else "int8")

    means = [out[0].mean(axis=(0, 2, 3)) for out in (line.outputs(float_model=True), line.outputs())]
    node = next(node for node in line.prepared.graph if node.name == "last")
    integers = next(
        v for name, v in line.int8.graph.initializers.items() if name.endswith("/q") and v.shape == weight.shape
    )
    scale = np.asarray(line.plan.tensors[weight_of(node).name].scale)  # type: ignore[union-attr]
    rounding = integers.const_value.numpy() * scale[:, None, None, None] - weight  # type: ignore[union-attr]
    uncorrected = compute_mean_error(
        to_rows(rounding, output_axis(node)), read_means(node, weight.shape, line.calibration)
    )
    assert np.abs(uncorrected).mean() > 4 * np.abs(means[1] - means[0]).mean()
