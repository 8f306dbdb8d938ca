"""What a model is fed, as pictures: samples of a calibration with the arithmetic of preprocessing undone."""

from __future__ import annotations

import base64
import struct
import zlib
from itertools import islice

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.preprocessing import Preprocessing

SIDE = 112  # pixels of a picture in the page, at most
PNG = b"\x89PNG\r\n\x1a\n"


def draw_samples(calibration: Calibration, how: Preprocessing | None, most: int) -> list[str]:
    """The first so many kept samples as addresses of PNG files that hold them; none where no input is known to be a picture.

    Samples with NaN or infinite numbers are left out.
    """
    found = list[str]()
    for group in calibration.sample_groups:
        inputs = {name: array for name, array in group.items() if name not in calibration.states}
        for array in _choose_pictures(inputs, how):
            finite = (sample for sample in array if np.isfinite(sample).all())
            found += [write_address(restore_pixels(sample, how)) for sample in islice(finite, most - len(found))]
    return found


def _choose_pictures(inputs: Arrays, how: Preprocessing | None) -> list[Array]:
    """The samples of the input that is a picture, at most one.

    Preprocessing is of a model's only input, states apart.  Where nobody said how samples were made, those of three channels
    are taken for pictures: of one channel they might as well be spectrograms.
    """
    arrays = [array for array in inputs.values() if array.ndim == 4 and array.dtype.kind in "fui"]
    if how is None:
        return [array for array in arrays if 3 in (array.shape[1], array.shape[3])][:1]
    axis = 1 if how.layout == "NCHW" else 3
    return [array for array in arrays if len(inputs) == 1 and array.shape[axis] == how.channels]


def restore_pixels(sample: Array, how: Preprocessing | None) -> Array:
    """Bytes (height, width, 1 or 3) of one sample; where nobody said how it was made, its ends are black and white."""
    pixels = sample.astype(np.float64)
    first = how.layout == "NCHW" if how is not None else sample.shape[0] == 3
    pixels = np.moveaxis(pixels, 0, 2) if first else pixels
    if how is None:
        low, high = pixels.min(), pixels.max()
        pixels = 255 * (pixels - low) / ((high - low) or 1.0)
    elif sample.dtype.kind == "f":
        pixels = (pixels * np.array(how.std) + np.array(how.mean)) * (how.divisor / how.scale)
    pixels = pixels[..., ::-1] if how is not None and how.colour == "BGR" else pixels
    step = -(-max(pixels.shape[:2]) // SIDE)
    high, wide = (max(1, length // step) for length in pixels.shape[:2])
    cells = pixels[: high * step, : wide * step].reshape(
        high, min(step, pixels.shape[0]), wide, min(step, pixels.shape[1]), -1
    )
    return np.asarray(np.clip(np.rint(cells.mean(axis=(1, 3))), 0, 255).astype(np.uint8))


def write_address(pixels: Array) -> str:
    """The picture as a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"


def encode_png(pixels: Array) -> bytes:
    """A PNG (RFC 2083) of bytes (height, width, 1 or 3): no filter, one block."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
