"""Whether two files have the same inputs and outputs, as the float and int8 files of one network must."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.graph.model import TensorSpec, input_specs, output_specs
from fcdeploy.records.signature import is_shape_alike


def check_same_signature(one: ir.Model, other: ir.Model, name: str, other_name: str, *, dtypes: bool = True) -> None:
    """Raise unless both models have the same inputs and outputs: names, order, shapes, and dtypes where asked."""
    ends = ("input", input_specs(one), input_specs(other)), ("output", output_specs(one), output_specs(other))
    for kind, mine, theirs in ends:
        hint = f"give the float model that {name!r} was made from; fcdeploy inspect shows both models' {kind}s"
        if [spec.name for spec in mine] != [spec.name for spec in theirs]:
            has, others = (quote_names(spec.name for spec in specs) or "none" for specs in (mine, theirs))
            both = f"{name!r} has {has}, {other_name!r} has {others}"
            raise FcdeployError(f"the models differ in their {kind}s: {both}", hint)
        for a, b in zip(mine, theirs, strict=True):
            if not _is_compatible(a, b, dtypes=dtypes):
                raise FcdeployError(
                    f"the models differ in {kind} {a.name!r}: {name!r} has {a}, {other_name!r} has {b}", hint
                )


def _is_compatible(a: TensorSpec, b: TensorSpec, *, dtypes: bool) -> bool:
    if dtypes and a.dtype != b.dtype:
        return False
    return not a.shape or not b.shape or is_shape_alike(a.shape, b.shape)  # () is unknown, or a scalar
