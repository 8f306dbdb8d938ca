"""A folder of .npz files, each with a few samples of all inputs: what differs in shape lies in files of its own.

Files are read in the order of their names.  `numpy.savez(file, **feed)` of what a run was given makes such a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import listing
from fcdeploy.samples.npz import open_npz
from fcdeploy.samples.source import FromFile, Load, Source


def open_npz_folder(path: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Check the headers of all files; one at a time is open while they are read."""
    names = listing.list_names(path, {".npz"})
    count, labelled = 0, set[bool]()
    for name in listing.decode_names(names):
        part = open_npz(path / name, inputs)
        count += part.count or 0
        labelled.add(part.labelled)
    if len(labelled) > 1:
        raise FcdeployError(
            f"{path.name}: some files have labels and some have none", "give all of them 'label', or none"
        )

    def read() -> Iterator[tuple[str, Load]]:
        for name in listing.decode_names(names):
            for place, load in open_npz(path / name, inputs).read():
                yield f"{name}, {place}", FromFile(path / name, load)

    return Source(path.name, tuple(inputs), read, count, True in labelled)
