"""Trained dense and convolutional networks to small, fast, proven int8 ONNX models for CPUs.

The functions here are the commands' names: `fcdeploy.calibrate(...)` is `fcdeploy calibrate`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# onnxruntime's Linux wheels, from 1.29.0 on, write a device id and a database below the user's cache folder and look up a
# host of their maker at every session, unless this stands in the environment before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "bench", "bundle", "calibrate", "compile", "export", "inspect", "load_bundle", "load_native", "quantize", "validate",
    "verify",
]  # fmt: skip
ELSEWHERE = {"load_bundle": "bundles.load", "load_native": "native.load"}
"""Functions that are no commands, and the modules they are in."""


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: `import fcdeploy` alone loads neither onnxruntime nor torch.

    Its errors name its parameters, where the command line's name options.
    """
    if name not in __all__:
        raise AttributeError(f"module 'fcdeploy' has no attribute {name!r}")
    module = ELSEWHERE.get(name, f"commands.{name}")
    function = getattr(importlib.import_module(f"fcdeploy.{module}"), name)
    return importlib.import_module("fcdeploy.errors").in_python_words(function)
