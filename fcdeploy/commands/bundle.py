"""An int8 model and all that is known of it, as one folder or zip that is deployed whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.arrays import Arrays
from fcdeploy.bundles import golden
from fcdeploy.bundles import triton as repository
from fcdeploy.bundles.libraries import name_libraries
from fcdeploy.bundles.write import Content, check_bundle_output, encode_json, write_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes.served import find_served_boxes
from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.files import name_model, read_json
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.graph.model import files_of, hash_model, input_specs, measure_size, output_specs, read_model
from fcdeploy.graph.opset import oldest_runtime
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.preprocessing.read import Given, read_preprocessing
from fcdeploy.proof.batch_independence import explain_dependence
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import origin
from fcdeploy.records import plan as plans
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.data_format import UNSAID, DataFormat, choose_format, from_metadata, read_ultralytics_names
from fcdeploy.records.manifest import NAME, REPORTS, VERSION, Manifest, is_plain_path
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, format_next
from fcdeploy.records.signature import TensorSpec
from fcdeploy.reporting.page.evidence_types import check_report
from fcdeploy.runtime.cpu import detect_target, read_cpu_name, this_machine
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import AGAIN, NativeEngine, load_native
from fcdeploy.runtime.options import read_options
from fcdeploy.runtime.session import Session, read_versions
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.kinds import check_limit, open_source
from fcdeploy.samples.layout import arrange_samples
from fcdeploy.samples.source import Batch, choose_batch_size, make_batches
from fcdeploy.wording import say_count

MODEL, GOLDEN = "model.onnx", "golden.npz"
RUNS = 4  # golden samples unless --samples says otherwise; fewer where they would take more bytes than the model
COMMANDS = {"validation": "validate", "bench": "bench"}
"""Report of a measurement -> the command that prints it."""
SAVE = "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx --save-plan plan.json writes it"


def bundle(
    int8: str | Path,
    *,
    output: str | Path | None = None,
    triton: str | Path | None = None,
    name: str | None = None,
    version: str = "1",
    calibration: str | Path | None = None,
    plan: str | Path | None = None,
    validation: str | Path | None = None,
    bench: str | Path | None = None,
    libraries: Sequence[str | Path] = (),
    data: str | Path | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    classes: str | Path | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the model, what it was made from and how it answers as a bundle, `docs/bundle.md`, at `output`.

    `triton` is the folder of a Triton model repository that gets the model as NAME/VERSION, with its configuration.
    Golden samples are the first `samples` (4, or as many as take no more bytes than the model) of `data`, else some that the
    calibration carries, else drawn with a seed; their outputs are those of this CPU.  `calibration`, `plan`, `validation`
    and `bench` are the files of `fcdeploy calibrate`, `quantize --save-plan`, `validate --json` and `bench --json`;
    `libraries` those of `fcdeploy compile`, one for each machine, of which that for this one must answer the golden
    samples as the model does.
    Raises FcdeployError when they are not this model's.
    """
    path = Path(int8)
    given = [Path(file) for file in (path, calibration, plan, validation, bench, data, classes) if file]
    if output is None and triton is None:
        raise FcdeployError("there is no output: neither -o nor --triton was given", "-o model.fcd")
    check_limit(samples)
    if output is not None:
        check_bundle_output(Path(output), force=force, inputs=tuple(given))

    model = read_model(path)
    warnings = list(refuse_untrusted(model, str(path)))
    session = Session(path, threads=1)
    recorded = _read_calibration(calibration, origin.read(model.metadata_props, str(path)))
    how = _choose_format(model, path, recorded, preprocess, classes)
    manifest = _make_manifest(path, model, session, name=name, version=version, format=how)
    files = files_of(model, path)
    native = name_libraries(libraries)
    served: dict[str, Content] = {MODEL: path, **_find_weight_files(files)}
    if triton is not None:  # refused before the golden samples are run
        text = _make_triton_config(path, manifest, Path(triton), force=force)
        warnings += _warn_of_lost_options(manifest)

    warnings += _warn_of_states(model)
    measured = {"validation": validation, "bench": bench}
    reports = _collect_reports(manifest, recorded, plan, measured, hash_model(files))
    if not reports.get("validation", {}).get("passed", True):
        warnings.append(f"validation report {str(validation)!r} says that the model did not pass")

    inputs, count = input_specs(model), RUNS if samples is None else samples
    size = choose_batch_size(inputs, 1)
    read = None
    if data is not None:
        read = make_batches(open_source(data, inputs, limit=count * size, format=how, model=path), size)
    source, feeds = _choose_golden_samples(inputs, recorded, count, size, read)
    runs = _run(session, feeds, on_step)
    runs = runs if samples is not None else _keep_few(runs, measure_size(files))
    how, unread = _find_boxes(how, model, runs)
    warnings += [unread] if unread else []
    manifest = replace(manifest, golden_from=source, reports=tuple(reports), format=how)
    warnings += _try_libraries(native, manifest, runs, hash_model(files))
    contents = served | native | {f"{key}.json": encode_json(value) for key, value in reports.items()}
    contents[GOLDEN] = golden.to_bytes(runs)
    if output is not None:
        manifest = write_bundle(Path(output), manifest, contents, force=force, on_step=on_step)
    if triton is not None:
        repository.write_repository(Path(triton), manifest, served, text)
    return _make_report(manifest, contents, len(runs), output, triton, warnings)


