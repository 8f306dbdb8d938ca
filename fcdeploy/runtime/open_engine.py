"""A file that runs, opened with what runs it: a library of `fcdeploy compile` by itself, any other in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.native_library import NativeEngine, load_native
from fcdeploy.runtime.session import Session

ELF = b"\x7fELF"


def open_engine(path: str | Path, *, threads: int | None = None) -> Engine:
    """Load it. A library runs in one thread, on any number of samples along the first axis."""
    with Path(path).open("rb") as file:
        if file.read(len(ELF)) != ELF:
            return Session(path, threads=threads)
    model = load_native(path)
    inputs, outputs = (
        [TensorSpec(name, np.dtype(dtype), (None, *shape[1:])) for name, (dtype, shape) in each.items()]
        for each in (model.inputs, model.outputs)
    )
    return NativeEngine(model, inputs, outputs, f"library {str(path)!r}")
