"""What this machine is, what is installed, and what follows for int8 models."""

from __future__ import annotations

import importlib
import platform
import re
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from fcdeploy.installed import PACKAGES as PACKAGED
from fcdeploy.installed import RUNTIME, say_install
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.cpu import (
    count_usable_cores,
    detect_target,
    find_target,
    read_cpu_flags,
    read_cpu_name,
    read_memory_bytes,
)
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.targets import INSTRUCTIONS, TARGETS, Instructions, Target

ARM = ("NEON", "dotprod", "i8mm")
PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy")
ANSWERS = "fcdeploy.runtime.probes.answers"  # needs onnx
INSTALL = "No ONNX model can run here until it does: {}; a bundle's own library can, with --engine native"
UNVERIFIED = "from source, not run"
REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)(?P<version>[^;]*);.*extra\s*==\s*['\"](?P<extra>[\w.-]+)['\"]")


def doctor() -> Report:
    """The CPU and the target row that follows from it, cores and memory, versions and extras.

    The report's answer is no when onnxruntime cannot be loaded: then no command that runs a model works.  The runtime is asked
    by models that onnx writes; without it, as in fcdeploy-runtime, it is not.
    """
    flags, target, host = read_cpu_flags(), detect_target(), find_target("host")
    available = {name: bool(flags & set(row.flags)) for name, row in INSTRUCTIONS.items()}
    problem = _explain_runtime()
    asked = {} if problem or not _can_ask() else importlib.import_module(ANSWERS).collect_answers()
    cores, memory = count_usable_cores(), read_memory_bytes()
    versions = {"python": platform.python_version(), **{name: _find_version(name) for name in PACKAGES}}
    extras = _find_extras()
    values: dict[str, Any] = {
        "cpu": read_cpu_name(),
        "machine": platform.machine(),
        "instructions": available,
        "byte_kernels": [asdict(row) for row in INSTRUCTIONS.values()],
        "target": _describe_target(target),
        "targets": [_describe_target(row) for row in TARGETS.values()],
        "host": host.name,
        "cores": cores,
        "memory_bytes": memory,
        "versions": versions,
        "extras": extras,
        "runtime": problem or "loads",
        "facts": asked,
    }

    tables = (
        _make_machine_table(values),
        Table(
            "Versions",
            ("package", "version"),
            tuple((name, version or "missing") for name, version in versions.items()),
        ),
        Table("Extras", ("extra", "installed", "to install"), tuple(_make_extra_rows(extras))),
        _make_instruction_table(available),
        _make_target_table(),
    )
    return Report(
        "doctor", values, tables, tuple(_conclude(target, host, available, cores, problem)), passed=problem is None
    )


def _conclude(target: Target, host: Target, found: dict[str, bool], cores: int, problem: str | None) -> list[str]:
    """What follows, the most important last."""
    if problem:
        return [f"onnxruntime does not load: {problem}", INSTALL.format(say_install(RUNTIME))]
    if not _can_ask():
        return [
            f"This CPU is {target.name}: {target.why}{'' if target.verified else f' ({UNVERIFIED})'}.",
            "This is what verifies and serves, without onnx: fcdeploy verify BUNDLE says whether a bundle answers here as it "
            "should, fcdeploy serve BUNDLE serves it. The other commands take pip install fcdeploy.",
        ]
    threads = f"{cores} thread{'s' * (cores > 1)}"
    lines = [
        f"calibrate, quantize and validate run a model on {threads}; bench times 1 unless --threads says otherwise."
    ]
    if not any(found.values()):
        lines.append(
            "None of the instruction sets for byte kernels was found: int8 may not be faster here, so bench it."
        )
    lines.append(_describe_answers())
    lines.append(f"This CPU is {target.name}: {target.why}{'' if target.verified else f' ({UNVERIFIED})'}.")
    if host != target:
        lines.append(
            f"A file for it alone: fcdeploy quantize --target {target.name}. "
            f"--target host takes the {host.name} row instead, whose files stay right on other x86 CPUs."
        )
    lines.append(
        "For a file that gives the same answers on every CPU: fcdeploy quantize --target portable. Its integer kernels "
        "write the same integers everywhere: no sum comes near a half. Float nodes agree to 1e-5 of their largest, which "
        "fcdeploy inspect --exact looks at; what is rounded to integers behind them may differ by one level."
    )
    lines.append(f"fcdeploy quantize makes files for {host.name} here.")
    return lines


