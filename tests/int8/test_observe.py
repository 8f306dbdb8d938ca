"""The same record whatever the batch, order or number of threads; odd tensors named, not tripped over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import Arrays, Net, in_memory, random_data
from recordings import any_shapes, free_size, images, model_of, record, tokens

from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.records.calibration import to_bytes
from fcdeploy.samples import kept_samples as module
from fcdeploy.samples.kept_samples import SmallestSamples, hash_sample, keep_smallest

DATA = random_data(0, 45, a=(4, 8, 8), b=(4, 8, 8))
INDEX = {"index": np.random.default_rng(0).integers(0, 9, (45, 6))}


@pytest.mark.parametrize(("build", "data"), [(images, DATA), (tokens, INDEX)])
def test_the_same_bytes_for_any_batch_order_and_number_of_threads(
    build: Any, data: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(build(Net(0)))
    expected = to_bytes(record(model, data, batch=1))
    for batch in (7, 32, None):
        assert to_bytes(record(model, data, batch=batch)) == expected
    order = np.random.default_rng(1).permutation(45)
    assert to_bytes(record(model, {name: array[order] for name, array in data.items()}, batch=16)) == expected
    monkeypatch.setattr("fcdeploy.runtime.session.count_usable_cores", lambda: 1)
    assert to_bytes(record(model, data, batch=7)) == expected


def test_other_samples_give_other_bytes() -> None:
    model = model_of(images(Net(0)))
    other = {name: array.copy() for name, array in DATA.items()}
    other["a"][3, 0, 0, 0] += 1
    assert to_bytes(record(model, DATA)) != to_bytes(record(model, other))


def test_ends_and_moments_are_those_of_the_float_model() -> None:
    """Against onnxruntime run on everything at once."""
    net = images(Net(0))
    model = model_of(net)
    calibration = record(model, DATA, batch=7)
    assert calibration.samples == 45
    for record_, array in ((calibration.tensors["a"], DATA["a"]), (calibration.tensors["b"], DATA["b"])):
        assert (record_.histogram.low, record_.histogram.high) == (array.min(), array.max())
        assert record_.moments is not None
        wide = array.astype(np.float64).reshape(45, 4, 64)[:, :, ::3]  # 22 positions of a channel, at least 16
        np.testing.assert_allclose(record_.moments.mean(), wide.mean((0, 2)), atol=1e-12)
        np.testing.assert_allclose(record_.moments.mean_square(), (wide**2).mean((0, 2)), rtol=1e-12)
        assert record_.kind == "input"
    kinds = {r.kind for r in calibration.tensors.values()}
    assert kinds == {"input", "activation", "weight", "bias"}
    for value in model.graph.initializers.values():
        if value.name in calibration.tensors:
            array = value.const_value.numpy()  # type: ignore[union-attr]
            found = calibration.tensors[value.name].histogram
            assert (found.low, found.high, found.total) == (array.min(), array.max(), array.size)


def test_what_a_fused_clip_hides_is_recorded_on_request() -> None:
    model = model_of(images(Net(0)))
    some, every = record(model, DATA), record(model, DATA, everything=True)
    hidden = set(every.tensors) - set(some.tensors)
    assert hidden == {"add2_out", "conv4_out"}
    assert all(every.tensors[name].histogram.low < 0 for name in hidden)
    assert all(every.tensors[name].histogram.total == r.histogram.total for name, r in some.tensors.items())


def test_spatial_sizes_may_vary() -> None:
    model = model_of(free_size(Net(0)))
    random = np.random.default_rng(0)
    sizes = [(6, 6), (6, 6), (9, 5), (6, 6), (4, 12)]
    samples = [{"x": random.normal(size=(3, h, w)).astype(np.float32)} for h, w in sizes]
    found = observe(model, any_shapes(model, samples), model_hash="hash", batch=2)
    assert found.tensors["x"].shape == (None, 3, None, None)
    assert found.tensors["x"].histogram.total == sum(3 * h * w for h, w in sizes)
    assert found.tensors["x"].moments is not None
    reordered = observe(model, any_shapes(model, samples[::-1]), model_hash="hash", batch=3)
    assert to_bytes(reordered) == to_bytes(found)
    (kept,) = found.kept.values()
    assert kept.shape[1:] in {(3, h, w) for h, w in sizes}


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_a_tensor_that_becomes_nan_or_infinite_is_in_the_record(what: str) -> None:
    net = Net(0)
    x = net.conv(net.input("x", 4, 8, 8), 4, 8)
    y = net.op("Mul", x, net.constant(net.normal(1, 8, 8, 8) * 1e3))
    y = net.op("Log" if what == "nan" else "Exp", y, name="odd")
    model = model_of(net.output(y))
    found = record(model, random_data(0, 9, x=(4, 8, 8)), batch=4).tensors["odd_out"].histogram
    assert 0 < found.nonfinite < found.total
    assert np.isfinite([found.low, found.high]).all()


def test_a_scalar_and_a_model_without_float_results() -> None:
    net = Net(0)
    x = net.input("x", 4)
    model = model_of(net.output(net.op("ReduceMax", x, keepdims=0, name="top"), net.op("Sigmoid", x)))
    data = random_data(0, 9, x=(4,))
    top = record(model, data, batch=9).tensors["top_out"].histogram
    assert top.total == 9  # a tensor without samples is that of each sample run alone
    assert (top.low, top.high) == (data["x"].max(axis=1).min(), data["x"].max())
    net = Net(0)
    model = model_of(net.output(net.op("ArgMax", net.input("x", 4), axis=1)))
    assert set(record(model, random_data(0, 9, x=(4,))).tensors) == {"x"}


def test_a_ragged_last_batch_counts_like_the_others() -> None:
    model = model_of(images(Net(0)))
    seven = {name: array[:7] for name, array in DATA.items()}
    assert record(model, seven, batch=4).tensors["a"].histogram.total == 7 * 4 * 8 * 8


def offered(samples: list[Arrays]) -> Arrays:
    smallest = SmallestSamples()
    for sample in samples:
        smallest.offer(hash_sample(sample), sample)
    return smallest.arrays()


def test_kept_samples_depend_on_neither_order_nor_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4096)
    monkeypatch.setattr(module, "KEPT_LEAST", 3)
    monkeypatch.setattr(module, "KEPT_MOST", 12)
    random = np.random.default_rng(0)
    samples = [{"x": random.normal(size=(int(n),)).astype(np.float32)} for n in random.choice([8, 16, 512], 60)]
    expected = offered(samples)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(60)
        found = offered([samples[i] for i in [*order, *order]])
        np.testing.assert_array_equal(found["x"], expected["x"])


def test_few_samples_are_all_kept_and_none_on_request() -> None:
    model = model_of(tokens(Net(0)))
    kept = record(model, INDEX).kept["index"]
    assert sorted(kept.tolist()) == sorted(np.unique(INDEX["index"], axis=0).tolist())
    np.testing.assert_array_equal(keep_smallest(in_memory(INDEX, model)).arrays()["index"], kept)
    assert record(model, INDEX, keep_samples=False).kept == {}


def test_what_weights_are_multiplied_with_has_moments_and_nothing_else_has() -> None:
    model = model_of(images(Net(0)))
    found = record(model, DATA)
    read_by_layers = {node.inputs[0].name for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")}  # type: ignore[union-attr]
    assert {name for name, one in found.tensors.items() if one.moments} == read_by_layers
    assert any(one.kind == "activation" and one.moments is None for one in found.tensors.values())


@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_the_end_behind_a_relu_is_exact_whether_it_is_zero_or_above(shift) -> None:
    net = Net(0)
    model = model_of(net.output(net.op("Relu", net.input("x", 4), name="clipped")))
    x = np.random.default_rng(0).uniform(-1, 1, (12, 4)).astype(np.float32) + np.float32(shift)
    h = record(model, {"x": x}, batch=5).tensors["clipped_out"].histogram
    assert (h.low, h.high) == (max(float(x.min()), 0.0), max(float(x.max()), 0.0))