def _choose_format(
    model: ir.Model, path: Path, recorded: Calibration | None, preprocess: Given, classes: str | Path | None
) -> DataFormat:
    """How data are read: as given, else as the model says, else as it was calibrated."""
    known = from_metadata(model.metadata_props, f"model {str(path)!r}", output_specs(model)).on_top_of(
        recorded.format if recorded else UNSAID
    )
    how = choose_format(known, preprocess=preprocess, classes=classes)
    if how.preprocess is None:
        return how
    return replace(how, preprocess=read_preprocessing(how.preprocess, input_specs(model)[0]))


def _find_boxes(how: DataFormat, model: ir.Model, runs: Sequence[golden.Run]) -> tuple[DataFormat, str]:
    """With where a detector's answers to pictures hold its boxes, or a warning that they cannot be read."""
    if how.preprocessing is None or len(model.graph.inputs) != 1:
        return replace(how, boxes=None), ""
    named = replace(how, classes=how.classes or read_ultralytics_names(model.metadata_props))
    infer_shapes(model)
    found = find_served_boxes(find_ends(model), how.preprocessing.layout, runs, named.classes, recorded=how.boxes)
    if not isinstance(found, str):
        return replace(named, boxes=found), ""
    return replace(how, boxes=None), found and f"boxes are not read, serve answers with numbers: {found}"


def _make_triton_config(path: Path, manifest: Manifest, folder: Path, *, force: bool) -> str:
    """What Triton is told of the model. Raises FcdeployError where it cannot be written there."""
    text = repository.make_config(manifest, why_alone=explain_dependence(read_outline(path)))
    repository.check_repository(folder, manifest, text, force=force)
    return text


def _collect_reports(
    manifest: Manifest,
    recorded: Calibration | None,
    plan: str | Path | None,
    measured: Mapping[str, str | Path | None],
    sha256: str,
) -> dict[str, dict[str, Any]]:
    """The reports that there are, by name. Raises FcdeployError for those of another model."""
    reports = {
        "plan": _read_plan(plan, manifest.made_from),
        "calibration": None if recorded is None else _summarize(recorded),
        **{name: _read_report(name, file, sha256) for name, file in measured.items()},
    }
    return {key: value for key, value in reports.items() if value is not None}


def _make_manifest(
    path: Path, model: ir.Model, session: Session, *, name: str | None, version: str, format: DataFormat
) -> Manifest:
    """All that is known before anything is run; the files are for `write_bundle` to fill in."""
    opset = model.opset_imports.get("", 1)
    return Manifest(
        name=_check_pattern("name", name or _make_name(path), NAME, "letters, digits, '.', '_' and '-'"),
        version=_check_pattern("version", version, VERSION, "a positive number"),
        model=MODEL,
        inputs=session.input_specs,
        outputs=session.output_specs,
        files={},
        made_from=origin.read(model.metadata_props, str(path)),
        made_by={
            "fcdeploy": __version__,
            "onnxruntime": read_versions()["onnxruntime"],
            "cpu": read_cpu_name(),
            "family": detect_target().name,
        },
        needs={"opset": str(opset), "ir_version": str(model.ir_version), "onnxruntime": oldest_runtime(model)},
        session=read_options(path),
        golden=GOLDEN,
        format=format,
    )


