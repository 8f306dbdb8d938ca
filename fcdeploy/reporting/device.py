"""Whether a network fits on a device, as a table of its steps and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.native.build import Built
from fcdeploy.native.device_limits import DeviceLimits, Fit, Shapes, find_last_cut, fit
from fcdeploy.native.program.float_steps import list_float_steps, warn_of_float_steps
from fcdeploy.native.program.steps import Program
from fcdeploy.records.report import Report, Section, Table, format_next
from fcdeploy.tables.devices import Device
from fcdeploy.tables.native import CORES
from fcdeploy.transform.cut import Cuts, fix_shapes

COLUMNS = ("step", "kernel", "MACs", "instructions", "share", "node")


def describe_device(fits: Fit) -> Section:
    """Where what native code takes goes, and whether it fits."""
    found, limits, missed, floats = fits.estimate, fits.limits, fits.missed, fits.floats
    device, (fast, slow), total = found.device, found.ms, max(1, found.instructions)
    values: dict[str, Any] = {
        "device": {
            "name": device.name, "core": device.core, "mhz": device.mhz, "flash": found.flash, "flash_code": found.code,
            "flash_weights": found.weights, "ram": found.ram, "ram_arena": found.arena, "ram_inputs_outputs": found.ends,
            "ram_stack": found.stack, "instructions": found.instructions, "ms_fast": fast, "ms_slow": slow,
            "limits": dict(limits), "missed": missed, "steps": [vars(call) for call in found.calls],
        }
    }  # fmt: skip
    rows = tuple(
        (call.what, call.kernel, f"{call.macs:,}" if call.macs else "", f"{call.instructions:,}",
         f"{100 * call.instructions / total:.0f} %", call.node)
        for call in found.calls
    )  # fmt: skip
    small = frozenset(i for i, call in enumerate(found.calls) if call.instructions < total / 100)
    lines = (
        f"{device.name}: {device.core} at {device.mhz} MHz; an estimate from instructions that were counted under emulation",
        f"flash {found.flash:,} bytes{_held('flash', limits, missed)}: weights {found.weights:,}, "
        + (f"code about {found.code:,}" if found.code else "code not counted"),
        f"memory {found.ram:,} bytes{_held('ram', limits, missed)}: arena {found.arena:,}, inputs and outputs {found.ends:,}, "
        + (f"stack about {found.stack:,}" if found.stack else "stack not counted"),
        f"{total:,} instructions, {format_ms(fast)} to {format_ms(slow)} ms a run{_held('ms', limits, missed)}",
        f"does not fit: {', '.join(NAMES[name] for name in missed)}" if missed else f"fits on {device.name}",
    )
    return Section(
        values, (Table(f"Native code on {device.name}", COLUMNS, rows, small),), lines, warn_of_float_steps(floats)
    )


def summarize_fit(fits: Fit) -> str:
    """Flash, memory and time in a line, those beyond their limits with them."""
    found, limits, missed = fits.estimate, fits.limits, fits.missed
    return (
        f"flash {found.flash:,} bytes{_held('flash', limits, missed)}, memory {found.ram:,} bytes{_held('ram', limits, missed)}, "
        f"up to {format_ms(found.ms[1])} ms a run{_held('ms', limits, missed)}"
    )


def add_fit(report: Report, found: Fit, smaller: str = "") -> Report:
    """The report of a model that was made for a device: whether it fits, in the first line where it does not.

    `smaller` is what to do then, in place of the command that would come next.
    """
    about = describe_device(found).values
    name, missed = found.estimate.device.name, [NAMES[each] for each in found.missed]
    if not missed:
        line = f"fits on {name}, by an estimate: {summarize_fit(found)}"
        return report.extend(values=about, lines=[line])
    said = f"does not fit on {name} ({', '.join(missed)}): {summarize_fit(found)}"
    lines = (smaller, *report.lines[:-1])
    return replace(report, values=report.values | about, lines=lines, passed=False, advice=said)


def add_device(
    report: Report, built: Built, int8: ir.Model, shapes: Shapes, limits: DeviceLimits, output: Path
) -> Report:
    """As `add_fit`, of an int8 model that is written to `output`; where it does not fit, the last cut whose first half does."""
    found = fit(built, limits)
    if not found.missed:
        return add_fit(report, found)
    try:
        cut, _ = find_last_cut(int8, Cuts(fix_shapes(int8, [])).all(), limits, shapes)
    except FcdeployError as error:
        return add_fit(report, found, error.message)
    halves = output.with_name(f"{output.name.removesuffix('.onnx').removesuffix('.int8')}.onnx")
    said = format_next("transform split", output, *_name_limits(limits), "-o", halves)
    return add_fit(report, found, f"its layers up to {cut.node!r} fit; {said}")


def _name_limits(limits: DeviceLimits) -> list[str]:
    """The options that a device and its limits were given by."""
    row, given = limits.device, limits.limits
    own = {"ram": row.ram, "flash": row.flash, "ms": None}
    return [f"--device {row.name}", *(f"--max-{name} {limit:g}" if name == "ms" else f"--max-{name} {limit:.0f}"
                                      for name, limit in given.items() if limit is not None and limit != own[name])]  # fmt: skip


def format_next_compile(output: Path, device: Device | None, program: Program) -> str:
    """The line that names the command for native code of an int8 model, for this machine without a device."""
    options, made = [], output.with_suffix(".so")
    if device is not None and device.target in CORES:
        options, made = [f"--emit object --target {device.target}"], output.with_suffix(".o")
    elif device is not None and device.target:
        options = [f"--target {device.target}"]
    elif device is not None:
        options, made = ["--emit c"], output.with_name(f"{output.name.split('.')[0]}_c")
    if list_float_steps(program):
        options.append("--allow-float")
    return format_next("compile", output, *options, "-o", made)


NAMES = {"flash": "flash", "ram": "memory", "ms": "time"}


def _held(name: str, limits: Mapping[str, float | None], missed: Sequence[str]) -> str:
    limit = limits[name]
    if limit is None:
        return ""
    return (
        f", {'more than' if name in missed else 'of'} {format_ms(limit) + ' ms' if name == 'ms' else f'{limit:,.0f}'}"
    )


def format_ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
