"""Calibration statistics and their file. They decide nothing: every range method reads them later.

The file is a safetensors file (no pickle; every header field is checked by that library) with one metadata entry,
`fcdeploy`, a JSON object.  Arrays of all tensors are laid end to end in the order of that object's `tensors` list:

    codes     uint16 (bins,)      bin = upper 16 bits of the float32 pattern, ascending, only bins that are not empty
    counts    int64  (bins,)      how many elements fell in it
    ends      float32 (tensors, 2)  exact minimum and maximum of the finite elements, 0 where there are none
    moments   int64  (channels, 2, 2)  per channel: mean and mean square, each as (whole, fraction * 2^52), summed over
                                  samples
    seen      uint64 (samples,)   sorted 64-bit content hashes of the samples
    kept.X    the samples with the smallest hashes, input by input, as far as they have the shapes of the first;
              kept1.X, kept2.X, ... those of other shapes; where states are carried (`states` in the object), stretches of
              consecutive steps instead, (stretches, steps, ...)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Arrays, Float64, make_texts
from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread
from fcdeploy.records import data_format
from fcdeploy.records.data_format import UNSAID, DataFormat, InputStatistics
from fcdeploy.records.signature import is_shape_alike

SCHEMA, SCHEMA_OF_STREAMS = "fcdeploy.calibration/1", "fcdeploy.calibration/2"
AGAIN = "fcdeploy calibrate MODEL --data DATA writes one"


@dataclass(frozen=True)
class Histogram:
    """How often each float pattern's upper 16 bits (sign, exponent, 7 bits of mantissa) occurred.

    Bins never grow, an outlier costs no resolution, NaN and infinity have bins of their own, and merging is addition.
    `low` and `high` are the exact ends of the finite elements.
    """

    codes: NDArray[np.uint16]
    counts: NDArray[np.int64]
    low: float
    high: float

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def nonfinite(self) -> int:
        """Elements that are NaN or infinite: their exponent bits are all ones."""
        return int(self.counts[(self.codes & 0x7F80) == 0x7F80].sum())

    @property
    def ends_only(self) -> bool:
        """A range that was measured elsewhere: its ends are known, and nothing between them."""
        return not len(self.codes) and (self.low, self.high) != (0.0, 0.0)


@dataclass(frozen=True)
class Moments:
    """Per channel: sums over samples of the sample's mean and mean square, as exact integers on a 2^-52 grid.

    Shape (channels, 2, 2): [channel, first or second moment, whole or fraction].  Adding them is integer addition, so
    the order of samples cannot change a bit.
    """

    limbs: NDArray[np.int64]
    samples: int

    def mean(self) -> Float64:
        """E[x] per channel, shape (channels,)."""
        return self._value(0)

    def mean_square(self) -> Float64:
        """E[x^2] per channel, shape (channels,)."""
        return self._value(1)

    def _value(self, which: int) -> Float64:
        whole, fraction = self.limbs[:, which, 0], self.limbs[:, which, 1]
        return (whole + fraction * 2.0**-52) / max(self.samples, 1)


@dataclass(frozen=True)
class TensorRecord:
    """The statistics of one tensor, and the layer it belongs to. Tensors that feed no weights have no moments."""

    name: str
    kind: str  # "input", "activation", "weight" or "bias"
    layer: str
    op: str
    shape: tuple[int | None, ...]
    histogram: Histogram
    moments: Moments | None = None


@dataclass(frozen=True)
class Calibration:
    """All calibration statistics, and what they were collected from."""

    model: str  # sha256 of the float model's file
    tensors: dict[str, TensorRecord]
    seen: NDArray[np.uint64]  # sorted content hashes, one a sample
    kept: Arrays  # a few samples, input name -> (samples, ...)
    made_by: dict[str, str]  # CPU family and versions that the floats depend on
    kept_more: tuple[Arrays, ...] = ()  # those of other shapes than the first, which merging needs
    format: DataFormat = UNSAID  # how its samples were read
    states: Mapping[str, str] = field(default_factory=dict)  # inputs that an output of the run before was given to
    axes: Mapping[str, int | None] = field(
        default_factory=dict
    )  # of other inputs, where samples do not lie along axis 0

    @property
    def samples(self) -> int:
        return len(self.seen)

    @property
    def groups(self) -> tuple[Arrays, ...]:
        """All samples that are kept, or stretches of a stream, those of equal shapes stacked."""
        return (self.kept, *self.kept_more) if self.kept else ()

    @property
    def sample_groups(self) -> tuple[Arrays, ...]:
        """The same sample by sample, where they are steps of stretches too."""
        return tuple(map(flatten_stretches, self.groups)) if self.states else self.groups

    @property
    def data(self) -> str:
        """A hash of the set of samples, whatever their order."""
        return hashlib.sha256(self.seen.astype("<u8").tobytes()).hexdigest()


def flatten_stretches(group: Arrays) -> Arrays:
    """The steps of stretches (stretches, steps, ...) as samples."""
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in group.items()}


def describe_inputs(calibration: Calibration) -> tuple[InputStatistics, ...]:
    """What each input looked like over all samples."""
    rows = [record for record in calibration.tensors.values() if record.kind == "input"]
    return tuple(
        InputStatistics(
            row.name, row.histogram.low, row.histogram.high,
            tuple(row.moments.mean().tolist()) if row.moments and len(row.moments.limbs) == 3 else (),
        )
        for row in rows
    )  # fmt: skip


def to_bytes(calibration: Calibration) -> bytes:
    """Serialize a calibration: equal bytes for equal calibrations."""
    from safetensors.numpy import save

    records = list(calibration.tensors.values())
    texts = sorted(name for name, value in calibration.kept.items() if value.dtype.kind == "O")
    header = {
        "schema": SCHEMA_OF_STREAMS if calibration.states else SCHEMA,
        "model": calibration.model,
        "data": calibration.data,
        "made_by": dict(sorted(calibration.made_by.items())),
        "tensors": [
            {
                "name": r.name, "kind": r.kind, "layer": r.layer, "op": r.op, "shape": r.shape,
                "bins": len(r.histogram.codes), "channels": len(r.moments.limbs) if r.moments else 0,
                "samples": r.moments.samples if r.moments else 0,
            }
            for r in records
        ],
        **({"format": data_format.to_json(calibration.format)} if calibration.format else {}),
        **({"states": dict(calibration.states)} if calibration.states else {}),
        **({"axes": dict(calibration.axes)} if calibration.axes else {}),
        **({"texts": texts} if texts else {}),
    }  # fmt: skip
    limbs = [r.moments.limbs for r in records if r.moments]
    arrays = {
        "codes": _concatenate([r.histogram.codes for r in records], np.uint16),
        "counts": _concatenate([r.histogram.counts for r in records], np.int64),
        "ends": np.array([[r.histogram.low, r.histogram.high] for r in records], np.float32).reshape(-1, 2),
        "moments": np.concatenate([*limbs, np.zeros((0, 2, 2), np.int64)]),
        "seen": calibration.seen,
        **{
            f"kept{index or ''}.{name}": _pack_texts(value) if value.dtype.kind == "O" else np.ascontiguousarray(value)
            for index, group in enumerate(calibration.groups)
            for name, value in group.items()
        },
    }
    return bytes(save(arrays, metadata={"fcdeploy": json.dumps(header, separators=(",", ":"))}))


def read(path: Path) -> Calibration:
    """Read a calibration file.

    Raises FcdeployError when it is not one, is damaged, or was written by another version of the format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FcdeployError(f"calibration {str(path)!r} does not exist", AGAIN)
    try:
        with path.open("rb"), safe_open(path, framework="numpy") as file:  # whose own errors have no number
            header = json.loads((file.metadata() or {}).get("fcdeploy", "{}"))
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    # the last three: element types that NumPy does not have, and JSON nested without end
    except (SafetensorError, ValueError, OSError, TypeError, AttributeError, RecursionError) as error:
        refuse_unread(str(path), error)
        raise FcdeployError(f"{str(path)!r} is not a calibration file, or is damaged", AGAIN) from error
    return _check_and_assemble(header, arrays, str(path))


