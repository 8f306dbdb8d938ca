"""The shapes that native code is made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fcdeploy.graph.model import TensorSpec


def fill_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """`shapes`, and of one sample those of inputs that are free along no other axis than that of samples."""
    one = {}
    for spec in inputs:
        free = [axis for axis, length in enumerate(spec.shape) if length is None]
        if len(free) == 1 and (spec.state or free == [spec.sample_axis]):
            one[spec.name] = [1 if length is None else length for length in spec.shape]
    return {**one, **shapes}
