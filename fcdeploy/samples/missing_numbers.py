"""NaN in samples of a model that fills in missing numbers: it may do so for some elements of an input and not for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.records.signature import TensorSpec, format_shape
from fcdeploy.runtime.engine import Engine
from fcdeploy.samples.layout import stack_samples
from fcdeploy.samples.source import get_fixed_batch

Check = Callable[[Arrays, str, str], None]


def check_filled(session: Engine, inputs: Sequence[TensorSpec]) -> Check | None:
    """A check of one sample (its inputs, what to call it, its source): raises where NaN in it makes an output NaN.

    None where no input takes NaN, and for streams, whose answers depend on what was before.
    """
    if not any(spec.missing for spec in inputs) or any(spec.state for spec in inputs):
        return None

    def check(sample: Arrays, place: str, source: str) -> None:
        holes = [(name, tuple(at)) for name, value in sample.items() for at in np.argwhere(_is_nan(value)).tolist()]
        if not holes or not (output := _find_nan(session, inputs, sample)):
            return
        culprit = next((hole for hole in holes if _find_nan(session, inputs, _keep_hole(sample, *hole))), holes[0])
        name, at = culprit
        raise FcdeployError(
            f"input {name!r}: {place} has nan at {format_shape(at)}, which the model does not fill in: "
            f"its output {output!r} becomes NaN",
            f"repair or remove the sample in {source}; fcdeploy calibrate --skip-bad leaves such samples out",
        )

    return check


def _find_nan(session: Engine, inputs: Sequence[TensorSpec], sample: Arrays) -> str:
    """The first output that holds NaN for a sample; empty where none does."""
    results = session.run(stack_samples([sample] * (get_fixed_batch(inputs) or 1), inputs))
    pairs = zip(session.outputs, results, strict=True)
    return next((name for name, value in pairs if _is_nan(np.asarray(value)).any()), "")


def _keep_hole(sample: Arrays, name: str, at: tuple[int, ...]) -> Arrays:
    """The sample with this NaN, and zeros in place of all others."""
    kept = {key: np.where(_is_nan(value), value.dtype.type(0), value) for key, value in sample.items()}
    kept[name][at] = np.nan
    return kept


def _is_nan(value: Array) -> Array:
    return np.isnan(value) if value.dtype.kind == "f" else np.zeros(value.shape, bool)
