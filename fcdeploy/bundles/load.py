"""A bundle to predict with; it needs NumPy and its engine, onnxruntime or a library of its own, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fcdeploy.arrays import Array, Arrays
from fcdeploy.bundles import golden
from fcdeploy.bundles.libraries import open_library
from fcdeploy.bundles.read import OpenedBundle, make_altered_error, open_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.records.manifest import AGAIN, Manifest
from fcdeploy.runtime.engine import Engine, check_engine
from fcdeploy.runtime.feeds import check_feeds
from fcdeploy.runtime.options import check_options


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. `manifest` says what is in it, `session` runs it."""

    manifest: Manifest
    session: Engine
    stored: OpenedBundle

    def predict(self, **arrays: Array) -> Arrays:
        """All outputs by name, from one array for each input, in the manifest's dtypes and shapes.

        Preprocessing is not applied: arrays are what the model reads.  A name that is no Python word goes in as
        `predict(**{"input.1": array})`.  Raises FcdeployError when an array does not fit.
        """
        check_feeds(arrays, self.manifest.inputs)
        return dict(zip(self.session.outputs, self.session.run(arrays), strict=True))

    def golden_runs(self) -> list[golden.Run]:
        """The golden runs: what was fed and what came out. Raises FcdeployError when they are damaged."""
        name = self.manifest.golden
        if name is None:
            return []
        inputs, outputs = ([spec.name for spec in specs] for specs in (self.manifest.inputs, self.manifest.outputs))
        return golden.from_bytes(self.stored.read(name), inputs, outputs, f"bundle {str(self.stored.path)!r}")

    def compare(self) -> list[golden.OutputDifference]:
        """What this CPU answers on the golden samples, compared with what they say, output by output."""
        return golden.compare(self.golden_runs(), lambda feeds: self.predict(**feeds))


def load_bundle(path: str | Path, *, threads: int | None = None, engine: str = "onnxruntime") -> Bundle:
    """Load a bundle, a folder or a zip, with the session options of its manifest.

    `engine` "native" runs the library that the bundle carries for this machine, in one thread, without onnxruntime; that
    runs code in it: load only what you would run.  `threads` defaults to the CPUs of this process.  Every hash is
    checked first.  Raises FcdeployError when the bundle is damaged, when its model does not load, or when the model is
    not what the manifest says.
    """
    stored = open_bundle(path)
    for name in stored.find_altered():
        raise make_altered_error(stored.path, name)
    return load_opened(stored, threads=threads, engine=engine)


def load_opened(stored: OpenedBundle, *, threads: int | None = None, engine: str = "onnxruntime") -> Bundle:
    """The same from a bundle that is open, whose hashes hold."""
    check_engine(engine)
    return Bundle(stored.manifest, OPENERS[engine](stored, threads), stored)


def _open_session(stored: OpenedBundle, threads: int | None) -> Engine:
    """The model in onnxruntime, whose inputs and outputs must be those of the manifest."""
    from fcdeploy.runtime.session import LoadOptions, Session  # imported here: a library runs without onnxruntime

    manifest = stored.manifest
    source = f"bundle {str(stored.path)!r}"
    entries = check_options(manifest.session, f"{source}: the manifest's session")
    if stored.zipped:
        weights = {name: stored.read(name) for name in manifest.weights}
        options = LoadOptions(weights=weights, entries=entries)
        session = Session(stored.read(manifest.model), threads=threads, load=options)
    else:
        session = Session(stored.path / manifest.model, threads=threads, load=LoadOptions(entries=entries))
    for side, said, found in (
        ("inputs", manifest.inputs, session.input_specs),
        ("outputs", manifest.outputs, session.output_specs),
    ):
        if said != found:
            raise FcdeployError(
                f"{source}: the manifest's {side} are {', '.join(map(str, said))}, "
                f"the model's {', '.join(map(str, found))}",
                AGAIN,
            )
    return session


OPENERS: Mapping[str, Callable[[OpenedBundle, int | None], Engine]] = {
    "onnxruntime": _open_session,
    "native": lambda stored, _threads: open_library(stored),
}
"""Engine -> what opens a bundle's model with it."""
