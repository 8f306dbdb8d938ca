"""Shape inference over the whole model, without its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir


def infer_shapes(model: ir.Model) -> None:
    """Write the shape and type of every value that ONNX can infer into the model.

    Initializers over a kilobyte stay out of what is serialized, so that the size of the weights does not matter.
    A model that inference cannot digest keeps the shapes it has: passes that need one then decline and say so.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    outputs = [(value, value.type, value.shape) for value in model.graph.outputs]
    with _silent("onnx_ir.passes.common.shape_inference"):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, kind, shape in outputs:  # the declared output is part of the contract, inference only fills gaps
        if kind is not None:
            value.type = kind
        if shape is not None:
            value.shape = shape


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
