"""What is wrong with a model file that nobody foresaw: by ONNX's own checks, and by a run of onnxruntime on zeros."""

from __future__ import annotations

import math

import numpy as np
import onnx

from fcdeploy.errors import FcdeployError, first_line
from fcdeploy.runtime.session import Session

NO_SHAPE = "Field 'shape' of 'type' is required"  # of an output, which onnxruntime does not ask for
LARGEST = 1 << 26  # elements of an input of zeros


def explain_broken_model(path: str) -> str:
    """Why a model can be neither checked nor run, as a sentence; "" where it runs, whatever ONNX says of it."""
    failed = _run_on_zeros(path)
    return "" if failed == "" else _check(path) or failed or ""


def _check(path: str) -> str:
    """What ONNX's own checks say against a file; "" where they have nothing."""
    try:
        onnx.checker.check_model(path)
        onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    except Exception as fault:  # the C++ side throws whatever it likes
        return "" if NO_SHAPE in str(fault) else first_line(fault)
    return ""


def _run_on_zeros(path: str) -> str | None:
    """Why onnxruntime does not run a file; "" where it does, None where zeros cannot tell."""
    try:
        session = Session(path, threads=1, optimize=False)
        feeds = {}
        for spec in session.input_specs:
            shape = [length or 1 for length in spec.shape]
            if math.prod(shape) > LARGEST or spec.dtype == object:
                return None
            feeds[spec.name] = np.zeros(shape, spec.dtype)
        session.run(feeds)
    except FcdeployError as fault:
        return fault.message
    return ""
