"""Trained dense and convolutional networks to small, fast, proven int8 ONNX models for CPUs.

The functions have the names of the commands: `fcdeploy.quantize(...)` is `fcdeploy quantize`.  They take models as files,
bytes, `onnx.ModelProto`, `onnx_ir.Model` or `torch.nn.Module`, samples as arrays, tables, loaders, generators or files,
and return values whose fields are the keys of `--json`:

    import fcdeploy

    made = fcdeploy.quantize(module, data=images, output="model.int8.onnx")
    found = fcdeploy.validate("model.int8.onnx", against=module, data={"image": held_out, "label": labels})
    print(found.drop, found)

A mistake raises `fcdeploy.FcdeployError`, with a message and a hint.
"""

from __future__ import annotations

import importlib
import os

from fcdeploy.lazy_imports import defer_sympy

# onnxruntime's Linux wheels, from 1.29.0 on, write a device id and a database below the user's cache folder and look up a
# host of their maker at every session, unless this stands in the environment before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
defer_sympy()

__version__ = "0.1.0"
FUNCTIONS = (
    "bench", "bundle", "calibrate", "compile", "conv_to_dense", "dense_to_conv", "doctor", "export", "inspect",
    "load_bundle", "load_native", "quantize", "repair", "report", "split", "start_server", "validate", "verify",
)  # fmt: skip
OTHERS = {"load_bundle": "bundles.load", "load_native": "runtime.native_library", "start_server": "api.server"}
"""Functions that are no commands, and the modules they are in."""
RESULTS = (
    "BenchResult", "BundleResult", "CalibrationResult", "CompileResult", "DoctorResult", "ExportResult", "InspectResult",
    "PlanResult", "QuantizeResult", "RepairResult", "ReportResult", "SplitResult", "TransformResult",
    "ValidateResult", "VerifyResult",
)  # fmt: skip
__all__ = [*FUNCTIONS, *RESULTS, "FcdeployError"]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is first used: `import fcdeploy` alone loads neither onnxruntime nor torch."""
    if name in OTHERS:  # which need less than the commands do: a bundle runs without onnx
        function = getattr(importlib.import_module(f"fcdeploy.{OTHERS[name]}"), name)
        return importlib.import_module("fcdeploy.python_words").in_python_words(function)
    if name in FUNCTIONS:
        return importlib.import_module("fcdeploy.api.functions").find_function(name)
    if name in RESULTS:
        return getattr(importlib.import_module("fcdeploy.api.results"), name)
    if name == "FcdeployError":
        return importlib.import_module("fcdeploy.errors").FcdeployError
    raise AttributeError(f"module 'fcdeploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
