"""What one pass over the data recorded. It decides nothing: every range method reads it later.

The file is a safetensors file (no pickle; every header field is checked by that library) with one metadata entry,
`fcdeploy`, a JSON object.  Arrays of all tensors are laid end to end in the order of that object's `tensors` list:

    codes     uint16 (bins,)      bin = upper 16 bits of the float32 pattern, ascending, only bins that are not empty
    counts    int64  (bins,)      how many elements fell in it
    ends      float32 (tensors, 2)  exact minimum and maximum
    moments   int64  (channels, 2, 2)  per channel: mean and mean square, each as (whole, fraction * 2^52), summed over samples
    seen      uint64 (samples,)   sorted 64-bit content hashes of the samples
    kept.X    the samples with the smallest hashes, input by input
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdeploy.errors import FcdeployError

SCHEMA = "fcdeploy.calibration/1"


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


@dataclass(frozen=True)
class Moments:
    """Per channel: sums over samples of the sample's mean and mean square, as exact integers on a 2^-52 grid.

    Shape (channels, 2, 2): [channel, first or second moment, whole or fraction].  Adding them is integer addition, so
    the order of samples cannot change a bit.
    """

    limbs: NDArray[np.int64]
    samples: int

    def mean(self) -> NDArray[np.float64]:
        """E[x] per channel, shape (channels,)."""
        return self._value(0)

    def mean_square(self) -> NDArray[np.float64]:
        """E[x^2] per channel, shape (channels,)."""
        return self._value(1)

    def _value(self, which: int) -> NDArray[np.float64]:
        whole, fraction = self.limbs[:, which, 0], self.limbs[:, which, 1]
        return (whole + fraction * 2.0**-52) / max(self.samples, 1)


@dataclass(frozen=True)
class TensorRecord:
    """One tensor: which layer it belongs to, and what was seen of it. Weights and biases have no moments."""

    name: str
    kind: str  # "input", "activation", "weight" or "bias"
    layer: str
    op: str
    shape: tuple[int | None, ...]
    histogram: Histogram
    moments: Moments | None = None


@dataclass(frozen=True)
class Calibration:
    """Everything that was recorded, and what it was recorded from."""

    model: str  # sha256 of the float model's file
    tensors: dict[str, TensorRecord]
    seen: NDArray[np.uint64]  # sorted content hashes, one a sample
    kept: dict[str, NDArray[Any]]  # a few samples, input name -> (samples, ...)
    made_by: dict[str, str]  # CPU family and versions that the floats depend on

    @property
    def samples(self) -> int:
        return len(self.seen)

    @property
    def data(self) -> str:
        """A hash of the set of samples, whatever their order."""
        return hashlib.sha256(self.seen.astype("<u8").tobytes()).hexdigest()


def to_bytes(calibration: Calibration) -> bytes:
    """The file's bytes: equal for equal calibrations."""
    from safetensors.numpy import save

    records = list(calibration.tensors.values())
    header = {
        "schema": SCHEMA,
        "model": calibration.model,
        "data": calibration.data,
        "made_by": calibration.made_by,
        "tensors": [
            {
                "name": r.name, "kind": r.kind, "layer": r.layer, "op": r.op, "shape": r.shape,
                "bins": len(r.histogram.codes), "channels": len(r.moments.limbs) if r.moments else 0,
                "samples": r.moments.samples if r.moments else 0,
            }
            for r in records
        ],
    }  # fmt: skip
    limbs = [r.moments.limbs for r in records if r.moments]
    arrays = {
        "codes": _joined([r.histogram.codes for r in records], np.uint16),
        "counts": _joined([r.histogram.counts for r in records], np.int64),
        "ends": np.array([[r.histogram.low, r.histogram.high] for r in records], np.float32).reshape(-1, 2),
        "moments": np.concatenate([*limbs, np.zeros((0, 2, 2), np.int64)]),
        "seen": calibration.seen,
        **{f"kept.{name}": np.ascontiguousarray(value) for name, value in calibration.kept.items()},
    }
    return save(arrays, metadata={"fcdeploy": json.dumps(header, separators=(",", ":"))})


def read(path: Path) -> Calibration:
    """Read a calibration file.

    Raises FcdeployError when it is not one, is damaged, or was written by another version of the format.
    """
    from safetensors import SafetensorError, safe_open

    hint = "fcdeploy calibrate MODEL --data DATA writes one"
    if not path.is_file():
        raise FcdeployError(f"calibration {str(path)!r} does not exist", hint)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("fcdeploy", "{}"))
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise FcdeployError(f"{str(path)!r} is not a calibration file, or is damaged", hint) from error
    if header.get("schema") != SCHEMA:
        raise FcdeployError(f"{str(path)!r} has format {header.get('schema')!r}, expected {SCHEMA!r}", hint)
    try:
        return _assembled(header, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FcdeployError(f"calibration {str(path)!r} is damaged: {error}", hint) from error


def _assembled(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Calibration:
    tensors = {}
    bin_at = channel_at = 0
    codes, counts, ends, moments = (arrays[key] for key in ("codes", "counts", "ends", "moments"))
    for row, (low, high) in zip(header["tensors"], ends, strict=True):
        bins, channels = int(row["bins"]), int(row["channels"])
        histogram = Histogram(codes[bin_at : bin_at + bins], counts[bin_at : bin_at + bins], float(low), float(high))
        limbs = moments[channel_at : channel_at + channels]
        if len(histogram.codes) != bins or len(limbs) != channels:
            raise ValueError(f"tensor {row['name']!r} is cut short")
        tensors[row["name"]] = TensorRecord(
            row["name"], row["kind"], row["layer"], row["op"], tuple(row["shape"]), histogram,
            Moments(limbs, int(row["samples"])) if channels else None,
        )  # fmt: skip
        bin_at, channel_at = bin_at + bins, channel_at + channels
    kept = {key.removeprefix("kept."): value for key, value in arrays.items() if key.startswith("kept.")}
    result = Calibration(header["model"], tensors, arrays["seen"], kept, dict(header["made_by"]))
    if result.data != header["data"]:
        raise ValueError("the hash of its samples does not fit")
    return result


def _joined(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([*parts, np.zeros(0, dtype)])
