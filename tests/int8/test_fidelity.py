"""How far a model's outputs are from another's, also where how many rows there are depends on values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks import Array, Net

from fcdeploy.int8.judging.fidelity import EXACT_DB, measure_sqnr


def rows_above(threshold: float) -> ir.Model:
    """Where x exceeds the threshold: a row for each place, as many as there are."""
    net = Net()
    found = net.op("NonZero", net.op("Greater", net.input("x", 4), net.constant(threshold)))
    return ir.from_proto(net.output(net.op("Cast", net.op("Transpose", found, perm=[1, 0]), to=1)).model())


@pytest.fixture
def samples() -> dict[str, Array]:
    return {"x": np.random.default_rng(0).random((64, 4), np.float32)}


def test_rows_that_are_never_as_many_are_as_far_as_can_be(samples: dict[str, Array]) -> None:
    assert measure_sqnr(rows_above(0.9), rows_above(0.0), samples) == [-EXACT_DB]


def test_the_same_rows_are_exact_and_so_is_nothing_found(samples: dict[str, Array]) -> None:
    for threshold in (0.5, 2.0):
        assert measure_sqnr(rows_above(threshold), rows_above(threshold), samples) == [EXACT_DB]
