"""The manifest of a bundle: what lies in it, what it was made from, and what running it takes.

Nothing in it is trusted: `from_json` checks every key, so that what reads a `Manifest` need not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.records import data_format
from fcdeploy.records.box_layout_fit import check_outputs
from fcdeploy.records.data_format import UNSAID, DataFormat
from fcdeploy.records.json_keys import check_keys
from fcdeploy.records.signature import TensorSpec

SCHEMA = "fcdeploy.bundle/1"
MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
LIBRARY = re.compile(r"native/([a-z0-9_]{1,32})\.so")
HASH = re.compile(r"[0-9a-f]{64}")
DTYPES = (
    "string",
    "float32",
    "float64",
    "float16",
    "bool",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
)
REPORTS = ("plan", "calibration", "validation", "bench")
AGAIN = "make it again: fcdeploy bundle INT8 -o BUNDLE"


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle: bytes, and sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    `made_from` holds what the int8 file says of its origin (hashes of the float model and of the calibration samples,
    target, effort), `made_by` the versions and the CPU that the golden outputs come from, `needs` the opset, IR version
    and oldest onnxruntime.  `session` are config entries of onnxruntime.  `format` is how raw data
    become inputs, and what classes are called.
    """

    name: str
    version: str
    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, BundleFile]
    made_from: dict[str, str]
    made_by: dict[str, str]
    needs: dict[str, str]
    session: dict[str, str]
    golden: str | None = None
    golden_from: str | None = None
    format: DataFormat = UNSAID
    reports: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The CPUs that the integers are for, empty for a model that was not made by `quantize`."""
        return self.made_from.get("target", "")

    @property
    def libraries(self) -> dict[str, str]:
        """Machine -> the file of native code for it."""
        return {found[1]: name for name in self.files if (found := LIBRARY.fullmatch(name))}

    @property
    def weights(self) -> tuple[str, ...]:
        """Files of weights outside the model file."""
        apart = {self.model, self.golden, *(f"{report}.json" for report in self.reports), *self.libraries.values()}
        return tuple(name for name in self.files if name not in apart)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON can say it; `from_json` reads it back."""
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "version": manifest.version,
        "model": manifest.model,
        "inputs": [_spec_to_row(spec) for spec in manifest.inputs],
        "outputs": [_spec_to_row(spec) for spec in manifest.outputs],
        **data_format.to_json(manifest.format),
        "session": manifest.session,
        "needs": manifest.needs,
        "made_from": manifest.made_from,
        "made_by": manifest.made_by,
        "golden": manifest.golden,
        "golden_from": manifest.golden_from,
        "reports": list(manifest.reports),
        "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in sorted(manifest.files.items())},
    }


