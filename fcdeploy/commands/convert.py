"""Calibrations in the files of other tools: theirs for us, ours for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.files import check_output
from fcdeploy.graph.model import files_of, hash_model, read_model, refuse_unsupported
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.calibrating.imported_ranges import import_ranges
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records import calibration as calibrations
from fcdeploy.records.exchange.formats import is_calibration, read_ranges
from fcdeploy.records.exchange.onnxruntime_json import tell_use, write_json
from fcdeploy.records.exchange.tensorrt import FORM, HEADER, write_cache
from fcdeploy.records.report import Report, Table, format_next
from fcdeploy.wording import quote_path, say_count

Ends = Mapping[str, tuple[float, float]]

WRITTEN = {".json": "onnxruntime's calibration JSON", ".cache": "TensorRT's calibration cache", ".calib": "fcdeploy's"}
OURS = ".calib"


@dataclass(frozen=True)
class SourceRanges:
    """What was read: ranges, the name of their format, what to know of them, the model's hash where it is known."""

    ends: Ends
    format: str
    made_by: str
    warnings: tuple[str, ...]
    model: str = ""


def convert(
    calibration: str | Path,
    *,
    output: str | Path,
    model: str | Path | None = None,
    header: str = HEADER,
    force: bool = False,
) -> Report:
    """Write ranges from one file to another; what the output is, its suffix says: .calib, .json or .cache.

    `model` is the float model that they are ranges of: needed to write a .calib, which knows its model, and otherwise
    to say which tensors are missing.  `header` is the first line of a .cache.  Raises FcdeployError.
    """
    path, target = Path(calibration), Path(output)
    if target.suffix not in WRITTEN:
        raise FcdeployError(
            f"output {str(target)!r} ends with none of {', '.join(WRITTEN)}",
            "; ".join(f"-o NAME{suffix} writes {what}" for suffix, what in WRITTEN.items()),
        )
    if not FORM.match(header):
        raise FcdeployError(f"header {header!r} is not TRT-VERSION-ALGORITHM", f"--header {HEADER}")
    check_output(target, force=force, inputs=(path, *([Path(model)] if model else [])))

    given = _read_own(path) if is_calibration(path) else _read_foreign(path)
    if target.suffix == OURS and (given.model or model is None):
        raise FcdeployError(
            f"{str(path)!r} is a calibration file of fcdeploy's already"
            if given.model
            else f"{str(path)!r} does not say which model its ranges are of, and a .calib has to",
            "-o NAME.json or NAME.cache" if given.model else f"--model MODEL -o {target}",
        )

    fitted = None if model is None else _fit_to_model(given, path, Path(model))
    if target.suffix == OURS:
        assert fitted is not None
        data, ends = calibrations.to_bytes(fitted.calibration), fitted.ends
    else:
        ends = given.ends
        data = write_json(ends) if target.suffix == ".json" else write_cache(ends, header)
    with replace_file(target, force=force) as aside:
        aside.write_bytes(data)
    return _make_report(given, ends, fitted, target)


@dataclass(frozen=True)
class FittedRanges:
    """Ranges beside a model: its calibration, the ends in it, what the file has too much and what it lacks."""

    calibration: calibrations.Calibration
    ends: Ends
    unknown: list[str]
    missing: list[str]


def _read_own(path: Path) -> SourceRanges:
    """The ends of inputs and activations; weights are in the model."""
    recorded = calibrations.read(path)
    records = [record for record in recorded.tensors.values() if record.kind in ("input", "activation")]
    finite = {
        r.name: r.histogram for r in records if r.histogram.total > r.histogram.nonfinite or r.histogram.ends_only
    }
    broken = [r.name for r in records if r.name not in finite]
    warnings = (f"left out, never finite: {quote_names(broken)}",) if broken else ()
    ends = {name: (h.low, h.high) for name, h in finite.items()}
    return SourceRanges(ends, "fcdeploy's calibration file", "", warnings, recorded.model)


def _read_foreign(path: Path) -> SourceRanges:
    ranges, name = read_ranges(path)
    return SourceRanges(ranges.ends, name, ranges.made_by, ranges.doubts)


def _fit_to_model(given: SourceRanges, path: Path, model: Path) -> FittedRanges:
    """The ranges that are of tensors of the model, and which are not."""
    graph = read_model(model)
    refuse_unsupported(graph, str(model))
    content = hash_model(files_of(graph, model))
    if given.model not in ("", content):
        raise FcdeployError(
            f"calibration {str(path)!r} was made from another model than {str(model)!r}",
            f"fcdeploy calibrate {quote_path(model)} --data DATA -o {quote_path(path)} --force",
        )
    known = _list_tensors(graph)
    prepare(graph)
    known |= _list_tensors(graph)
    calibration, missing = import_ranges(graph, given.ends, model_hash=content, made_by=given.made_by)
    if not calibration.tensors:
        raise FcdeployError(
            f"none of the {say_count(len(given.ends), 'range')} of {str(path)!r} is of a tensor of {str(model)!r}: "
            f"it has {quote_names(given.ends)}",
            "give the model that was calibrated, with its tensors' names unchanged",
        )
    ends = {name: (r.histogram.low, r.histogram.high) for name, r in calibration.tensors.items()}
    return FittedRanges(calibration, ends, [name for name in given.ends if name not in known], missing)


def _list_tensors(graph: ir.Model) -> set[str]:
    values = [*graph.graph.inputs, *(value for node in graph.graph for value in node.outputs)]
    return {name_of(value) for value in values} | set(map(str, graph.graph.initializers))


def _make_report(given: SourceRanges, ends: Ends, fitted: FittedRanges | None, target: Path) -> Report:
    warnings = list(given.warnings)
    unknown, missing = (fitted.unknown, fitted.missing) if fitted else ([], [])
    if unknown:
        are = f"{say_count(len(unknown), 'range')} {'is' if len(unknown) == 1 else 'are'}"
        warnings.append(f"{are} of no tensor of the model: {quote_names(unknown)}")
    if missing:
        have = f"{say_count(len(missing), 'tensor')} of the model {'has' if len(missing) == 1 else 'have'}"
        stay = "; their layers will stay float" if target.suffix == OURS else ""
        warnings.append(f"{have} no range: {quote_names(missing)}{stay}")
    widened = [name for name, (low, high) in ends.items() if target.suffix == ".cache" and -low != high]
    values = {
        "tensors": [{"tensor": name, "min": low, "max": high} for name, (low, high) in ends.items()],
        "from": given.format, "to": WRITTEN[target.suffix], "made_by": given.made_by, "unknown": unknown,
        "missing": missing, "widened": widened, "output": str(target),
    }  # fmt: skip
    rows = tuple((name, f"{low:.6g}", f"{high:.6g}") for name, (low, high) in ends.items())
    lines = [f"{say_count(len(ends), 'range')}: {given.format} -> {target}"]
    if widened:
        lines.append(f"{len(widened)} of them widen, because the format is symmetric: -amax to amax")
    if target.suffix == ".json":
        lines.append(tell_use(str(target)))
    if target.suffix == OURS:
        lines.append(format_next("quantize MODEL --int8 --calibration", target, "--ranges minmax -o int8.onnx"))
    return Report(
        "calibration-convert", values, (Table("ranges", ("tensor", "min", "max"), rows),), tuple(lines),
        warnings=tuple(warnings),
    )  # fmt: skip