def _can_ask() -> bool:
    """Whether there is what writes the models that ask the runtime."""
    return find_spec("onnx") is not None


def _describe_answers() -> str:
    """What the installed onnxruntime answered to the facts that files are built on."""
    version, answers = importlib.import_module(RUNTIME).__version__, importlib.import_module(ANSWERS)
    if sentence := answers.describe_version():
        return str(sentence) + "."
    changed = answers.list_differences(version)
    said = "; ".join(f"{name}: {now}, not {before}" for name, (before, now) in changed.items())
    as_written = f"all but {len(changed)} as in the table ({said})" if changed else "all as in the table"
    return f"onnxruntime {version} was asked {len(FACTS)} questions on this CPU, and answers {as_written}."


def _make_machine_table(values: dict[str, Any]) -> Table:
    shown = [name for name in INSTRUCTIONS if (name in ARM) == (values["machine"].lower() in ("arm64", "aarch64"))]
    has = [name for name in shown if values["instructions"][name]]
    lacks = [name for name in shown if name not in has]
    memory = values["memory_bytes"]
    rows = [
        ("CPU", f"{values['cpu']}, {values['machine']}"),
        ("has", ", ".join(has) or "-"),
        ("lacks", ", ".join(lacks) or "-"),
        ("cores", f"{values['cores']} for this process"),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"),
        ("target", values["target"]["name"]),
    ]
    return Table("This machine", ("", ""), tuple(rows))


def _describe_target(row: Target) -> dict[str, Any]:
    return {
        "name": row.name,
        "saturates": row.pair_limit is not None,
        "why": row.why,
        "kernels": row.kernels,
        "verified": row.verified,
    }


def _make_instruction_table(found: dict[str, bool]) -> Table:
    """What each instruction set does with products of bytes, here or elsewhere."""
    rows = tuple(
        (
            row.name,
            "yes" if found[row.name] else "-",
            row.kernel,
            _describe_sums(row),
            row.target,
            "run" if row.verified else UNVERIFIED,
        )
        for row in INSTRUCTIONS.values()
    )
    return Table("Byte kernels", ("made of", "here", "instructions", "products added", "--target", "known"), rows)


def _describe_sums(row: Instructions) -> str:
    if not row.saturates:
        return "in 32 bits: exact"
    return f"pairs in 16 bits: {'-128 wraps around' if row.name in ARM else 'saturates'}"


def _make_target_table() -> Table:
    """Every row that --target takes; those that were never run say so."""
    rows = tuple(
        (
            row.name,
            " or ".join(row.cpu) or "any",
            "no pair above 16 bits" if row.pair_limit is not None else "all 8 bits",
            row.kernels,
            "run" if row.verified else UNVERIFIED,
        )
        for row in TARGETS.values()
    )
    return Table("Targets", ("--target", "CPU with", "weights", "kernels", "known"), rows)


def _make_extra_rows(extras: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            "yes" if extra["installed"] else "no: " + ", ".join(extra["missing"]),
            "" if extra["installed"] else extra["install"],
        )
        for name, extra in extras.items()
    ]


def _find_extras() -> dict[str, Any]:
    """Extra -> what it needs, what of that is missing, and the command; as the installed package declares them."""
    found = [(name, required) for name in PACKAGED if (required := _find_requirements(name)) is not None]
    if not found:
        return {}
    package, declared = found[0]
    needs: dict[str, dict[str, str]] = {}
    for requirement in declared:
        match = REQUIREMENT.match(requirement)
        if match:
            needs.setdefault(match["extra"], {})[match["package"]] = match["version"].strip()
    return {
        extra: {
            "needs": [f"{package}{version}" for package, version in packages.items()],
            "missing": (missing := [package for package in packages if _find_version(package) is None]),
            "installed": not missing,
            "install": f"pip install '{package}[{extra}]'",
        }
        for extra, packages in needs.items()
    }


def _find_requirements(package: str) -> list[str] | None:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _explain_runtime() -> str | None:
    """Why onnxruntime cannot be used, None when it can; a wheel for another system is installed but does not load."""
    try:
        importlib.import_module("onnxruntime")
    except Exception as error:  # a missing or foreign shared library raises what it likes
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None
