"""What a Python caller has at hand, as the files that commands read: models and samples of many kinds.

Everything lands in a temporary folder and is read back as any other file, so that one path through the commands serves
all callers, workers in other processes among them.  Samples are written one by one: a loader of any length takes the
memory of one batch, and disk for the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from math import copysign, prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeGuard, runtime_checkable

import numpy as np
import onnx
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.preprocessing.tables import arrange_columns, convert_row
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples import checks
from fcdeploy.samples.class_labels import is_numeral
from fcdeploy.samples.npy import name_files

TABLE = ".csv"  # what a table is written as for a model of several inputs
SAMPLES = "a dict of input name -> array, an array, or (array, label)"


class TorchModule(Protocol):
    """A torch.nn.Module."""

    training: bool

    def state_dict(self) -> Mapping[str, object]:
        """Its weights by name."""

    def eval(self) -> object:
        """In the mode that is deployed."""


class TorchTensor(Protocol):
    """A torch.Tensor."""

    requires_grad: bool

    def element_size(self) -> int:
        """Bytes."""


class DataFrame(Protocol):
    """A table of pandas, polars or another library: a row a sample, a column a feature."""

    @property
    def columns(self) -> Iterable[object]:
        """Their names; `label` is the label."""

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """All cells, rows first."""


@runtime_checkable
class Loader(Protocol):
    """A DataLoader of torch: batches, unless `batch_size` is None."""

    dataset: object
    batch_size: int | None

    def __iter__(self) -> Iterator[object]:
        """Its batches."""


Model = str | Path | bytes | onnx.ModelProto | ir.Model | TorchModule
"""A file, the bytes of one, or a model in memory."""

Data = str | Path | Array | DataFrame | Mapping[str, Array] | tuple[Array, Array] | Iterable[object]
"""DATA as the command line has it, arrays with a leading sample axis (alone, by name, or with labels), a table, a loader
of batches, or anything that gives one sample after the other."""


def is_file(given: object) -> TypeGuard[str | Path]:
    """Something on disk, which is left to the command."""
    return isinstance(given, str | Path)


def is_module(given: object) -> TypeGuard[TorchModule]:
    """A torch.nn.Module, as far as can be seen without importing torch."""
    return not isinstance(given, type) and callable(getattr(given, "state_dict", None)) and callable(given)


def write_model_file(given: Model, path: Path, samples: Stream | None = None) -> Path:
    """The model at `path`; a module is exported with the first of the samples."""
    if isinstance(given, bytes):
        path.write_bytes(given)
    elif isinstance(given, onnx.ModelProto):
        onnx.save(given, path)
    elif isinstance(given, ir.Model):
        ir.save(given, path)
    elif is_module(given):
        example = [] if samples is None else samples.example()
        if not example:
            raise FcdeployError(
                "a torch.nn.Module needs samples to be exported with, and there are none that are arrays",
                "fcdeploy.export(module, output='model.onnx', inputs=[(1, 3, 32, 32)])",
            )
        from fcdeploy.commands.export import export

        export(given, output=path, inputs=example)
    else:
        raise FcdeployError(
            f"a model is a {type(given).__name__}, expected a path, bytes, onnx.ModelProto, onnx_ir.Model or torch.nn.Module",
            "give the path of an .onnx file",
        )
    return path


class Stream:
    """Samples that may be looked at before the model is known: the first is kept."""

    def __init__(self, given: Data) -> None:
        self.given = given
        self.samples = iter(_list_samples(given))
        self.first = next(self.samples, None)

    def example(self) -> list[Array]:
        """The inputs of the first sample, each with a leading axis, in their order."""
        if self.first is None or hasattr(self.given, "columns"):
            return []
        return [
            np.asarray(array)[None]
            for name, array in _name_arrays(self.first, [""]).items()
            if not checks.is_label(name)
        ]

    def write(self, folder: Path, inputs: Sequence[TensorSpec], label: str = "label") -> Path:
        """A folder of one .npy a name, each with a leading sample axis; of a table that has a column for each input, a CSV.

        `label` is a table's column of labels.
        """
        if self.first is None:
            raise FcdeployError("the data hold no sample", f"give {SAMPLES} for each sample")
        rows: Iterable[Any] = chain([self.first], self.samples)
        columns = [str(name) for name in getattr(self.given, "columns", ())]
        if columns and label != "label" and label not in columns:
            raise FcdeployError(
                f"the table has no column {label!r} of labels, it has {quote_names(columns)}", "--label COLUMN"
            )
        if columns:
            for name in columns:
                _check_text(name, "the table: a column's name")
            rows = _check_cells(rows, columns, inputs, label)
        if columns and len(inputs) > 1:
            return _write_table(folder.with_suffix(TABLE), columns, rows, inputs)
        folder.mkdir()
        with ExitStack() as stack:
            files: dict[str, _Column] = {}
            for index, sample in enumerate(rows):
                arrays = (
                    _join_columns(sample, columns, inputs, label, f"the table, sample {index}")
                    if columns
                    else _name_arrays(sample, [spec.name for spec in inputs])
                )
                if not index:
                    checks.check_names(arrays, inputs, "data")
                    files = {
                        name: stack.enter_context(_Column(folder / f"{stem}.npy", name, arrays[name]))
                        for stem, name in name_files(arrays).items()
                    }
                _check_same_names(arrays, files, index)
                for name, array in arrays.items():
                    files[name].append(array, index)
        return folder


class _Column:
    """A .npy that grows: its header has room for any number of rows, and gets the number when it is closed."""

    def __init__(self, path: Path, name: str, first: Array) -> None:
        self.path, self.name, self.dtype, self.shape, self.rows = path, name, first.dtype, first.shape, 0

    def __enter__(self) -> _Column:
        self.file: BinaryIO = self.path.open("wb")
        self._write_header()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.close()

    def _write_header(self) -> None:
        described = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": described, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, array: Array, index: int) -> None:
        if array.dtype.kind == self.dtype.kind == "U" and array.shape == self.shape:
            array = self._fit_text(array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise FcdeployError(
                f"{self.name!r}: sample {index} is {array.dtype} {array.shape}, sample 0 {self.dtype} {self.shape}",
                "give samples of one shape and type, or DATA as FILE.py:FUNCTION, whose samples may differ",
            )
        self.file.write(np.ascontiguousarray(array).tobytes())
        self.rows += 1

    def _fit_text(self, array: Array) -> Array:
        """A text in the length of all; a longer one makes all before it longer."""
        if array.dtype.itemsize > self.dtype.itemsize:
            self.file.flush()
            offset = self.file.tell() - self.rows * prod(self.shape) * self.dtype.itemsize
            before = np.fromfile(self.path, self.dtype, offset=offset).astype(array.dtype)
            self.dtype = array.dtype
            self.file.seek(0)
            self._write_header()
            self.file.write(before.tobytes())
        return array.astype(self.dtype)


def _list_samples(given: Data) -> Iterator[object]:
    """One sample after the other: of arrays their rows, of a loader's batches theirs."""
    if isinstance(given, Loader) and given.batch_size is not None:
        for batch in given:
            yield from _split_rows(tuple(batch) if isinstance(batch, list) else batch)
    elif isinstance(given, Mapping | tuple) or hasattr(given, "__array__"):
        yield from _split_rows(given.to_numpy() if hasattr(given, "to_numpy") else given)
    elif hasattr(given, "columns") and hasattr(given, "to_numpy"):
        yield from given.to_numpy()
    elif isinstance(given, Iterable):
        yield from given
    else:
        raise FcdeployError(
            f"data is a {type(given).__name__}, expected arrays, a table, a loader, or samples one by one",
            f"give {SAMPLES} for each sample",
        )