def from_bytes(content: bytes, name: str) -> Calibration:
    """Read what `to_bytes` wrote. Raises FcdeployError with this name, as `read` does."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")  # of the JSON that comes next, which `load` has checked
        header = json.loads(json.loads(content[8 : 8 + size]).get("__metadata__", {}).get("fcdeploy", "{}"))
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FcdeployError(f"{name!r} is not a calibration file, or is damaged", AGAIN) from error
    return _check_and_assemble(header, arrays, name)


def _check_and_assemble(header: Any, arrays: Mapping[str, Array], name: str) -> Calibration:
    schema = header.get("schema") if isinstance(header, dict) else header
    streams = isinstance(header, dict) and bool(header.get("states"))
    expected = SCHEMA_OF_STREAMS if streams else SCHEMA
    if schema != expected:
        again = "calibrate again: of a stream whole stretches are kept now" if streams else AGAIN
        raise FcdeployError(f"{name!r} has format {str(schema)[:40]!r}, expected {expected!r}", again)
    try:
        states = {str(key): str(out) for key, out in dict(header.get("states", {})).items()}
        axes = {str(key): None if axis is None else int(axis) for key, axis in dict(header.get("axes", {})).items()}
        return replace(_assemble(header, arrays), format=_read_format(header, name), states=states, axes=axes)
    except KeyError as error:
        raise FcdeployError(f"calibration {name!r} is damaged: it has no {error}", AGAIN) from error
    except (TypeError, ValueError) as error:
        raise FcdeployError(f"calibration {name!r} is damaged: {error}", AGAIN) from error


def _read_format(header: Mapping[str, Any], name: str) -> DataFormat:
    return data_format.from_json(header.get("format", {}), f"calibration {name!r}: format", AGAIN)


def read_format(path: Path) -> DataFormat:
    """How the samples of a calibration file were read, without reading its arrays. Raises FcdeployError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("fcdeploy", "{}"))
    except (SafetensorError, ValueError, OSError, RecursionError):
        return UNSAID  # `read` says what is wrong
    return _read_format(header if isinstance(header, dict) else {}, str(path))


