"""Kernels under gcc's sanitizers, on a few drawn shapes; scripts/sanitize draws many. Skipped where gcc has no libasan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FEW = "test_convolutions or test_depthwise or test_dense or test_pools or test_moves or test_softmax or test_tables"


def test_kernels_under_sanitizers() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    found = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(each).is_file() for each in found):
        pytest.skip("gcc has no sanitizers here")
    environment = {
        **os.environ, "NATIVE_SANITIZE": "plain", "NATIVE_EXAMPLES": "4", "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "test_native_kernels.py",
        "-k",
        FEW,
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
