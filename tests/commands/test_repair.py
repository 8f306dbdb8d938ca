"""Models of forms that other quantizers write: warned of by `inspect`, and written again so that they run in every way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, quantize_net, random_data

from fcdeploy.arrays import Array
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.repair import repair
from fcdeploy.runtime.probes.traps import TRAPS
from fcdeploy.runtime.session import Session

FORMS = {
    "activation scales by channel, Conv": "a scale for each channel",
    "activation scales by channel, depthwise": "a scale for each channel",
    "zero points shared by two weights": "the same integers or zero point",
    "no zero points, MatMul, 32-bit sums": "has no zero point",
}


def run_every_way(model: Path, feeds: Mapping[str, Array]) -> list[Array]:
    """With default options, and with 32-bit sums."""
    return [Session(model, precise=precise).run(feeds)[0] for precise in (False, True)]


@pytest.mark.parametrize("fact", FORMS)
def test_what_other_tools_write_is_warned_of_and_repaired(fact: str, tmp_path: Path) -> None:
    probe = TRAPS[fact]()
    file, mended = tmp_path / "m.onnx", tmp_path / "mended.onnx"
    file.write_bytes(probe.model)
    with fails("onnxruntime", "fcdeploy transform repair"):
        run_every_way(file, probe.feeds)
    (warning,) = (line for line in inspect(file).warnings if "transform repair" in line)
    assert FORMS[fact] in warning
    report = repair(file, output=mended)
    assert report.values["equal"] and report.values["repaired"]
    (literal,) = Session(file, optimize=False).run(probe.feeds)
    for found in run_every_way(mended, probe.feeds):
        np.testing.assert_allclose(found, literal, atol=0.05)
    assert not inspect(mended).warnings
    with fails("there is nothing to repair", "fcdeploy inspect"):
        repair(mended, output=tmp_path / "again.onnx")


def test_files_of_our_own_need_no_repair(tmp_path: Path) -> None:
    net = Net(3)
    x = net.conv(net.op("Relu", net.conv(net.input("x", 8, 6, 6), 8, 8)), 8, 8, group=8)
    line = quantize_net(net.output(x), random_data(3, 4, x=(8, 6, 6)))
    ir.save(line.int8, tmp_path / "ours.onnx")
    with fails("there is nothing to repair in", "fcdeploy inspect"):
        repair(tmp_path / "ours.onnx", output=tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
