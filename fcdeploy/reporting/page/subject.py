"""What is known of one int8 model: the file itself, its bundle, and the reports, plan and calibration that go with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.bundles.read import open_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.files import name_model, read_json
from fcdeploy.graph.model import files_of, hash_model, measure_size, read_model
from fcdeploy.graph.nodes import name_of
from fcdeploy.prepare.activation_memory import trace_memory
from fcdeploy.prepare.cost_model import LayerCost, fix_leading_axis, list_layer_costs
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import origin
from fcdeploy.records import plan as plans
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.data_format import DataFormat, from_metadata
from fcdeploy.records.plan import Plan
from fcdeploy.reporting.page.evidence_types import REPORTS, check_report
from fcdeploy.runtime.kernels import Kernel, find_kernels
from fcdeploy.wording import quote_path

NOT_OURS = "give the files that fcdeploy validate, bench and quantize print with --json, a plan or a calibration"
BUNDLED = {"validate": "validation", "bench": "bench"}
"""Report -> what it is called in a bundle."""
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model and what is known of it. `reports` are JSON objects by command; `made` is what its metadata say.

    `memory` are the bytes of activations that are alive while each node runs, empty where they are not known; `format` is how
    data become its inputs.
    """

    name: str
    path: Path
    sha256: str
    bytes: int
    made: dict[str, str]
    model: ir.Model
    kernels: tuple[Kernel, ...]
    costs: tuple[LayerCost, ...]
    memory: tuple[tuple[str, int], ...]
    format: DataFormat
    reports: dict[str, Values] = field(default_factory=dict)
    plan: Plan | None = None
    calibration: Calibration | None = None
    bundle: Values | None = None


@dataclass(frozen=True)
class Evidence:
    """One file that was given: a report by its command's name, or "plan", or "calibration"."""

    path: Path
    kind: str
    content: Any


def read_evidence(path: Path) -> Evidence:
    """What a file is, by what it says of itself. Raises FcdeployError for one that is none of ours."""
    if not path.is_file():
        raise FcdeployError(f"{str(path)!r} does not exist", NOT_OURS)
    with path.open("rb") as file:
        start = file.read(1)
    if path.suffix == ".json" and start != b"{":
        raise FcdeployError(f"{str(path)!r} is no JSON object, expected a report or a plan", NOT_OURS)
    if start != b"{":
        return Evidence(path, "calibration", calibrations.read(path))
    content = read_json(path, "file", NOT_OURS)
    schema = str(content.get("schema", "")) if isinstance(content, dict) else ""
    if schema.startswith("fcdeploy.plan/"):
        return Evidence(path, "plan", plans.from_json(content, f"plan {str(path)!r}"))
    for kind in REPORTS:
        if schema == f"fcdeploy.{kind}/1":
            check_report(kind, content, repr(str(path)), NOT_OURS)
            return Evidence(path, kind, content)
    raise FcdeployError(f"{str(path)!r} is no report, plan or calibration: its schema is {schema[:60]!r}", NOT_OURS)


def read_subjects(paths: Sequence[Path], given: Iterable[Evidence]) -> list[Subject]:
    """The models, each with the evidence that is of it. Raises FcdeployError where a file belongs to none of them."""
    subjects = [read_subject(path) for path in paths]
    for one in given:
        fitting = [subject for subject in subjects if belongs(one, subject, alone=len(subjects) == 1)]
        if not fitting:
            names = ", ".join(repr(subject.name) for subject in subjects)
            raise FcdeployError(f"{str(one.path)!r} is not of {names}", "leave it out, or give the model that it is of")
        for subject in fitting:
            add_evidence(subject, one, subjects)
    return subjects


def read_subject(path: Path) -> Subject:
    """A model file, or a bundle with the reports that lie in it."""
    bundle: Values | None = None
    reports: dict[str, Values] = {}
    plan = None
    file = path
    if path.is_dir():
        opened = open_bundle(path)
        file = path / opened.manifest.model
        content = {name: json.loads(opened.read(f"{name}.json")) for name in opened.manifest.reports}
        reports = {kind: content[name] for kind, name in BUNDLED.items() if name in content}
        for kind, values in reports.items():
            check_report(kind, values, f"bundle {str(path)!r}", "fcdeploy bundle makes it again")
        plan = plans.from_json(content["plan"], f"bundle {str(path)!r}: plan") if "plan" in content else None
        bundle = {
            "name": opened.manifest.name, "version": opened.manifest.version, "made_by": opened.manifest.made_by,
            "files": {name: row.sha256 for name, row in opened.manifest.files.items()},
        }  # fmt: skip
    elif path.suffix == ".zip":
        raise FcdeployError(
            f"{str(path)!r} is a zip, a report needs the folder", f"unzip {quote_path(path)} -d {quote_path(path.stem)}"
        )
    model = read_model(file)
    files = files_of(model, file)
    made = origin.read(model.metadata_props, str(path))
    sha256, size = hash_model(files), measure_size(files)
    kernels = find_kernels(file)
    fix_leading_axis(model)
    costs = tuple(list_layer_costs(model))
    names = ("", *map(name_of, model.graph))
    memory = tuple(zip(names, trace_memory(model) or (), strict=False))
    how = from_metadata(model.metadata_props, str(path))
    return Subject(
        path.name, path, sha256, size, made, model, kernels, costs, memory, how, reports, plan, bundle=bundle
    )


def belongs(one: Evidence, subject: Subject, *, alone: bool) -> bool:
    """Whether a file is of this model: by the hash that it carries; a file without is of the only model."""
    match one.kind:
        case "validate":
            return bool(one.content["hashes"]["int8"] == subject.sha256)
        case "bench":
            hashes = one.content.get("hashes", {})
            return bool(hashes.get("int8") == subject.sha256) if hashes else alone
        case "quantize":
            output = Path(one.content.get("output") or "")
            if subject.bundle is not None:  # whose model has lost its file's name
                return alone or name_model(output) == subject.bundle["name"]
            return output.name == subject.path.name
        case "plan":
            return plans.digest(one.content) == subject.made.get("plan")
    return (one.content.model, one.content.data) == (subject.made.get("float"), subject.made.get("data"))


def add_evidence(subject: Subject, one: Evidence, subjects: list[Subject]) -> None:
    """Put it to the model, in the list."""
    at = subjects.index(subject)
    if one.kind in REPORTS:
        subjects[at] = replace(subject, reports={**subject.reports, one.kind: one.content})
    elif one.kind == "plan":
        subjects[at] = replace(subject, plan=one.content)
    else:
        subjects[at] = replace(subject, calibration=one.content)
