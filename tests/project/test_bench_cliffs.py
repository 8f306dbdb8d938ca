"""`scripts/bench cliffs` on a few of its networks: what is below the floor is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcdeploy.runtime.session import Session
from scripts.benchmarks.cliffs import CLIFFS, draw_network, try_network


@pytest.mark.parametrize("number", [0, 3])
def test_no_cliff_is_silent(number: int, tmp_path: Path) -> None:
    assert try_network(number, 0, tmp_path, costs="none").verdict in ("held", "said")


def test_networks_follow_from_their_seed(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    path, cliff, calibration, _ = draw_network(1, 0, tmp_path)
    other, again, same, _ = draw_network(1, 0, tmp_path / "again")
    assert (cliff, path.read_bytes()) == (again, other.read_bytes())
    np.testing.assert_array_equal(calibration["x"], same["x"])
    assert len({draw_network(n, 0, tmp_path)[1] for n in range(len(CLIFFS))}) == len(CLIFFS)
    assert np.isfinite(Session(path).run({"x": calibration["x"][:8]})[0]).all()
