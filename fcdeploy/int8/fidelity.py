"""How near the outputs of an int8 model are to those of the float one on samples."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arrays import Arrays
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import split_into_chunks

EXACT_DB = 200.0  # where nothing differs: what is kept in files and averaged has to be a number


def measure_sqnr(model: ir.Model, int8: ir.Model, samples: Arrays) -> list[float]:
    """SQNR of every floating-point output in dB, within EXACT_DB on both sides; none of integer outputs."""
    exact, rounded = Session(model), Session(int8)
    by_chunk = []
    for _, part in split_into_chunks(model, samples):
        pairs = zip(exact.run(part), rounded.run(part), strict=True)
        by_chunk.append([measure_fidelity(f, q) for f, q in pairs if np.asarray(f).dtype.kind == "f"])
    outputs = [sum(rest, first).sqnr_db for first, *rest in zip(*by_chunk, strict=True)]
    return [max(-EXACT_DB, min(db, EXACT_DB)) for db in outputs]
