"""A checkpoint of a calibration run, from which it resumes after a crash: one file, replaced whole as the run proceeds.

    fcdeploy.checkpoint/2\\n
    JSON, one line: bound, passes, shards, bad, stamps, sizes, sha256
    the calibrations whose sizes these are, end to end, each as a calibration file has it

`bound` says what the run was of: it goes on only for the same model, data, options and versions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.records.calibration import Calibration, from_bytes, to_bytes

MAGIC = b"fcdeploy.checkpoint/2\n"
STAMP = 1 << 64  # what sums of stamps are taken modulo
HINT = "remove it to begin anew"


@dataclass(frozen=True)
class Checkpoint:
    """`calibrations` has the calibration of every pass begun, the last one under way; `shards` what each shard took in that.

    `stamps` are, of each pass, the sum of the stamps of the files that its samples came from.
    """

    bound: dict[str, Any]
    passes: dict[str, Any]
    shards: tuple[int, ...]
    bad: tuple[tuple[int, str, str], ...]
    stamps: tuple[int, ...]
    calibrations: tuple[Calibration, ...]


def checkpoint_bytes(state: Checkpoint) -> bytes:
    """Serialize a checkpoint."""
    blobs = [to_bytes(one) for one in state.calibrations]
    header = {
        "bound": state.bound, "passes": state.passes, "shards": state.shards, "bad": state.bad,
        "stamps": state.stamps, "sizes": [len(blob) for blob in blobs], "sha256": _sha(b"".join(blobs)),
    }  # fmt: skip
    return b"".join([MAGIC, json.dumps(header, separators=(",", ":")).encode(), b"\n", *blobs])


def read_checkpoint(path: Path, bound: dict[str, Any]) -> Checkpoint:
    """Read a file back. Raises FcdeployError when it is damaged, of another version, or of another run than `bound`."""
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise FcdeployError(f"progress {str(path)!r} is not of this version, or is damaged", HINT)
    line, _, rest = content[len(MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        sizes = [int(size) for size in header["sizes"]]
        if min(sizes, default=-1) < 0 or sum(sizes) != len(rest) or _sha(rest) != header["sha256"]:
            raise ValueError("its parts do not fit")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        calibrations = tuple(
            from_bytes(rest[end - size : end], str(path)) for size, end in zip(sizes, ends, strict=True)
        )
        shards = tuple(int(n) for n in header["shards"])
        bad = tuple((int(position), str(name), str(why)) for position, name, why in header["bad"])
        stamps = tuple(int(stamp) for stamp in header["stamps"])
        if len(stamps) != len(calibrations):
            raise ValueError("its parts do not fit")
        state = Checkpoint(dict(header["bound"]), dict(header["passes"]), shards, bad, stamps, calibrations)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, FcdeployError) as error:
        raise FcdeployError(f"progress {str(path)!r} is damaged", HINT) from error

    # sound, but perhaps of another model, other data or options
    for key in sorted(bound.keys() | state.bound.keys()):
        if state.bound.get(key) != bound.get(key):
            raise FcdeployError(f"progress {str(path)!r} belongs to another run, whose {key} differs", HINT)
    return state


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
