"""Dense stacks with outlier channels behind a LayerNorm: the factors go into its scale and bias (SmoothQuant)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from prepare_graphs import Array, apply, graph, normal, op, ops, random_feeds, run

torch = pytest.importorskip("torch")

import fcdeploy  # noqa: E402
from fcdeploy.graph.model import name_everything  # noqa: E402
from fcdeploy.int8.refining.smooth import compute_smoothing, rescale  # noqa: E402
from fcdeploy.prepare import pipeline  # noqa: E402
from fcdeploy.prepare.channel_constants import find_vectors  # noqa: E402
from fcdeploy.prepare.passes.equalize import equalize  # noqa: E402

OUTLIER, WIDTH = 40.0, 96


def stack(relu: bool) -> torch.nn.Module:
    """Four dense layers with a LayerNorm between; four channels of each are large, and read by small weights."""
    torch.manual_seed(3)
    layers: list[torch.nn.Module] = []
    read, large = 32, torch.arange(0)
    for _ in range(3):
        dense, norm = torch.nn.Linear(read, WIDTH), torch.nn.LayerNorm(WIDTH)
        with torch.no_grad():
            dense.weight[:, large] /= OUTLIER
            large = torch.randperm(WIDTH)[:4]
            norm.bias.normal_(0, 0.3)
            norm.weight[large] *= OUTLIER
            norm.bias[large] *= OUTLIER
        layers += [dense, norm, *([torch.nn.ReLU()] if relu else [])]
        read = WIDTH
    last = torch.nn.Linear(read, 8)
    with torch.no_grad():
        last.weight[:, large] /= OUTLIER
    return torch.nn.Sequential(*layers, last).eval()


@pytest.mark.parametrize("relu", [False, True])
def test_outlier_channels_behind_a_layer_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relu: bool) -> None:
    network, model = stack(relu), tmp_path / "m.onnx"
    data = np.random.default_rng(0).normal(size=(320, 32)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=data[:128])
    np.savez(tmp_path / "e.npz", x=data[128:])
    fcdeploy.export(network, inputs=["x:1,32"], output=model)
    with torch.no_grad():
        expected = network(torch.from_numpy(data)).numpy()

    def found(*, off: bool) -> float:
        with monkeypatch.context() as patch:
            if off:
                patch.setattr(pipeline, "PASSES", tuple(p for p in pipeline.PASSES if p is not equalize))
            out = tmp_path / f"{off}.onnx"
            fcdeploy.quantize(model, data=tmp_path / "c.npz", output=out, costs="none", effort="fast", floor="none")
        return float(fcdeploy.validate(out, against=model, data=tmp_path / "e.npz").values["sqnr_db"])

    assert found(off=True) < 20
    assert found(off=False) > 30
    prepared = ir.load(model)
    name_everything(prepared.graph)
    pipeline.prepare(prepared)
    rescale(prepared, compute_smoothing(prepared, {"x": data[:64]}))
    np.testing.assert_allclose(run(prepared, {"x": data})[0], expected, atol=1e-5 * np.abs(expected).max())


def uneven(channels: int) -> Array:
    return np.asarray([64, *np.ones(channels - 2), 1 / 64], np.float32)


@pytest.mark.parametrize(
    "middle",
    [
        "LayerNormalization",
        "LayerNormalization without bias",
        "InstanceNormalization",
        "Mul",
        "Mul and Add",
        "Sub from",
    ],
)
def test_constants_for_each_channel_take_the_factors_up(middle: str) -> None:
    """What stands before them keeps its scale, a softmax here, and outputs are equal bit for bit."""
    s, images = uneven(6), middle == "InstanceNormalization"
    shape = (1, 6, 1, 1) if images else (6,)
    constants = {
        "g": (1 + normal(6) / 9) * s, "c": normal(6) * s,
        "w": normal(4, 6, 1, 1) / s.reshape(1, 6, 1, 1) if images else normal(6, 4) / s[:, None],
    }  # fmt: skip
    if middle in ("Mul", "Mul and Add", "Sub from"):
        constants = {name: array if name == "w" else array.reshape(shape) for name, array in constants.items()}
    name = "Mul" if middle == "Sub from" else middle.split()[0]
    nodes = {
        "LayerNormalization": [op("LayerNormalization", "p g c", "n", axis=-1)],
        "LayerNormalization without bias": [op("LayerNormalization", "p g", "n", axis=1)],
        "InstanceNormalization": [op("InstanceNormalization", "p g c", "n")],
        "Mul": [op("Mul", "g p", "n")],
        "Mul and Add": [op("Mul", "p g", "m"), op("Add", "c m", "n")],
        "Sub from": [op("Mul", "p g", "m"), op("Sub", "c m", "n")],
    }[middle]
    last = op("Conv", "r w", "y") if images else op("Gemm", "r w", "y")
    used = {k: v for k, v in constants.items() if any(k in node.input for node in (*nodes, last))}
    sizes = ["n", 6, 5, 5] if images else ["n", 6]
    model = graph([op("Softmax", "x", "p"), *nodes, op("Relu", "n", "r"), last], {"x": sizes}, ["y"], used)
    before = ops(model)
    assert apply(equalize, model, tolerance=0).count == 1
    assert ops(model) == before
    node = next(node for node in model.graph if node.op_type == name)
    scale = np.abs(find_vectors(node)[0 if middle == "Mul" else 1])
    assert scale.max() / scale.min() < 64


@pytest.mark.parametrize("axis", [1, 2])
def test_a_layer_norm_over_another_axis_than_the_channels_is_left_alone(axis: int) -> None:
    """Of (n, 6, 5), where channels are axis 1: over both axes, or the last."""
    shape = (6, 5)[axis - 1 :]
    constants = {"g": normal(*shape) * 99, "w": normal(4, 6, 1)}
    nodes = [op("LayerNormalization", "x g", "a", axis=axis), op("Conv", "a w", "y")]
    model = graph(nodes, {"x": ["n", 6, 5]}, ["y"], constants)
    assert not find_vectors(next(iter(model.graph)))
    assert apply(equalize, model, tolerance=0).count == 0


def test_a_graph_that_reads_the_statistics_of_a_layer_norm_keeps_it() -> None:
    constants = {"g": normal(6) * uneven(6), "w": normal(6, 4) / uneven(6)[:, None]}
    nodes = [op("LayerNormalization", "x g", "a m", axis=-1), op("Gemm", "a w", "y")]
    model = graph(nodes, {"x": ["n", 6]}, ["y", "m"], constants)
    feeds = random_feeds(model)
    before = run(model, feeds)
    assert apply(equalize, model, tolerance=0).count == 0
    for expected, found in zip(before, run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