def _try_libraries(native: Mapping[str, Path], manifest: Manifest, runs: Sequence[golden.Run], model: str) -> list[str]:
    """Refuse a library for this machine that is not of this model; name those that cannot be run here."""
    here = f"native/{this_machine()}.so"
    if here in native:
        source = f"library {str(native[here])!r}"
        library = load_native(native[here])
        if library.description.get("model") != model:
            raise FcdeployError(f"{source} was compiled from another model", AGAIN)
        engine = NativeEngine(library, manifest.inputs, manifest.outputs, source)
        compared = golden.compare(runs, lambda feeds: dict(zip(engine.outputs, engine.run(feeds), strict=True)))
        for one in compared:
            if one.kind == golden.DIFFERENT:
                raise FcdeployError(
                    f"{source} answers otherwise than the model: output {one.output!r} differs by {one.largest:.4g}",
                    "fcdeploy compile the same file, or: the model saturates on this CPU, fcdeploy doctor",
                )
    return [f"{name!r} is for another machine: fcdeploy verify there tries it" for name in native if name != here]


def _warn_of_states(model: ir.Model) -> list[str]:
    return [
        f"input {spec.name!r} takes what output {spec.state!r} gave on the step before: who calls the model hands it on"
        for spec in input_specs(model)
        if spec.state
    ]


def _warn_of_lost_options(manifest: Manifest) -> list[str]:
    """What the model wants of onnxruntime and Triton's configuration cannot say."""
    return [
        f"Triton cannot set {name!r}, which the model asks for: answers may differ there" for name in manifest.session
    ]


def _find_weight_files(files: tuple[Path, ...]) -> dict[str, Path]:
    """Files of weights beside the model, under the names that the model has for them."""
    taken = {MODEL, GOLDEN, *(f"{report}.json" for report in REPORTS)}
    weight_files = {file.relative_to(files[0].parent).as_posix(): file for file in files[1:]}
    for name in weight_files:
        if not is_plain_path(name) or name in taken or name.startswith("native/"):
            raise FcdeployError(
                f"model {str(files[0])!r} has weights in {name!r}, a name that a bundle cannot hold",
                "write the model again with weights in 'model.data'",
            )
    return weight_files


def _read_calibration(file: str | Path | None, made: Mapping[str, str]) -> Calibration | None:
    if file is None:
        return None
    recorded = calibrations.read(Path(file))
    origin.check_calibration(recorded, Path(file), made)
    return recorded


def _summarize(recorded: Calibration) -> dict[str, Any]:
    """What was recorded of each tensor, in numbers; no samples."""
    rows = [
        {"name": r.name, "kind": r.kind, "layer": r.layer, "op": r.op, "shape": list(r.shape),
         "min": r.histogram.low, "max": r.histogram.high, "elements": r.histogram.total}
        for r in recorded.tensors.values()
    ]  # fmt: skip
    about = {"model": recorded.model, "data": recorded.data, "samples": recorded.samples}
    return {"schema": "fcdeploy.calibration-summary/1", **about, "made_by": recorded.made_by, "tensors": rows}


def _read_plan(file: str | Path | None, made: Mapping[str, str]) -> dict[str, Any] | None:
    """The plan, which must be the one that the model was made by; models of other tools do not say."""
    if file is None:
        return None
    decided = plans.from_json(read_json(Path(file), "plan", SAVE), f"plan {str(file)!r}")
    if made and made.get("plan") not in (plans.digest(decided), plans.digest(decided, plans.SCHEMA_1)):
        raise FcdeployError(f"plan {str(file)!r} is not the one that the model was made by", SAVE)
    return plans.to_json(decided)


