"""`scripts/bench big` on a model that is not: it measures, compares and writes its own section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory of processes is read from /proc")
def test_a_small_large_model(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\nother words\n")
    options = ["big", "--width", "96", "--layers", "2", "--output", str(page)]
    command = [sys.executable, "-m", "scripts.benchmarks.bench", *options]
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"
    }  # scripts lie in the root
    environment["PYTHONPATH"] = "tests/helpers"
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    text = page.read_text()
    assert "other words" in text
    assert "Written by `scripts/bench big --width 96 --layers 2` on" in text
    peaks = dict(re.findall(r"^\| (float session|`calibrate`|`quantize`) \| (\d+) \|", text, re.MULTILINE))
    assert len(peaks) == 3
    assert all(10 < int(peak) < 2000 for peak in peaks.values())
    ours, reference = (float(value) for value in re.findall(r"\| ([\d.]+) dB \|", text))
    assert ours > 28
    assert reference > 28
