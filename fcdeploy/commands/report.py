"""What is known of int8 models as one page to show, or as a model card."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fcdeploy import __version__
from fcdeploy.atomic_files import clear_abandoned, replace_file, replace_files, replace_folder
from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.reporting.page.describe import describe
from fcdeploy.reporting.page.layers import list_layers
from fcdeploy.reporting.page.overlay import make_overlays
from fcdeploy.reporting.page.render import draw, render
from fcdeploy.reporting.page.sample_pictures import draw_samples
from fcdeploy.reporting.page.subject import BUNDLED, Subject, read_evidence, read_subjects
from fcdeploy.wording import quote_path, say_count

SUFFIXES = {"html": ".html", "markdown": ".md", "model-explorer": ".overlay"}


def report(
    models: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    add: Sequence[str | Path] = (),
    format: str = "html",
    title: str | None = None,
    pictures: int = 0,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write what is known of int8 models, side by side, as one HTML file that loads nothing, or as a markdown model card.

    With `format` "model-explorer", of one model, a folder of node data for Model Explorer: kernels, errors, times, sizes.

    `models` are files or bundles, whose reports and plans are taken from them.  `add` are more: what `validate`, `bench` and
    `quantize` print with `--json`, calibrations, and plans; each goes to the model that it is of.  `output` is MODEL.html
    (MODEL.md) unless given; `title` is the page's.  So many `pictures`, samples that a calibration among `add` kept, are shown
    as the model sees them, and are in the page then, which is HTML.  Nothing is measured: what no file says is said to be
    missing.  Raises FcdeployError where a file is of none of the models.
    """
    if format not in SUFFIXES:
        raise FcdeployError(f"--format {format!r} is unknown, expected {', '.join(SUFFIXES)}", "--format html")
    paths, given = [Path(model) for model in models], [Path(file) for file in add]
    if not paths:
        raise FcdeployError("there is no model to report on", "fcdeploy report int8.onnx -o report.html")
    target = Path(output) if output else paths[0].with_suffix(SUFFIXES[format])
    if pictures and format != "html":
        raise FcdeployError(f"--pictures {pictures} is for --format html, and not for {format}", "leave --pictures out")
    if format == "model-explorer":
        return _write_overlays(paths, given, target, force=force)
    check_output(target, force=force, inputs=(*paths, *given))

    begun = time.perf_counter()
    step: OnStep = on_step or (lambda *_: None)
    step("reading", 0, 2)
    subjects = read_subjects(paths, map(read_evidence, given))
    described, drawn = [], []
    for subject in subjects:
        rows = list_layers(subject)
        values = {**describe(subject, rows), "commands": list_commands(subject, target, format)}
        described.append(values)
        drawn.append(draw(values, rows, _draw_samples(subject, pictures)))
    if pictures and not any(each.samples for each in drawn):
        raise FcdeployError(
            f"--pictures {pictures}: no calibration was given that keeps samples of pictures", "--add MODEL.calib"
        )
    step("drawing", 1, 2)
    heading = title or ("int8 against float" if len(paths) > 1 else subjects[0].name)
    page = render(format, heading, described, drawn, __version__)
    with replace_file(target, force=force) as aside:
        aside.write_text(page, encoding="utf-8")
    return make_report(described, target, len(page.encode()), time.perf_counter() - begun)


def _draw_samples(subject: Subject, most: int) -> list[str]:
    calibration = subject.calibration
    return [] if calibration is None or most < 1 else draw_samples(calibration, subject.format.preprocessing, most)