def _split_rows(batch: object) -> Iterator[object]:
    """The samples of a batch: an array, a dict of them, or (array, label)."""
    if isinstance(batch, Mapping):
        arrays = {str(name): _as_array(array) for name, array in batch.items()}
        _check_same_length(arrays)
        yield from (dict(zip(arrays, row, strict=True)) for row in zip(*map(_list_rows, arrays.values()), strict=True))
    elif isinstance(batch, tuple):
        parts = [_as_array(part) for part in batch]
        _check_same_length({f"part {index}": part for index, part in enumerate(parts)})
        yield from zip(*map(_list_rows, parts), strict=True)
    else:
        yield from _list_rows(_as_array(batch))


def _list_rows(array: Array) -> Iterator[Array]:
    """Each in the dtype of all: a text by itself would be as short as it is."""
    return (array[at, ...] for at in range(len(array)))


def _as_array(given: object) -> Array:
    """Text as NumPy stores it.

    Raises FcdeployError where numbers are masked, as the rest is not what the caller meant, and where text cannot be stored.
    """
    if isinstance(given, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(given).sum())):
        raise FcdeployError(
            f"an array is masked in {masked:,} places, expected numbers there",
            "array.filled(0), or NaN where the model fills it in",
        )
    array = np.asarray(given)
    texts = array.dtype.kind == "O" and all(isinstance(text, str) for text in array.flat)
    array = array.astype(str) if texts else array
    if array.dtype.kind == "U":
        for text in array.flat:
            _check_text(str(text), "a text")
    return array


