"""Weights as rows, pairs within their limit and searched scales, against convolutions written out and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import Net, quantize_net

from fcdeploy.arithmetic.weights.layout import from_rows, lay_out_importance, pack_blocks, to_rows
from fcdeploy.arithmetic.weights.pair_bound import compute_excess, enforce_pair_limit
from fcdeploy.arithmetic.weights.rounding import FOUND, round_rows, search_scales

SHAPES = [(6, 4), (6, 3, 5), (6, 3, 2, 3), (6, 1, 3, 3), (4, 2, 1, 2, 3)]
EVERY = np.arange(-127, 128)
FIRST, SECOND = np.meshgrid(EVERY, EVERY, indexing="ij")


def within(first: np.ndarray, second: np.ndarray, limit: int) -> np.ndarray:
    """The rule of the kernel: two weights of one sign reach at most `limit` together."""
    return (np.sign(first) * np.sign(second) <= 0) | (np.abs(first) + np.abs(second) <= limit)


@pytest.mark.parametrize(("shape", "axis"), [*((shape, 0) for shape in SHAPES), ((6, 4), 1)])
def test_rows_and_back(shape, axis) -> None:
    weight = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    rows = to_rows(weight, axis)
    assert rows.shape == (shape[axis], weight.size // shape[axis])
    back = from_rows(rows, shape, axis)
    assert back.tolist() == weight.tolist()
    assert back.flags.c_contiguous


def channels_last_patches(image: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """im2col of (rows, columns, channels): each patch as it lies in memory, channel fastest."""
    height, width = (n - k + 1 for n, k in zip(image.shape, kernel, strict=False))
    return np.stack([image[y : y + kernel[0], x : x + kernel[1]].ravel() for y in range(height) for x in range(width)])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_multiply_the_patches_of_a_channels_last_image(groups) -> None:
    import torch

    random = np.random.default_rng(groups)
    weight = random.normal(size=(8, 4 // groups, 3, 2))
    image = random.normal(size=(5, 6, 4))  # rows, columns, channels
    rows = to_rows(weight, 0)
    outputs = []
    for group in range(groups):
        part = image[:, :, group * (4 // groups) : (group + 1) * (4 // groups)]
        outputs.append(channels_last_patches(part, (3, 2)) @ rows[group * 8 // groups : (group + 1) * 8 // groups].T)
    found = np.concatenate(outputs, axis=1).T.reshape(8, 3, 5)
    tensor = torch.from_numpy(image.transpose(2, 0, 1)[None])
    expected = torch.nn.functional.conv2d(tensor, torch.from_numpy(weight), groups=groups)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (1, 2, 2)])
def test_importance_lies_beside_its_weight(groups, kernel) -> None:
    """A weight that is its input channel's importance becomes rows that are the importance rows."""
    mean_square = np.arange(1.0, 9.0)
    shape = (12, 8 // groups, *kernel)
    weight = np.empty(shape)
    for out in range(12):
        group = out // (12 // groups)
        channels = mean_square[group * shape[1] : (group + 1) * shape[1]]
        weight[out] = channels.reshape(-1, *[1] * len(kernel))
    found = lay_out_importance(mean_square, shape, groups)
    assert found.shape == ((shape[1] * np.prod(kernel),) if groups == 1 else (12, shape[1] * np.prod(kernel)))
    assert np.broadcast_to(found, (12, found.shape[-1])).tolist() == to_rows(weight, 0).tolist()


@pytest.mark.parametrize("bias", [0.05, 0.13, -0.13, 50.0])
def test_a_huge_bias_beside_tiny_weights_leaves_room_for_the_products(bias: float) -> None:
    """In 64 bits no sum of bias and products can leave 32, and what the kernel computes is near the float model."""
    net = Net(0)
    x, inputs = net.input("x", 64), 64
    weight, b = net.constant(net.random.uniform(0.5e-6, 1e-6, (inputs, 3))), net.constant([bias, bias / 2, 0.0])
    net.output(net.op("Gemm", x, weight, b, name="dense"))
    data = {"x": np.random.default_rng(1).uniform(size=(32, inputs)).astype(np.float32)}
    data["x"][0] = 1.0  # every product at its largest
    made = quantize_net(net, data)
    layer = made.layers["dense"]
    products = 255 * np.abs(layer.weight.numpy().astype(np.int64)).sum(axis=0)
    assert (products + np.abs(layer.bias.astype(np.int64)) < 2**31).all()  # type: ignore[union-attr]
    (expected,), (got,) = made.outputs(float_model=True), made.outputs()
    np.testing.assert_allclose(got[:, :2], expected[:, :2], rtol=2e-3)


def test_importance_of_a_dense_layer_is_one_number_an_input() -> None:
    mean_square = np.array([1.0, 4.0, 9.0])
    assert lay_out_importance(mean_square, (3, 7), 1).tolist() == [1.0, 4.0, 9.0]


@given(arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 7)), elements=st.integers(-127, 127)))
def test_excess_is_what_a_pair_of_one_sign_has_too_much(integers) -> None:
    found = compute_excess(integers, 128)
    assert found.shape == (len(integers), -(-integers.shape[1] // 2))
    for row, amounts in zip(integers.tolist(), found.tolist(), strict=True):
        for k, amount in enumerate(amounts):
            a, b = [*row, 0][2 * k : 2 * k + 2]
            assert amount == (max(abs(a) + abs(b) - 128, 0) if a * b > 0 else 0)
    assert compute_excess(integers.astype(np.int8), 128).tolist() == found.tolist()  # sums of bytes do not wrap


def test_without_excess_no_pair_saturates_and_with_it_one_does() -> None:
    allowed = within(FIRST, SECOND, 128)
    sums = 255 * np.where(FIRST > 0, FIRST, 0) + 255 * np.where(SECOND > 0, SECOND, 0)
    lows = 255 * np.where(FIRST < 0, FIRST, 0) + 255 * np.where(SECOND < 0, SECOND, 0)
    assert sums[allowed].max() <= 32767
    assert lows[allowed].min() >= -32768
    assert ((sums > 32767) | (lows < -32768))[~allowed].all()
    pairs = np.stack([FIRST.ravel(), SECOND.ravel()], axis=1)
    assert (compute_excess(pairs, 128)[:, 0] == 0).tolist() == allowed.ravel().tolist()


exacts = st.floats(-140, 140).map(lambda v: round(v, 3))


@given(exacts, exacts, st.floats(0, 100), st.floats(0, 100), st.sampled_from([127, 128, 140, 180]))
@settings(max_examples=300, deadline=None)
def test_a_repaired_pair_is_the_best_of_all_pairs(x1, x2, h1, h2, limit) -> None:
    exact = np.array([[x1, x2]])
    integers = np.clip(np.rint(exact), -127, 127)
    found = enforce_pair_limit(integers, exact, np.array([h1, h2]), limit)
    assert within(found[:, 0], found[:, 1], limit).all()
    assert np.abs(found).max() <= 127
    assert (found == np.rint(found)).all()
    error = h1 * (FIRST - x1) ** 2 + h2 * (SECOND - x2) ** 2
    best = error[within(FIRST, SECOND, limit)].min()
    assert h1 * (found[0, 0] - x1) ** 2 + h2 * (found[0, 1] - x2) ** 2 == pytest.approx(best, rel=1e-9, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_repair_touches_only_pairs_that_offend(seed, length, per_row) -> None:
    random = np.random.default_rng(seed)
    exact = random.normal(size=(4, length)) * 80
    integers = np.clip(np.rint(exact), -127, 127)
    importance = random.random((4, length) if per_row else length)
    before = integers.copy()
    found = enforce_pair_limit(integers, exact, importance, 128)
    assert found.shape == integers.shape
    assert integers.tolist() == before.tolist()
    over = np.repeat(compute_excess(integers, 128) > 0, 2, axis=1)[:, :length]
    assert (found[~over] == integers[~over]).all()
    assert not compute_excess(found, 128).any()
    for k in range(0, length - 1, 2):  # a pair alone becomes what it becomes in its row
        pair = slice(k, k + 2)
        of_pair = np.broadcast_to(importance, exact.shape)[:, pair]
        assert enforce_pair_limit(integers[:, pair], exact[:, pair], of_pair, 128).tolist() == found[:, pair].tolist()


def error_of(weight: np.ndarray, scale: np.ndarray, importance: np.ndarray, limit: int | None) -> np.ndarray:
    integers = round_rows(weight, scale, importance, limit)
    return (importance * (weight - integers * scale[:, None]) ** 2).sum(axis=1)


limits = pytest.mark.parametrize("limit", [None, 128])


@limits
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(-60, 60))
@settings(max_examples=40, deadline=None)
def test_a_searched_scale_is_never_worse_than_the_largest_weight_over_127(limit, seed, length, exponent) -> None:
    random = np.random.default_rng(seed)
    weight = (random.normal(size=(5, length)) * 2.0**exponent).astype(np.float32).astype(np.float64)
    importance = random.random((5, length)) + 1e-3
    scale = search_scales(weight, importance, limit)
    assert scale.tolist() == scale.astype(np.float32).tolist()
    plain = (np.abs(weight).max(axis=1) / 127).astype(np.float32).astype(np.float64)
    assert (error_of(weight, scale, importance, limit) <= error_of(weight, plain, importance, limit)).all()
    integers = round_rows(weight, scale, importance, limit)
    assert np.abs(integers).max() <= 127
    if limit:
        assert not compute_excess(integers, limit).any()


def test_the_search_gains_where_a_weight_sticks_out() -> None:
    """One large weight whose input is always near zero: clipping it buys the others finer steps."""
    weight = np.append(np.random.default_rng(0).normal(size=63), 8.0)[None]
    importance = np.append(np.ones(63), 1e-4)
    plain = np.array([8.0 / 127])
    found = search_scales(weight, importance, None)
    assert error_of(weight, found, importance, None)[0] < 0.5 * error_of(weight, plain, importance, None)[0]
    even = search_scales(weight, np.ones(64), None)
    assert even[0] > found[0]


def test_rows_without_a_limit_are_rounded_to_nearest() -> None:
    weight = np.array([[0.5, 1.5, 2.5, -300.0, 126.6]])
    assert round_rows(weight, np.ones(1), np.ones(5), None).tolist() == [[0, 2, 2, -127, 127]]


@limits
def test_least_bounds_the_scales(limit) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(200, 9))
    free = search_scales(weight, np.ones(9), limit)
    least = free * random.uniform(0.5, 3, 200)
    bound = search_scales(weight, np.ones(9), limit, least)
    assert (bound >= least).all()
    assert bound.tolist() == bound.astype(np.float32).tolist()
    plain = np.maximum(np.abs(weight).max(axis=1) / 127, least)
    assert (error_of(weight, bound, np.ones(9), limit) <= error_of(weight, plain, np.ones(9), limit) * (1 + 1e-4)).all()
    assert search_scales(weight, np.ones(9), limit, np.zeros(200)).tolist() == free.tolist()


@limits
def test_channels_of_zeros_have_the_scale_of_the_others(limit) -> None:
    weight = np.zeros((3, 4))
    weight[1] = [0.1, -0.2, 0.3, 0.0]
    scale = search_scales(weight, np.ones(4), limit)
    assert (scale > 0).all()
    assert scale[0] == pytest.approx(0.3 / 127, rel=1)
    assert not round_rows(weight, scale, np.ones(4), limit)[[0, 2]].any()


@limits
def test_a_weight_of_zeros_leaves_the_bias_a_scale(limit) -> None:
    """Its bias is divided by input scale x weight scale, so that product must not vanish, nor be coarse."""
    scale = search_scales(np.zeros((3, 4)), np.ones(4), limit)
    assert (np.float32(1e-30) * scale.astype(np.float32) > 0).all()
    assert (scale < 1e-5).all()
    assert search_scales(np.zeros((3, 4)), np.ones(4), limit, np.array([0, 1.0, 2.0])).tolist()[1:] == [1.0, 2.0]


@limits
def test_a_bound_below_every_scale_needs_no_search_of_its_own(limit) -> None:
    """Other ranges of a layer's input move the bound that its bias sets, and hardly ever the scales."""
    random = np.random.default_rng(5)
    weight, importance = random.standard_normal((70, 12)) * 10.0 ** random.integers(-6, 3, (70, 1)), random.random(12)
    free, searched = search_scales(weight, importance, limit), len(FOUND)
    for share in (0.0, 1e-6, 0.1, 0.499):
        assert np.array_equal(search_scales(weight, importance, limit, share * np.abs(weight).max(axis=1) / 127), free)
    assert len(FOUND) == searched
    bound = search_scales(weight, importance, limit, 0.99 * free)
    assert (bound >= 0.99 * free).all()
    assert len(FOUND) == searched + 1


@limits
@pytest.mark.parametrize("size", [1e-37, 1e-30, 1.0, 1e30, 3e38])
def test_tiny_and_huge_weights(limit, size) -> None:
    weight = np.array([[1.0, -0.5, 0.25, 0.9], [1e-3, 1e-3, -1e-3, 0.0]]) * size
    scale = search_scales(weight, np.ones(4), limit)
    assert np.isfinite(scale).all()
    assert (scale >= np.finfo(np.float32).tiny).all()
    integers = round_rows(weight, scale, np.ones(4), limit)
    assert np.abs(integers).max() <= 127
    if size > 1e-35:
        np.testing.assert_allclose(integers * scale[:, None], weight, atol=0.02 * np.abs(weight).max(axis=1).max())


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_weights_are_written_out_by_hand(bits: int) -> None:
    """Row by row: middle of the range added, the first weight in the low half of its byte, zeros behind the last."""
    block, inputs, middle = 16, 21, 2 ** (bits - 1)
    integers = np.random.default_rng(bits).integers(-middle, middle, (3, inputs)).astype(np.int8)
    expected = []
    for row in integers.tolist():
        codes = [w + middle for w in row] + [middle] * (2 * block - inputs)
        packed = codes if bits == 8 else [codes[i] + 16 * codes[i + 1] for i in range(0, 2 * block, 2)]
        expected.append([packed[: len(packed) // 2], packed[len(packed) // 2 :]])
    assert pack_blocks(integers, block, bits).tolist() == expected
