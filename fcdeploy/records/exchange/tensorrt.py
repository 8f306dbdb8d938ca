"""TensorRT's calibration cache: a text file with a header line and a line for each tensor.

    TRT-8601-EntropyCalibration2
    images: 3c010a14

The number is the tensor's scale, amax / 127, as the eight hexadecimal digits of a big-endian float32.  Ranges are
symmetric: -amax to amax.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from fcdeploy.records.exchange.ranges import Ranges, check_ranges

HEADER = "TRT-8601-EntropyCalibration2"
FORM = re.compile(r"TRT-\d+-\w+$")
LEVELS = 127
ROW = re.compile(r"(.+): ?([0-9a-fA-F]{1,8})$")
SYMMETRIC = (
    "ranges are symmetric: of a tensor that is never negative, unless a Relu writes it, half of the levels are not used"
)


def is_cache(data: bytes) -> bool:
    """Does the file begin as the header does?"""
    return data.startswith(b"TRT-")


def read_cache(data: bytes) -> Ranges:
    """Raises ValueError with the reason."""
    try:
        header, *lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    if not FORM.match(header.strip()):
        raise ValueError(f"its header is {header[:60]!r}, expected TRT-VERSION-ALGORITHM")
    return Ranges(check_ranges(_parse_rows(lines)), f"TensorRT {header.strip()[:60]}", (SYMMETRIC,))


def write_cache(ends: Mapping[str, tuple[float, float]], header: str = HEADER) -> bytes:
    """Symmetric ranges that hold these: a scale is rounded up where float32 does not have it, and is never zero."""
    rows = [f"{name}: {struct.pack('>f', _compute_scale(low, high)).hex()}" for name, (low, high) in ends.items()]
    return "\n".join([header, *rows, ""]).encode()


def _compute_scale(low: float, high: float) -> float:
    amax = max(-low, high) or 1.0  # TensorRT takes no range of zero; what is always zero is zero in any other
    scale = np.float32(amax / LEVELS)
    return float(scale if float(scale) * LEVELS >= amax else np.nextafter(scale, np.float32(np.inf)))


def _parse_rows(lines: list[str]) -> Iterator[tuple[str, float, float]]:
    for line in lines:
        if not line.strip():
            continue
        match = ROW.match(line.strip())
        if match is None:
            raise ValueError(f"line {line[:60]!r} is not a name, a colon and a number in hexadecimal digits")
        scale = struct.unpack(">f", bytes.fromhex(match[2].zfill(8)))[0]
        if not scale >= 0:
            raise ValueError(f"tensor {match[1]!r} has the scale {scale:g}, expected a positive number")
        yield match[1], -scale * LEVELS, scale * LEVELS