def _check_text(text: str, where: str) -> None:
    """Raises FcdeployError where half a character is in it, which neither a file nor a model can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FcdeployError(
            f"{where} is {text[:60]!r} with half a character at {error.start}, expected text that UTF-8 can hold",
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') joins halves, and replaces single ones",
        ) from None


def _check_same_length(arrays: Mapping[str, Array]) -> None:
    counts = {name: array.shape[0] if array.shape else None for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise FcdeployError(f"arrays disagree about the number of samples: {said}", "give as many labels as inputs")


def _name_arrays(sample: object, names: Sequence[str]) -> dict[str, Array]:
    """A sample's arrays by name; one without is the model's only input, the second of two its label."""
    if isinstance(sample, Mapping):
        return {str(name): _as_array(array) for name, array in sample.items()}
    several = isinstance(sample, tuple) or (
        isinstance(sample, list) and all(hasattr(one, "__array__") for one in sample)
    )
    parts = list(sample) if several and isinstance(sample, tuple | list) else [sample]
    if len(parts) > 2 or len(names) != 1:
        wants = ", ".join(map(repr, names))
        raise FcdeployError(
            f"a sample is {len(parts)} arrays without names, the model wants {wants}",
            "give a dict of input name -> array",
        )
    return {key: _as_array(part) for key, part in zip((names[0], "label"), parts, strict=False)}


def _check_cells(
    rows: Iterable[object], columns: Sequence[str], inputs: Sequence[TensorSpec], label: str
) -> Iterator[list[Any]]:
    """The rows of a table, cell by cell. Raises FcdeployError where a label or a text is missing, or cannot be stored."""
    alone = len(inputs) == 1 and not (len(columns) > 1 and inputs[0].name in columns)  # it takes all columns
    texts = {spec.name for spec in inputs if spec.dtype.kind in "OU"}
    texts = set(columns) if alone and texts else texts
    for index, row in enumerate(rows):
        cells = np.asarray(row).tolist()
        for name, cell in zip(columns, cells, strict=False):
            where = f"the table, sample {index}, column {name!r}"
            if isinstance(cell, str):
                _check_text(cell, where)
            if name == label or name.startswith("label."):
                if _is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
                    raise FcdeployError(
                        f"{where}: label is empty, it is {cell!r}", f"fill it in, or table.dropna(subset=[{name!r}])"
                    )
            elif name in texts and _is_missing(cell):
                raise FcdeployError(
                    f"{where} is {cell}, expected text",
                    f"table[{name!r}].fillna('') where a missing text is an empty one",
                )
        yield cells


def _is_missing(cell: object) -> bool:
    """None, NaN, and what pandas has in their place, which is not equal to itself either, or will not say."""
    if cell is None or isinstance(cell, list | dict):
        return cell is None
    try:
        return bool(cell != cell)
    except TypeError:  # pandas.NA
        return True


def _join_columns(
    cells: Any, columns: Sequence[str], inputs: Sequence[TensorSpec], label: str, where: str
) -> dict[str, Array]:
    """A row of a table as the model's input; the column of labels is `label`, of which words are left as they are."""
    layout = arrange_columns(columns, inputs, "the table", label=label)
    words = {
        name: np.asarray(cells[at])
        for name, at in layout.labels
        if len(cells) == len(columns) and isinstance(cells[at], str) and not is_numeral(cells[at])
    }
    layout = replace(layout, labels=tuple(row for row in layout.labels if row[0] not in words))
    arrays = convert_row(layout, cells, where)
    return {**{name: _as_array(array) for name, array in arrays.items()}, **words}


def _write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], inputs: Sequence[TensorSpec]
) -> Path:
    """The rows as a CSV, with the text of a cell where the model takes text."""
    texts = {spec.name for spec in inputs if spec.dtype.kind in "OU"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)  # whatever separates columns may stand in their names
        writer.writerow(columns)
        for cells in rows:
            named = zip(columns, cells, strict=True)
            writer.writerow([str(cell) if name in texts else _write_number(cell) for name, cell in named])
    return path


def _write_number(cell: object) -> object:
    """A number as a table says it: whole ones without a point, so that they fit an input of integers, too."""
    if isinstance(cell, float) and cell.is_integer() and (cell or copysign(1, cell) > 0):
        return int(cell)
    return int(cell) if isinstance(cell, bool) else cell


def _check_same_names(arrays: Mapping[str, Array], files: Mapping[str, object], index: int) -> None:
    if arrays.keys() != files.keys():
        raise FcdeployError(
            f"sample {index} has {', '.join(map(repr, arrays))}, sample 0 {', '.join(map(repr, files))}",
            "give every sample the same names",
        )
