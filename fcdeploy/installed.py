"""Which of the two packages is installed, and what installs a library that it does without."""

from __future__ import annotations

from fcdeploy.errors import FcdeployError

PACKAGES = ("fcdeploy", "fcdeploy-runtime")  # one or the other is installed
MAKERS = {"ml_dtypes", "onnx", "onnx_ir", "safetensors"}  # libraries that fcdeploy-runtime goes without
NATIVE_INSTEAD = ", or --engine native, for bundles with a library"
RUNTIME = "onnxruntime"  # required by fcdeploy, an extra of fcdeploy-runtime


def find_package() -> str:
    """The package that is installed; fcdeploy where neither is, as with a checkout on the path."""
    from importlib import metadata  # here, as only mistakes need it

    for package in PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return package
    return PACKAGES[0]


def say_install(extra: str) -> str:
    """The command that installs an extra that both packages have, or onnxruntime."""
    package = find_package()
    if extra == RUNTIME and package == "fcdeploy":
        return f"pip install {RUNTIME}"
    return f"pip install '{package}[{extra}]'"


def explain_missing(missing: ModuleNotFoundError, asker: str, *, native: bool) -> FcdeployError | None:
    """What to install where `asker` came to a library that is not there; None at a module that is no such library.

    `native`: whether it could have run a bundle's own library instead of onnxruntime.
    """
    library = (missing.name or "").split(".")[0]
    if library in MAKERS:
        hint = "pip install fcdeploy; fcdeploy-runtime verifies and serves"
    elif library == RUNTIME:
        hint = say_install(RUNTIME) + (NATIVE_INSTEAD if native else "")
    else:
        return None
    return FcdeployError(f"{asker} needs {library!r}, which is not installed", hint)
