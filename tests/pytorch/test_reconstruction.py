"""Weights learnt together: nearer to float on samples that nobody saw, the same bits again, and nothing where it harms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from networks import Array, Net
from typed_networks import dense_net

from fcdeploy.arithmetic.weights.gptq import round_blocks_to_nearest
from fcdeploy.graph.nodes import constant_array, name_of, weight_of
from fcdeploy.pytorch.reconstruction import (
    Network,
    RoundedWeight,
    Rounding,
    Schedule,
    find_stretches,
    mix,
    reconstruct,
    run_float,
)

BLOCK = 16
SIZES = (32, 64, 48, 8)


def draw(count: int, seed: int) -> Array:
    """Inputs along few directions, as those of trained networks are."""
    directions = np.random.default_rng(7).normal(size=(10, SIZES[0]))
    return np.maximum(np.random.default_rng(seed).normal(size=(count, 10)) @ directions, 0).astype(np.float32)


def small() -> ir.Model:
    return ir.from_proto(dense_net(*SIZES, seed=3).model())


def rounded(model: ir.Model) -> dict[str, RoundedWeight]:
    """Every layer in 4 bits, to the nearest."""
    weights = {}
    for node in model.graph:
        if (weight := weight_of(node)) is not None:
            array = constant_array(weight)
            integers, scales = round_blocks_to_nearest(array.T.astype(np.float64), np.ones(len(array)), BLOCK)
            weights[name_of(node)] = RoundedWeight(
                array.T, integers.astype(np.int8), scales.astype(np.float32), constant_array(node.inputs[2]),
                BLOCK, (-8, 7), array.shape, 1, free_scales=True, allow=lambda integers: integers,
            )  # fmt: skip
    return weights


def answer(weights: dict[str, RoundedWeight], x: Array) -> Array:
    """What the network says with these weights, in NumPy."""
    for at in range(len(SIZES) - 1):
        w = weights[f"dense{at}"]
        scales = np.repeat(w.scales, BLOCK, axis=1)[:, : w.exact.shape[1]]
        x = x @ (w.integers * scales).T + (0 if w.bias is None else w.bias)
        x = np.maximum(x, 0) if at < len(SIZES) - 2 else x
    return x


def error(model: ir.Model, weights: dict[str, RoundedWeight], x: Array) -> float:
    (truth,) = run_float(model.graph, {"x": x})[0].values()
    return float(((answer(weights, x) - truth) ** 2).sum() / (truth**2).sum())


def learn(weights: dict[str, RoundedWeight], steps: int = 300) -> dict[str, RoundedWeight]:
    network = Network(small().graph, {}, weights)
    return reconstruct(network, {"x": draw(120, 0)}, Schedule(steps, 32, 2048), lambda *_: None)


@pytest.fixture(scope="module")
def learnt() -> dict[str, RoundedWeight]:
    return learn(rounded(small()))


def test_what_is_learnt_is_nearer_to_float_on_samples_that_nobody_saw(learnt: dict[str, RoundedWeight]) -> None:
    model, others = small(), draw(500, 1)
    assert error(model, learnt, others) < 0.6 * error(model, rounded(model), others)


def test_integers_stay_in_their_type(learnt: dict[str, RoundedWeight]) -> None:
    assert all(weight.integers.min() >= -8 and weight.integers.max() <= 7 for weight in learnt.values())


def test_what_a_program_asks_of_torch_changes_no_bit(learnt: dict[str, RoundedWeight]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.manual_seed(5)  # a generator that others use
    try:
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode():
            again = learn(rounded(small()))
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        torch.set_default_dtype(torch.float32)
    for name, weight in learnt.items():
        other = again[name]
        assert (weight.integers == other.integers).all() and (weight.scales == other.scales).all()
        assert weight.bias is not None and other.bias is not None and (weight.bias == other.bias).all()


def test_what_cannot_be_improved_stays() -> None:
    """Weights that are integers already: each step away is one away from float."""
    model = small()
    start = rounded(model)
    for node in model.graph:
        if name_of(node) in start:
            w = start[name_of(node)]
            exact = (w.integers * np.repeat(w.scales, BLOCK, axis=1)[:, : w.exact.shape[1]]).astype(np.float32)
            start[name_of(node)] = replace(w, exact=exact)
            node.inputs[1].const_value = ir.tensor(exact.T)  # type: ignore[union-attr]
    network = Network(model.graph, {}, start)
    assert reconstruct(network, {"x": draw(60, 0)}, Schedule(20, 32, 200), lambda *_: None) == {}


def test_stretches_end_where_one_tensor_goes_on() -> None:
    net = Net(0)
    x = net.op("Relu", net.dense(net.input("x", 8), 8, 8, name="a"))
    y = net.op("Add", net.dense(x, 8, 8, name="b"), x, name="sum")
    net.output(net.op("Softmax", net.dense(y, 8, 4, name="c")))
    graph = ir.from_proto(net.model()).graph
    names = [[name_of(node) for node in part] for part in find_stretches(graph, dict.fromkeys("abc"), 1)]
    assert names == [["a"], ["relu1", "b", "sum"], ["c", "softmax5"]]
    assert len(find_stretches(graph, dict.fromkeys("abc"), 3)) == 1


def test_mixtures_lie_between_two_samples() -> None:
    x = torch.arange(12.0).reshape(6, 2)
    mixed = mix({"x": x, "ids": torch.arange(6)}, 2000, torch.Generator().manual_seed(0))
    assert torch.equal(mixed["x"][:6], x) and torch.equal(mixed["ids"][:6], torch.arange(6))
    later = mixed["x"][6:]
    assert float(later.min()) >= 0 and float(later.max()) <= 11
    assert torch.allclose(later[:, 1] - later[:, 0], torch.ones(len(later)), atol=1e-5)  # as in all samples
    assert mixed["ids"].dtype == torch.int64 and int(mixed["ids"].max()) <= 5


def test_a_rounding_gives_bytes_and_passes_gradients_where_it_clips_nothing() -> None:
    x = torch.tensor([-3.0, -0.26, 0.1, 500.0], requires_grad=True)
    y = Rounding(0.5, 4).apply(x)
    assert y.tolist() == [-2.0, -0.5, 0.0, 125.5]
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_what_the_target_does_not_take_is_neither_checked_nor_kept() -> None:
    """Integers go through `allow` before they are compared, and come out so."""
    start = {name: replace(w, allow=lambda q: np.clip(q, -5, 5)) for name, w in rounded(small()).items()}
    learnt = learn(start, steps=150)
    for name, weight in learnt.items():
        assert (weight.integers == start[name].integers).all() or np.abs(weight.integers).max() <= 5
