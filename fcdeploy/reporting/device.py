"""Whether a network fits on a device, as a table of its steps and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fcdeploy.native.estimate import Estimate
from fcdeploy.records.report import Section, Table

COLUMNS = ("step", "kernel", "MACs", "instructions", "share", "node")


def describe_device(found: Estimate, limits: Mapping[str, float | None], floats: Sequence[str]) -> Section:
    """`limits` by "flash", "ram" (bytes) and "ms", None where there is none; time is held to its slow end."""
    device, (fast, slow), total = found.device, found.ms, max(1, found.instructions)
    reached = {"flash": found.flash, "ram": found.ram, "ms": slow}
    missed = [name for name, limit in limits.items() if limit is not None and reached[name] > limit]
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
    warnings = (f"{len(floats)} steps compute in float: {', '.join(floats[:3])}",) if floats else ()
    return Section(values, (Table(f"Native code on {device.name}", COLUMNS, rows, small),), lines, warnings)


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
