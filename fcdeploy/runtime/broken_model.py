"""What is wrong with a model file that nobody foresaw: by ONNX's own checks, and by a run of onnxruntime on zeros."""

from __future__ import annotations

import math

import numpy as np
import onnx

from fcdeploy.errors import FcdeployError, first_line
from fcdeploy.runtime.session import Session

NO_SHAPE = "Field 'shape' of 'type' is required"  # of an output, which onnxruntime does not ask for
LARGEST = 1 << 26  # elements of an input of zeros
LENGTHS = (1, 2, 4, 16, 64)  # of free axes, tried one behind another


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
    """Why onnxruntime does not run a file on zeros and empty texts; "" where it does, None where they cannot tell."""
    try:
        session = Session(path, threads=1, optimize=False)
    except FcdeployError as fault:
        return fault.message
    free = any(length is None for spec in session.input_specs for length in spec.shape)
    said = None
    for any_length in LENGTHS if free else LENGTHS[:1]:
        shapes = {spec: [length or any_length for length in spec.shape] for spec in session.input_specs}
        if max(map(math.prod, shapes.values()), default=0) > LARGEST:
            break
        kinds = {spec: "" if spec.dtype == object else 0 for spec in shapes}
        try:
            session.run({spec.name: np.full(shape, kinds[spec], spec.dtype) for spec, shape in shapes.items()})
        except FcdeployError as fault:
            said = None if free else fault.message  # of a free axis other lengths may run
        else:
            return ""
    return said
