"""Files of samples, for tests of what reads them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import Sample

RNG = np.random.default_rng(0)


def spec(name: str, *shape: int | None, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


X = spec("x", None, 3, 4)


def samples(data: Any, *inputs: TensorSpec, **options: Any) -> list[Sample]:
    how = DataFormat(options.pop("preprocess", None))
    return list(open_source(data, inputs or (X,), format=how, **options))


def npz(folder: Path, compressed: bool = False, /, **arrays: Any) -> Path:
    path = folder / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def header(shape: tuple[int, ...], descr: str = "<f4", order: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": order, "shape": shape})
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Table:
    """What tables of pandas and polars have in common."""

    def __init__(self, columns: list[str], cells: Any) -> None:
        self.columns, self.cells = columns, cells

    def to_numpy(self) -> Any:
        return self.cells
