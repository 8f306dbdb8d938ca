"""Native code in a bundle: `native/MACHINE.so`, one file for each kind of CPU; the one for this CPU is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.bundles.read import OpenedBundle
from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.cpu import this_machine
from fcdeploy.runtime.native_library import NativeEngine, load_native

MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine of an ELF header -> what Linux calls such a CPU."""
COMPILE = "fcdeploy compile MODEL.int8.onnx -o MODEL.so"


def machine_of(library: Path) -> str:
    """The kind of CPU that a shared library is for, by its ELF header. Raises FcdeployError for any other file."""
    try:
        with library.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise FcdeployError(f"library {str(library)!r} cannot be read: {error.strerror}", COMPILE) from error
    found = MACHINES.get(int.from_bytes(head[18:20], "little"))
    if head[:4] != b"\x7fELF" or found is None:
        raise FcdeployError(f"{str(library)!r} is no shared library for {' or '.join(MACHINES.values())}", COMPILE)
    return found


def name_libraries(libraries: Sequence[str | Path]) -> dict[str, Path]:
    """Name in a bundle -> file. Raises FcdeployError where two are for the same machine."""
    named: dict[str, Path] = {}
    for library in map(Path, libraries):
        name = f"native/{machine_of(library)}.so"
        if name in named:
            raise FcdeployError(
                f"libraries {str(named[name])!r} and {str(library)!r} are for the same machine", "give one of them"
            )
        named[name] = library
    return named


def open_library(stored: OpenedBundle) -> NativeEngine:
    """The bundle's library for this machine. Raises FcdeployError where there is none, or it is of another model."""
    manifest, source = stored.manifest, f"bundle {str(stored.path)!r}"
    name = manifest.libraries.get(this_machine())
    if name is None:
        others = ", ".join(manifest.libraries) or "no machine"
        raise FcdeployError(
            f"{source} has native code for {others}, expected {this_machine()}",
            "fcdeploy bundle INT8 --library MODEL.so puts it in; --engine onnxruntime runs without",
        )
    content = stored.read(name)  # checked by its hash; what is loaded are these bytes, whatever becomes of the file
    with temporary_folder() as folder:
        path = folder / "model.so"
        path.write_bytes(content)
        model = load_native(path)
    return NativeEngine(model, manifest.inputs, manifest.outputs, f"{source}: {name!r}")