def _read_report(name: str, file: str | Path | None, content: str) -> dict[str, Any] | None:
    """The report of validate or bench, which must be about the model of this hash."""
    if file is None:
        return None
    command = COMMANDS[name]
    data = " --data DATA" if name == "validation" else ""
    hint = f"fcdeploy {command} INT8 --against FLOAT{data} --json > report.json writes one"
    report = read_json(Path(file), f"{name} report", hint)
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != f"fcdeploy.{command}/1":
        raise FcdeployError(f"{str(file)!r} has format {str(schema)[:40]!r}, expected 'fcdeploy.{command}/1'", hint)
    check_report(command, report, f"{name} report {str(file)!r}", hint)
    if (report.get("hashes") or {}).get("int8") != content:
        raise FcdeployError(f"{name} report {str(file)!r} is about another model", hint)
    return dict(report)


def _make_name(path: Path) -> str:
    """The model's name as an address can have it: "my fruit.int8.onnx" is served as my-fruit."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name_model(path)).strip("-_") or "model"


def _check_pattern(option: str, value: str, pattern: Any, wanted: str) -> str:
    if not pattern.fullmatch(value):
        raise FcdeployError(f"--{option} {value!r} cannot stand in an address, expected {wanted}", f"--{option} 1")
    return value


def _choose_golden_samples(
    inputs: list[TensorSpec], recorded: Calibration | None, samples: int, size: int, read: Iterable[Batch] | None
) -> tuple[str, list[Arrays]]:
    """Where the golden samples come from, and what is fed to the model in each run, as many samples as it insists on."""
    if read is not None:
        return "data", [batch.inputs for batch in read]
    if recorded is not None and recorded.kept:
        kept = recorded.sample_groups[0]
        count = min(len(next(iter(kept.values()))) // size, samples)
        parts = ({n: a[i * size : (i + 1) * size] for n, a in kept.items()} for i in range(count))
        return "calibration", [arrange_samples(part, inputs) for part in parts]
    return "random", [draw_feeds(_fix_shapes(inputs), seed=i) for i in range(samples)]


def _run(session: Session, feeds: Sequence[Arrays], on_step: OnStep | None) -> list[golden.Run]:
    """Each of the feeds with what the model answers to it."""
    runs: list[golden.Run] = []
    for done, fed in enumerate(feeds):
        if on_step:
            on_step("golden samples", done, len(feeds))
        runs.append((fed, dict(zip(session.outputs, map(np.asarray, session.run(fed)), strict=True))))
    return runs


def _keep_few(runs: list[golden.Run], most: int) -> list[golden.Run]:
    """As many of the first runs as take no more bytes than the model does, and at least one."""
    sizes = np.cumsum([sum(array.nbytes for ends in run for array in ends.values()) for run in runs])
    return runs[: max(1, int((sizes <= most).sum()))]


def _fix_shapes(inputs: list[TensorSpec]) -> list[TensorSpec]:
    try:
        return fix_shapes(inputs, None)
    except FcdeployError as error:
        raise FcdeployError(error.message, "--data DATA gives golden samples") from error


def _make_report(
    manifest: Manifest,
    contents: Mapping[str, Content],
    runs: int,
    output: str | Path | None,
    triton: str | Path | None,
    warnings: list[str],
) -> Report:
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in contents.values())
    lines = []
    if output is not None:
        missing = [word for word in REPORTS if word not in manifest.reports]
        lines.append(f"{manifest.name} version {manifest.version}: {len(contents)} files, {size:,} bytes")
        if missing:
            lines.append(f"without {', '.join(missing)}: {', '.join('--' + word for word in missing)} would put it in")
        lines.append(f"{say_count(runs, 'golden sample')} from {SOURCES[manifest.golden_from or 'random']}")
    if triton is not None:
        lines.append(
            f"Triton model repository {str(triton)!r}: {manifest.name}/{manifest.version}/{MODEL}, config.pbtxt"
        )
    lines += manifest.format.describe()
    if output is not None:
        lines.append(f"{format_next('verify', Path(output))}, on the CPU it is for")
    values = {
        "output": None if output is None else str(output), "triton": None if triton is None else str(triton),
        "name": manifest.name, "version": manifest.version, "bytes": size, "files": sorted(contents),
        "golden": runs, "golden_from": manifest.golden_from, "target": manifest.target,
    }  # fmt: skip
    return Report("bundle", values, (), tuple(lines), warnings=tuple(warnings))


SOURCES = {"data": "--data", "calibration": "the calibration", "random": "a seed: --data DATA takes real ones"}