def from_json(data: Any, source: str) -> Manifest:
    """Read a manifest; `source` is what to call it in an error. Raises FcdeployError that names the key."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        said = data.get("schema") if isinstance(data, dict) else data
        raise FcdeployError(f"{source} has format {str(said)[:40]!r}, expected {SCHEMA!r}", AGAIN)
    check_keys(data, CHECKS.keys() | data_format.KEYS | {"schema"}, source, AGAIN, optional=data_format.KEYS)
    for key, (fits, wanted) in CHECKS.items():
        if not fits(data[key]):
            raise FcdeployError(f"{source}: {key!r} is {str(data[key])[:60]!r}, expected {wanted}", AGAIN)
    files = _read_files(data["files"], source)
    needed = [data["model"], data["golden"], *(f"{report}.json" for report in data["reports"])]
    for name in needed:
        if name is not None and name not in files:
            raise FcdeployError(f"{source}: {name!r} is not among its files", AGAIN)
    known = {key: data[key] for key in CHECKS} | {"files": files, "reports": tuple(data["reports"])}
    known["format"] = _read_format(data, source)
    known |= {key: tuple(_spec_from_row(row, f"{source}: {key}") for row in data[key]) for key in ("inputs", "outputs")}
    for key in ("inputs", "outputs"):
        names = [spec.name for spec in known[key]]
        if double := next((name for name in names if names.count(name) > 1), ""):
            raise FcdeployError(f"{source}: {key} has {double[:60]!r} twice", AGAIN)
    if known["format"].boxes is not None:
        check_outputs(known["format"].boxes, known["outputs"], source, AGAIN)
    return Manifest(**known)


def _read_files(rows: dict[str, Any], source: str) -> dict[str, BundleFile]:
    files = {}
    for name, row in rows.items():
        if not is_plain_path(name):
            raise FcdeployError(f"{source}: file {name[:60]!r} is no plain relative path", AGAIN)
        check_keys(row, {"bytes", "sha256"}, f"{source}: file {name!r}", AGAIN)
        if type(row["bytes"]) is not int or row["bytes"] < 0 or not _match(HASH)(row["sha256"]):
            raise FcdeployError(f"{source}: file {name!r} has no size and sha256", AGAIN)
        files[name] = BundleFile(row["bytes"], row["sha256"])
    return files


def _read_format(data: dict[str, Any], source: str) -> DataFormat:
    said = {key: data[key] for key in data_format.KEYS & data.keys()}
    if isinstance(said.get("preprocess"), dict) and "steps" not in said["preprocess"]:
        del said["preprocess"]  # settings of an earlier version, which informed and were not carried out
    return data_format.from_json(said, source, AGAIN)


def is_plain_path(name: str) -> bool:
    """A relative path inside the bundle, of names that every system has; hidden files are none, nor the manifest."""
    parts = name.split("/")
    odd = any(part in ("", ".", "..") or part[0] == "." for part in parts)
    return not odd and not set(name) & set('\\:*?"<>|') and name.isprintable() and len(name) < 256 and name != MANIFEST


def _match(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_match(NAME), "letters, digits, '.', '_' and '-'"),
    "version": (_match(VERSION), "a positive number in a string"),
    "model": (lambda value: isinstance(value, str), "the name of a file"),
    "inputs": (lambda value: isinstance(value, list), "a list"),
    "outputs": (lambda value: isinstance(value, list) and bool(value), "a list that is not empty"),
    "session": (_is_texts, "an object of strings"),
    "needs": (_is_texts, "an object of strings"),
    "made_from": (_is_texts, "an object of strings"),
    "made_by": (_is_texts, "an object of strings"),
    "golden": (_is_text_or_none, "the name of a file, or null"),
    "golden_from": (_is_text_or_none, "a string or null"),
    "reports": (lambda value: isinstance(value, list) and set(map(str, value)) <= set(REPORTS), f"some of {REPORTS}"),
    "files": (lambda value: isinstance(value, dict), "an object"),
}
"""Key -> whether a value will do, and what is expected, in words."""


def _spec_to_row(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": "string" if spec.dtype.kind == "O" else str(spec.dtype),
        "shape": list(spec.shape),
    }


def _spec_from_row(row: Any, where: str) -> TensorSpec:
    check_keys(row, {"name", "dtype", "shape"}, where, AGAIN)
    name, dtype, shape = row["name"], row["dtype"], row["shape"]
    if not isinstance(name, str) or not name:
        raise FcdeployError(f"{where}: a name is {str(name)[:60]!r}, expected text", AGAIN)
    if dtype not in DTYPES:
        raise FcdeployError(f"{where}: {name!r} has dtype {str(dtype)[:60]!r}, expected {', '.join(DTYPES)}", AGAIN)
    if not isinstance(shape, list) or not all(n is None or (type(n) is int and n >= 0) for n in shape):
        raise FcdeployError(f"{where}: {name!r} has shape {str(shape)[:60]!r}, expected lengths and nulls", AGAIN)
    return TensorSpec(name, np.dtype("object" if dtype == "string" else dtype), tuple(shape))
