"""A few of what scripts/sweep runs by hundreds: sandwiches of operators, and models of the backend suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcdeploy.tables.operators import OPERATORS
from scripts.sweeps.public import list_public_models
from scripts.sweeps.sandwiches import SWEPT
from scripts.sweeps.sweep import check_line, check_prepared, draw_all, judge


def test_every_operator_of_the_table_that_has_kernels_is_drawn() -> None:
    left = {"QuantizeLinear", "DequantizeLinear", "LSTM", "GRU", "RNN"}
    assert not {name for name, row in OPERATORS.items() if row.role not in ("float", "shape")} - set(SWEPT) - left


@pytest.mark.parametrize("op", ["AveragePool", "Resize", "Concat"])
def test_sandwiches(op: str, tmp_path: Path) -> None:
    (sandwich,) = draw_all(1, 3, [op])
    verdict = judge(sandwich, tmp_path)
    assert verdict.good, f"{verdict}: {sandwich.said}"


@pytest.mark.parametrize("name", ["pytorch-operator/test_operator_conv", "simple/test_sequence_model1"])
def test_public_models(name: str, tmp_path: Path) -> None:
    public = next(one for one in list_public_models([name]) if one.name == name)
    path = tmp_path / "model.onnx"
    path.write_bytes(public.content)
    assert check_prepared(path, public) == "equal"
    assert check_line(path, public, tmp_path).partition(":")[0] in ("quantized", "one sentence")