ARRAYS: dict[str, tuple[type, tuple[int | None, ...]]] = {
    "codes": (np.uint16, (None,)),
    "counts": (np.int64, (None,)),
    "ends": (np.float32, (None, 2)),
    "moments": (np.int64, (None, 2, 2)),
    "seen": (np.uint64, (None,)),
}
KINDS = ("input", "activation", "weight", "bias")


def _assemble(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Calibration:
    """The calibration that a file says; KeyError, TypeError or ValueError where it contradicts itself."""
    for key, (dtype, shape) in ARRAYS.items():
        _check_array(key, arrays[key], dtype, shape)
    _check_sums(header, arrays)
    tensors: dict[str, TensorRecord] = {}
    bin_at = channel_at = 0
    for row, ends in zip(header["tensors"], arrays["ends"].tolist(), strict=True):
        bins, channels = slice(bin_at, bin_at + row["bins"]), slice(channel_at, channel_at + row["channels"])
        histogram = Histogram(arrays["codes"][bins], arrays["counts"][bins], *ends)
        moments = Moments(arrays["moments"][channels], row["samples"]) if row["channels"] else None
        record = TensorRecord(
            row["name"], row["kind"], row["layer"], row["op"], tuple(row["shape"]), histogram, moments
        )  # fmt: skip
        _check_record(record)
        if record.name in tensors:
            raise ValueError(f"tensor {record.name!r} is there twice")
        tensors[record.name] = record
        bin_at, channel_at = bins.stop, channels.stop
    kept, *more = _collect_kept(arrays, set(header.get("texts", [])), axes=2 if header.get("states") else 1) or [{}]
    result = Calibration(header["model"], tensors, arrays["seen"], kept, header["made_by"], tuple(more))
    if result.data != header["data"]:
        raise ValueError("the hash of its samples does not fit")
    return result


def _pack_texts(texts: Array) -> Array:
    """Shape and values as JSON, in bytes."""
    said = json.dumps([list(texts.shape), texts.reshape(-1).tolist()], separators=(",", ":"))
    return np.frombuffer(said.encode(), np.uint8)


def _unpack_texts(packed: Array) -> Array:
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError("its kept text is no bytes")
    try:
        shape, values = json.loads(packed.tobytes())
    except RecursionError as error:
        raise ValueError("its kept text is no text") from error
    lists = isinstance(shape, list) and isinstance(values, list)
    if not lists or not all(type(n) is int and n >= 0 for n in shape) or not all(type(text) is str for text in values):
        raise ValueError("its kept text is no text")
    return make_texts(values, shape)


def _collect_kept(arrays: Mapping[str, Array], texts: Set[str], axes: int) -> list[Arrays]:
    """The groups of kept samples, in order; all inputs have the first so many axes in common."""
    groups: dict[int, Arrays] = {}
    for key, value in arrays.items():
        if key.startswith("kept"):
            number, _, name = key.removeprefix("kept").partition(".")
            groups.setdefault(int(number or 0), {})[name] = _unpack_texts(value) if name in texts else value
    if sorted(groups) != list(range(len(groups))) or len({frozenset(group) for group in groups.values()}) > 1:
        raise ValueError("its groups of kept samples are not alike")
    for group in groups.values():
        shapes = {value.shape[:axes] for value in group.values()}
        if len(shapes) > 1 or any(len(shape) < axes or 0 in shape for shape in shapes):
            raise ValueError("its kept samples differ in number from input to input, or are none")
    return [groups[index] for index in range(len(groups))]


def _check_array(key: str, array: Array, dtype: type, shape: tuple[int | None, ...]) -> None:
    if array.dtype != dtype or not is_shape_alike(shape, array.shape):
        wanted = f"{np.dtype(dtype)} ({', '.join('n' if n is None else str(n) for n in shape)})"
        raise ValueError(f"array {key!r} is {array.dtype} {array.shape}, expected {wanted}")


def _check_sums(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """The header has fields of the right types, and they add up to what the arrays hold."""
    rows, made_by = header["tensors"], header["made_by"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("its tensors are no list of objects")
    if type(header["model"]) is not str or not isinstance(made_by, dict):
        raise ValueError("it does not say which model it was made from, and by what")
    for row in rows:
        if any(type(row[key]) is not int or row[key] < 0 for key in ("bins", "channels", "samples")):
            raise ValueError(f"tensor {row['name']!r} has a size that is no count")
    for key, size in (("codes", "bins"), ("counts", "bins"), ("moments", "channels")):
        if (said := sum(row[size] for row in rows)) != len(arrays[key]):
            raise ValueError(f"its tensors have {said} {size}, but array {key!r} has {len(arrays[key])}")
    if len(rows) != len(arrays["ends"]):
        raise ValueError(f"it lists {len(rows)} tensors, but array 'ends' has {len(arrays['ends'])}")
    if (arrays["seen"][1:] < arrays["seen"][:-1]).any():
        raise ValueError("array 'seen' is not sorted")


def _check_record(record: TensorRecord) -> None:
    h, moments = record.histogram, record.moments
    if any(type(text) is not str for text in (record.name, record.layer, record.op)) or record.kind not in KINDS:
        raise ValueError(f"tensor {record.name!r} is a {record.kind!r} of {record.layer!r}, which is none")
    if any(n is not None and (type(n) is not int or n < 0) for n in record.shape):
        raise ValueError(f"tensor {record.name!r} has shape {record.shape}")
    if (h.codes[1:] <= h.codes[:-1]).any():
        raise ValueError(f"the bins of tensor {record.name!r} are not ascending")
    if (h.counts <= 0).any() or h.counts.sum(dtype=np.float64) >= 2.0**62:
        raise ValueError(f"tensor {record.name!r} has a bin whose count is no count")
    if not (np.isfinite(h.low) and np.isfinite(h.high) and h.low <= h.high):
        raise ValueError(f"tensor {record.name!r} has ends {h.low:g} and {h.high:g}")
    if moments is not None:
        fraction, square = moments.limbs[..., 1], moments.limbs[:, 1, 0]
        if moments.samples == 0 or (fraction < 0).any() or (fraction >= 1 << 52).any() or (square < 0).any():
            raise ValueError(f"the moments of tensor {record.name!r} are none")


def _concatenate(parts: list[Array], dtype: type) -> Array:
    return np.concatenate([*parts, np.zeros(0, dtype)])