def _write_overlays(paths: Sequence[Path], given: Sequence[Path], target: Path, *, force: bool) -> Report:
    """A file for each figure that is known of nodes, into a folder, beside what may lie there."""
    if len(paths) > 1:
        raise FcdeployError(f"{len(paths)} models were given, expected one for an overlay", "one call for each model")
    begun = time.perf_counter()
    (subject,) = read_subjects(paths, map(read_evidence, given))
    rows = list_layers(subject)
    texts = make_overlays(subject.model.graph.name or "<main>", rows)
    places = {target / f"{name}.json": text for name, text in texts.items()}
    clear_abandoned(target)
    with replace_files(list(places), force=force) if target.is_dir() else _make_folder(target, places) as asides:
        for aside, text in zip(asides, places.values(), strict=True):
            aside.write_text(text, encoding="utf-8")
    size = sum(len(text.encode()) for text in texts.values())
    model = subject.path / "model.onnx" if subject.path.is_dir() else subject.path
    lines = (
        f"{target}: {', '.join(texts)} of {say_count(len(rows), 'node')}",
        "pip install ai-edge-model-explorer model-explorer-onnx, then: "
        f"model-explorer {shlex.quote(str(model))} --extensions model_explorer_onnx "
        f"--node_data_paths {shlex.quote(','.join(map(str, places)))}",
    )
    values = {"output": str(target), "bytes": size, "seconds": round(time.perf_counter() - begun, 3), "models": []}
    return Report("report", values, lines=lines)


@contextmanager
def _make_folder(target: Path, places: Iterable[Path]) -> Iterator[list[Path]]:
    """As `replace_files` for the files of a folder that is not there yet: all of them come to be at once."""
    check_output(target)
    with replace_folder(target) as (folder,):
        yield [folder / place.name for place in places]


def list_commands(subject: Subject, output: Path, format: str = "html") -> list[str]:
    """The commands that give the figures, as far as the reports say how they were run; what they do not say in capitals."""
    reports, bundle = subject.reports, subject.bundle
    name = quote_path(subject.name if bundle is None else f"{bundle['name']}.int8.onnx")
    target = subject.made.get("target", "")
    made_for = f" --target {quote_path(target)}" if target else ""  # a file of a stranger may say anything
    plan = " --save-plan plan.json" if bundle and subject.plan else ""
    said = " --json > quantize.json" if "quantize" in reports else ""
    commands = [f"fcdeploy quantize FLOAT --int8 --data DATA{made_for}{plan} -o {name}{said}"]
    if validate := reports.get("validate"):
        limit = "" if validate.get("max_drop") is None else f" --max-drop {validate['max_drop']:g}"
        layers = " --layers" if validate.get("layers") else ""
        commands.append(
            f"fcdeploy validate {name} --against FLOAT --data EVALUATION{limit}{layers} --json > validate.json"
        )
    if bench := reports.get("bench"):
        nodes = " --per-node" if bench.get("per_node") else ""
        commands.append(
            f"fcdeploy bench {name} --against FLOAT --threads {quote_path(str(bench['threads']))}{nodes} --json > bench.json"
        )
    if bundle is not None:
        words = [f"--{word} {kind}.json" for kind, word in BUNDLED.items() if kind in reports]
        words += ["--plan plan.json"] if plan else []
        words += [f"--name {quote_path(bundle['name'])}"] if "." in bundle["name"] else []
        words += [f"--version {quote_path(bundle['version'])}"] if bundle["version"] != "1" else []
        commands.append(" ".join(["fcdeploy bundle", name, *words, "-o", quote_path(subject.name)]))
    apart = [
        kind for kind in ("quantize", "validate", "bench") if kind in reports and (not bundle or kind not in BUNDLED)
    ]
    added = "".join(f" --add {kind}.json" for kind in apart)
    how = "" if format == "html" else f" --format {format}"
    return [*commands, f"fcdeploy report {quote_path(subject.name)}{added}{how} -o {quote_path(output.name)}"]


def make_report(described: Sequence[Mapping[str, Any]], target: Path, size: int, seconds: float) -> Report:
    """The verdicts, and what was written."""
    lines = [f"{values['name']}: {values['verdict']}" for values in described]
    lines.append(f"{target}: {size:,} bytes, {seconds:.1f} s")
    values = {"output": str(target), "bytes": size, "seconds": round(seconds, 3), "models": list(described)}
    return Report("report", values, lines=tuple(lines))
