"""What a fresh interpreter imports."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = {"onnx", "onnx_ir", "onnxscript", "torch", "click", "rich", "safetensors", "google", "ml_dtypes"}


def imported(code: str) -> set[str]:
    """Packages that a fresh interpreter has loaded after this code."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    return set(done.stdout.splitlines()[-1].split())
