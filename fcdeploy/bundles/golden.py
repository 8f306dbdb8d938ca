"""Golden samples: what the model answered where the bundle was made, and how another CPU's answers compare.

The file is an `.npz` of stored members, so `numpy.load` opens it: `0/input/NAME` and `0/output/NAME` of the first run,
and so on.  A run is one sample, or the batch that the model insists on.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, first_line, quote_names
from fcdeploy.records.manifest import AGAIN
from fcdeploy.samples import arrays

Run = tuple[Arrays, Arrays]
"""What was fed, and what came out."""

TIES_DB = 38.0  # rounding ties alone leave 40 to 49 dB on clean networks, as `validate` measures them
LEVELS = 255
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name: bytes must not depend on the time
EQUAL, TIES, DIFFERENT = "equal", "ties", "different"


def to_bytes(runs: Sequence[Run]) -> bytes:
    """The file: equal for equal runs."""
    members = {
        f"{index}/{side}/{name}.npy": array
        for index, run in enumerate(runs)
        for side, ends in zip(("input", "output"), run, strict=True)
        for name, array in ends.items()
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(members.items()):
            content = io.BytesIO()
            plain = _as_plain(np.ascontiguousarray(array).reshape(array.shape))
            npy.write_array(content, plain, version=(1, 0), allow_pickle=False)
            archive.writestr(make_zip_member(name), content.getvalue())
    return file.getvalue()


def make_zip_member(name: str) -> zipfile.ZipInfo:
    """A member of a zip that is the same on every system and at every time."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def from_bytes(content: bytes, inputs: Sequence[str], outputs: Sequence[str], source: str) -> list[Run]:
    """The runs, each with these inputs and outputs. Raises FcdeployError when the file holds anything else."""
    runs: dict[int, Run] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                number, side, name = info.filename.removesuffix(".npy").split("/", 2)
                if info.compress_type != zipfile.ZIP_STORED or side not in ("input", "output"):
                    raise ValueError(f"{info.filename!r} is no array of a run")
                with archive.open(info) as file:
                    header = arrays.read_header(file, info.file_size, f"{info.filename!r}")
                    array = arrays.read_whole(file, header, f"{info.filename!r}")
                runs.setdefault(int(number), ({}, {}))[side == "output"][name] = array
    except (
        FcdeployError,
        zipfile.BadZipFile,
        ValueError,
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise FcdeployError(f"{source}: the golden samples are damaged: {first_line(error)[:120]}", AGAIN) from error
    for index, (feeds, answers) in sorted(runs.items()):
        for held, wanted in ((feeds, inputs), (answers, outputs)):
            if set(held) != set(wanted):
                raise FcdeployError(
                    f"{source}: golden run {index} has {quote_names(held)}, expected {quote_names(wanted)}",
                    AGAIN,
                )
    return [runs[index] for index in sorted(runs)]


@dataclass(frozen=True)
class OutputDifference:
    """One output over all runs: elements, how many differ, the largest difference, and what that makes of it.

    `levels` is the largest difference in 1/255 of what the golden output spans, which is about one step of its bytes;
    `sqnr_db` is None for outputs that are no floats, whose differences are not noise.
    """

    output: str
    kind: str
    elements: int
    differ: int
    largest: float
    levels: float
    sqnr_db: float | None
    why: str = ""


def compare(runs: Sequence[Run], run: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> list[OutputDifference]:
    """Run the golden inputs and compare each output with the golden one.

    Equal: the same bits.  Ties: floats within 38 dB, which rounding ties explain; or bytes that are one level off.
    Different: anything else, and every other integer, since a class is right or wrong.
    """
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for _, answers in runs for name in answers}
    for feeds, answers in runs:
        given = run(feeds)
        for name, golden in answers.items():
            pairs[name].append((golden, given[name]))
    return [_compare_output(name, pair) for name, pair in pairs.items()]


def _compare_output(name: str, pairs: Sequence[tuple[Array, Array]]) -> OutputDifference:
    elements = sum(golden.size for golden, _ in pairs)
    if any(side.dtype.kind in "OU" for pair in pairs for side in pair):
        return _compare_texts(name, pairs, elements)
    odd = next(((g, a) for g, a in pairs if g.shape != a.shape or g.dtype != a.dtype), None)
    if odd:
        why = f"{odd[1].dtype}{list(odd[1].shape)} instead of {odd[0].dtype}{list(odd[0].shape)}"
        return OutputDifference(name, DIFFERENT, elements, elements, math.inf, math.inf, None, why)
    golden, given = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    differ = int(np.count_nonzero(_view_bits(golden) != _view_bits(given)))
    if not differ:
        return OutputDifference(name, EQUAL, elements, 0, 0.0, 0.0, None)
    if not np.array_equal(np.isfinite(golden), np.isfinite(given)):
        return OutputDifference(
            name, DIFFERENT, elements, differ, math.inf, math.inf, None, "not a number where one was"
        )
    finite = np.isfinite(golden)
    noise = measure_fidelity(golden[finite], given[finite])
    span = float(np.ptp(golden[finite].astype(np.float64))) if finite.any() else 0.0
    levels = noise.largest * LEVELS / span if span else math.inf if noise.largest else 0.0
    if golden.dtype.kind == "f":
        kind = TIES if noise.sqnr_db >= TIES_DB else DIFFERENT
        return OutputDifference(name, kind, elements, differ, noise.largest, levels, noise.sqnr_db)
    bytes_off_by_one = golden.dtype.itemsize == 1 and golden.dtype.kind in "iu" and noise.largest <= 1
    return OutputDifference(
        name, TIES if bytes_off_by_one else DIFFERENT, elements, differ, noise.largest, levels, None
    )


def _compare_texts(name: str, pairs: Sequence[tuple[Array, Array]], elements: int) -> OutputDifference:
    given = [(golden.reshape(-1).tolist(), answer.reshape(-1).tolist()) for golden, answer in pairs]
    alike = all(len(golden) == len(answer) for golden, answer in given)
    differ = (
        sum(g != a for golden, answer in given for g, a in zip(golden, answer, strict=alike)) if alike else elements
    )
    return OutputDifference(
        name, DIFFERENT if differ else EQUAL, elements, differ, math.inf if differ else 0.0, 0.0, None
    )


def _as_plain(array: Array) -> Array:
    """Text as NumPy stores it without pickle."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _view_bits(array: Array) -> Array:
    """Elements as bytes, so that -0.0 is not 0.0 and a NaN is itself."""
    return array.view(f"u{array.dtype.itemsize}")
