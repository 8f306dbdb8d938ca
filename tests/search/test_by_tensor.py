"""Ranges that fit the tensor: where no one method fits all, each tensor that matters gets its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import Net

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.commands.quantize import quantize
from fcdeploy.records.plan import Effort
from fcdeploy.runtime.session import Session

SAMPLES = 3840


def save_two_tails(folder: Path) -> dict[str, np.ndarray]:
    """Rare large values that no weight reads in one input, and that are nearly all of the result in the other."""
    net, random = Net(0), np.random.default_rng(0)
    unread, read = (random.normal(size=(12, 6)).astype(np.float32) for _ in range(2))
    unread[0] = 0
    for name, weight in (("x", unread), ("u", read)):
        net.output(net.op("Abs", net.op("MatMul", net.input(name, 12), net.constant(weight))))
    net.save(folder / "net.onnx")
    x, u = random.normal(size=(2, SAMPLES, 12)).astype(np.float32)
    x[::320, 0], u[::320, 0] = 200, 60
    data = {"x": x, "u": u}
    np.savez(folder / "data.npz", **data)
    return data


@pytest.mark.parametrize("effort", ["balanced", "best"])
def test_tensors_get_methods_of_their_own_where_none_fits_all(
    effort: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcdeploy.int8.refining.reconstruct.STEPS", 20)  # this is about ranges
    data = save_two_tails(tmp_path)
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none"}
    floats = Session(tmp_path / "net.onnx").run(data)

    def worst(name: str) -> float:
        answers = Session(tmp_path / name).run(data)
        return min(measure_fidelity(f, q).sqnr_db for f, q in zip(floats, answers, strict=True))

    alike = []
    for method in METHODS:
        quantize(tmp_path / "net.onnx", output=tmp_path / f"{method}.onnx", ranges=method, floor="none", **options)
        alike.append(worst(f"{method}.onnx"))
    asked = {**options, "effort": effort, "floor": f"99,{max(alike) + 3:.1f}"}
    held = quantize(tmp_path / "net.onnx", output=tmp_path / "own.onnx", save_plan=tmp_path / "plan.json", **asked)
    assert held.passed
    assert held.values["floor"]["left_out"] == []
    assert worst("own.onnx") > max(alike) + 3
    assert any(line.startswith("taken: ") and "by other methods (" in line for line in held.lines)
    quantize(
        tmp_path / "net.onnx", output=tmp_path / "again.onnx", plan=tmp_path / "plan.json", data=tmp_path / "data.npz"
    )
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "own.onnx").read_bytes()
