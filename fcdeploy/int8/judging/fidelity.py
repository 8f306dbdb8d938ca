"""How near the outputs of an int8 model are to those of the float one on samples."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arrays import Arrays
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import split_into_chunks

EXACT_DB = 200.0  # where nothing differs: what is kept in files and averaged has to be a number


def measure_sqnr(model: ir.Model, int8: ir.Model, samples: Arrays) -> list[float]:
    """SQNR of every floating-point output in dB, within EXACT_DB on both sides; none of integer outputs.

    Runs whose outputs have other shapes do not count, since rows that depend on values have no counterparts; an output
    that has another shape in all of them is as far from float as can be.
    """
    exact, rounded = Session(model), Session(int8)
    sums: dict[str, Fidelity | None] = {}
    for _, part in split_into_chunks(model, samples):
        for name, f, q in zip(exact.outputs, exact.run(part), rounded.run(part), strict=True):
            if np.asarray(f).dtype.kind == "f":
                before = sums.setdefault(name, None)
                if f.shape == q.shape:
                    sums[name] = (before or Fidelity()) + measure_fidelity(f, q)
    return [-EXACT_DB if one is None else max(-EXACT_DB, min(one.sqnr_db, EXACT_DB)) for one in sums.values()]


def format_noise(decibels: float) -> str:
    """For people: 41.2 dB, or that nothing differs."""
    return "identical" if decibels >= EXACT_DB else f"{decibels:.1f} dB"
