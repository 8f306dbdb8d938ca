"""Runs of a batch by one model or two, whose answers have to be finite, and of shapes that can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.engine import Engine
from fcdeploy.samples.layout import lead_with_samples
from fcdeploy.samples.missing_numbers import check_filled
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.samples.states import StreamingSession

OTHER_MODEL = "give the float model that the int8 model was made from"


def run_both(reference: Engine, other: Engine, batch: Batch) -> tuple[Arrays, Arrays]:
    """Run both models on a batch. Outputs must be finite and of equal ranks, or FcdeployError names the sample."""
    f, q = run_model(reference, batch, "float"), run_model(other, batch, "int8")
    check_shapes({name: value.shape for name, value in f.items() if value.ndim != q[name].ndim}, q)
    return f, q


def run_model(session: Engine, batch: Batch, which: str) -> Arrays:
    """Run one model on a batch. Its outputs must be finite, or FcdeployError names the sample."""
    outputs = run_all(session, batch)
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            rows = np.isfinite(np.atleast_1d(value))
            per_sample = rows.reshape(len(rows), -1).all(axis=1)
            index = int(per_sample.argmin()) % len(batch)
            first = batch.names[index]
            if (check := check_filled(session, batch.specs)) is not None:
                source, _, place = first.rpartition(", ")
                check(batch.sample(index), place, source)
            raise FcdeployError(
                f"output {name!r} of the {which} model holds NaN or infinity for {first}, expected finite numbers",
                "look at the sample, or at the layer that overflows: fcdeploy inspect MODEL",
            )
    return outputs


def run_all(session: Engine, batch: Batch) -> Arrays:
    run = session.run_batch(batch) if isinstance(session, StreamingSession) else session.run(batch.inputs)
    outputs = dict(zip(session.outputs, map(np.asarray, run), strict=True))

    def run_first() -> Arrays:
        return dict(zip(session.outputs, session.run(batch.first(1)), strict=True))

    fixed = get_fixed_batch(batch.specs) is not None
    return lead_with_samples(outputs, len(batch), alone=batch.alone, run_first=None if fixed else run_first)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], q: Arrays, hint: str = OTHER_MODEL) -> None:
    """Raise FcdeployError where an int8 output has another shape than the float one."""
    for name, shape in shapes.items():
        if shape != q[name].shape:
            raise FcdeployError(
                f"output {name!r} has shape {shape} in the float model and {q[name].shape} in the int8 model", hint
            )
