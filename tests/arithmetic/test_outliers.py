"""Tails and outlier channels against numbers that were drawn with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcdeploy.arithmetic.histogram import compute_moments, make_histogram
from fcdeploy.arithmetic.outliers import find_outliers
from fcdeploy.records.calibration import TensorRecord


def record(name: str, x: np.ndarray) -> TensorRecord:
    x = x.astype(np.float32)
    return TensorRecord(name, "activation", "layer", "Conv", x.shape, make_histogram(x), compute_moments(x, 1))


def test_a_tail_and_an_outlier_channel_are_named_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    usual = draw.normal(size=(200, 8, 6, 6))
    tail, channel = usual.copy(), usual.copy()
    tail[7, 2, 3, 3] = -60.0
    channel[:, 5] *= 40
    one, two = find_outliers([record("usual", usual), record("tail", tail), record("channel", channel)])
    assert (one.tensor, one.channel) == ("channel", 5)
    assert one.times == pytest.approx(40, rel=0.1)
    assert str(one) == f"channel 5 of 'channel' is {one.times:.0f} times as large as others"
    assert (two.tensor, two.channel) == ("tail", None)
    assert two.times == pytest.approx(60 / np.quantile(np.abs(usual), 1 - 2e-4), rel=0.1)
    assert str(two) == f"the largest number of 'tail' is {two.times:.0f} times what 99.98 % stay within"


def test_a_channel_that_nothing_with_weights_reads_is_found_by_its_share() -> None:
    x = np.random.default_rng(0).normal(size=(50, 16, 6, 6))
    x[:, 3] *= 100
    (one,) = find_outliers([replace(record("between", x), moments=None)])
    assert (one.share, one.channel) == (0.1, None)
    assert one.times == pytest.approx(np.abs(x).max() / np.quantile(np.abs(x), 0.8), rel=0.1)


def test_numbers_that_are_all_zero_have_neither() -> None:
    assert not find_outliers([record("zeros", np.zeros((4, 3, 2, 2)))])
