"""onnxruntime's calibration JSON, as `save_tensors_data` and `write_calibration_table` write it (1.31, calibrate.py).

    {"CLS": "TensorsData",
     "data": {NAME: {"CLS": "TensorData", "lowest": N, "highest": N, ...}, ...},
     "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
     "smooth_quant": false}

N is a number, or {"CLS": "numpy.array", "data": number or list, "dtype": "float32"}: a list has one number, or one a
channel.  Histograms (`hist`, `bins`) are passed over.  Earlier versions wrote {NAME: [lowest, highest], ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fcdeploy.records.exchange.ranges import Ranges, check_ranges

PER_CHANNEL = "{n} of them were measured channel by channel: the outermost ends of all channels are taken"


def is_json(data: bytes) -> bool:
    """Does the file begin as a JSON object?"""
    return data[:64].lstrip()[:1] == b"{"


def read_json(data: bytes) -> Ranges:
    """The ends of every tensor. Raises ValueError with the reason."""
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested without end") from None
    if "CLS" not in document:
        return Ranges(check_ranges(_read_plain(document)), "onnxruntime")
    tensors, method = document.get("data"), document.get("calibration_method")
    if document["CLS"] != "TensorsData" or not isinstance(tensors, dict):
        raise ValueError(f"it is a {str(document['CLS'])[:40]!r}, expected 'TensorsData' with an object 'data'")
    rows = [
        (name, _read_numbers(name, row, "lowest"), _read_numbers(name, row, "highest")) for name, row in tensors.items()
    ]
    ends = check_ranges((name, min(low), max(high)) for name, low, high in rows)
    by_channel = sum(len(low) > 1 for _, low, _ in rows)
    named = str(method.get("value") if isinstance(method, dict) else method).rpartition(".")[2][:40]
    return Ranges(ends, f"onnxruntime {named}", (PER_CHANNEL.format(n=by_channel),) if by_channel else ())


def write_json(ends: Mapping[str, tuple[float, float]]) -> bytes:
    """The file that onnxruntime would have written after its own min-max calibration with these results."""

    def to_array(value: float) -> dict[str, Any]:
        return {"data": [value], "dtype": "float32", "CLS": "numpy.array"}

    document = {
        "CLS": "TensorsData",
        "data": {
            name: {"lowest": to_array(low), "highest": to_array(high), "CLS": "TensorData"}
            for name, (low, high) in ends.items()
        },
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
    }
    return json.dumps(document, allow_nan=False).encode()


def tell_use(path: str) -> str:
    """How onnxruntime's quantizer takes the file.

    Without the option it takes a Relu or a Clip out, whatever range the file gives for its output (onnxruntime 1.32.0).
    """
    options = {"QDQKeepRemovableActivations": True}
    return f"in quantize_static: calibration_cache_path={path!r}, extra_options={options}"


def _read_plain(document: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    for name, pair in document.items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise ValueError(f"tensor {name!r} is {str(pair)[:40]}, expected [lowest, highest]")
        yield name, float(pair[0]), float(pair[1])


def _read_numbers(name: str, row: Any, key: str) -> list[float]:
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, dict):
        value = value.get("data")
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values or not all(map(_is_number, values)):
        raise ValueError(f"tensor {name!r} has no number {key!r}")
    return [float(v) for v in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
