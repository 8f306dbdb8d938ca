"""Is this bundle the one that was made, and does this CPU answer as the one it was made on?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcdeploy.bundles.golden import DIFFERENT, EQUAL, TIES, OutputDifference
from fcdeploy.bundles.load import load_opened
from fcdeploy.bundles.read import open_bundle
from fcdeploy.records.manifest import Manifest
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.units import format_decibels
from fcdeploy.runtime.cpu import detect_target, read_cpu_name
from fcdeploy.wording import say_count


def verify(bundle: str | Path, *, engine: str = "onnxruntime", on_step: OnStep | None = None) -> Report:
    """Check every hash and run the golden samples on this CPU.

    The answer is no when a file is not the one that was bundled, or when an output differs by more than rounding ties.
    `engine` "native" asks the library that the bundle carries for this machine.  Raises FcdeployError when the bundle
    cannot be read, or its model does not load.
    """
    opened = open_bundle(bundle)
    manifest = opened.manifest
    wrong = opened.find_altered(on_step)
    # in one thread, as the golden samples were run: more add up a layer's floats in another order
    differences = [] if wrong else load_opened(opened, threads=1, engine=engine).compare()
    order = (EQUAL, TIES, DIFFERENT)
    worst = max((one.kind for one in differences), key=order.index, default=None)
    values: dict[str, Any] = {
        "bundle": str(bundle),
        "engine": engine,
        "name": manifest.name,
        "version": manifest.version,
        "files": [{"file": name, "altered": name in wrong} for name in manifest.files],
        "golden": worst,
        "outputs": [
            {"name": one.output, "golden": one.kind, "elements": one.elements, "differ": one.differ,
             "largest": one.largest, "levels": one.levels, "sqnr_db": one.sqnr_db}
            for one in differences
        ],
        "made_on": manifest.made_by,
        "cpu": read_cpu_name(),
        "family": detect_target().name,
    }  # fmt: skip
    passed = not wrong and worst != DIFFERENT
    values["passed"] = passed
    rows = tuple(
        (one.output, one.kind, f"{one.differ:,} of {one.elements:,}", f"{one.levels:.3g}", _format_decibels(one))
        for one in differences
    )
    table = Table("golden samples on this CPU", ("output", "", "differ", "levels", "SQNR"), rows)
    warnings = () if manifest.golden else ("the bundle holds no golden samples: only its hashes were checked",)
    lines = (f"{say_count(len(manifest.files), 'file')}, {sum(file.size for file in manifest.files.values()):,} bytes",)
    return Report(
        "verify", values, (table,) if rows else (), (*lines, _judge(manifest, wrong, differences)), passed, warnings
    )


def _judge(manifest: Manifest, wrong: list[str], differences: list[OutputDifference]) -> str:
    if wrong:
        return f"failed: {wrong[0]!r} is not the file that was bundled: its sha256 differs"
    if not differences:
        return "passed: every file is the one that was bundled"
    different = [one for one in differences if one.kind == DIFFERENT]
    ties = sum(one.differ for one in differences)
    elements = sum(one.elements for one in differences)
    if different:
        return f"failed: {_describe_difference(different[0])}; {_describe_cpus(manifest)}"
    if ties:
        return f"passed: within rounding ties, {ties:,} of {say_count(elements, 'element')} differ; {_describe_cpus(manifest)}"
    return f"passed: bit-equal, all {say_count(elements, 'element')} of {say_count(len(differences), 'output')}"


def _describe_difference(one: OutputDifference) -> str:
    if one.why:
        return f"output {one.output!r} is {one.why}"
    return (
        f"output {one.output!r} differs on {one.differ:,} of {say_count(one.elements, 'element')}, "
        f"by {one.largest:.4g} at most ({one.levels:.3g} levels of 255)"
        + (f", {_format_decibels(one)}" if one.sqnr_db is not None else "")
    )


def _describe_cpus(manifest: Manifest) -> str:
    """Both CPU families, and both runtimes."""
    made, here = manifest.made_by, detect_target().name
    return f"this CPU is {here}, the bundle was made on {made.get('family', 'another')} ({made.get('cpu', 'unknown')})"


def _format_decibels(one: OutputDifference) -> str:
    return "" if one.sqnr_db is None else format_decibels(one.sqnr_db, same="")
