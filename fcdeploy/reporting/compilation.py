"""What `compile` says: the program, what native code takes, and what was proven of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fcdeploy.native.build import Built
from fcdeploy.native.estimate import estimate
from fcdeploy.native.placing.memory import Memory
from fcdeploy.native.program.float_steps import warn_of_float_steps
from fcdeploy.native.program.multipliers import Handed
from fcdeploy.native.prove import AS_IT_IS, CLOSE, IN_32_BITS, UNOPTIMIZED, Proof
from fcdeploy.native.stretches import StretchProof
from fcdeploy.records.report import Report, Table, format_next
from fcdeploy.tables.devices import DEVICES
from fcdeploy.tables.native import Core
from fcdeploy.wording import list_some, quote_path, say_count

SHOWN = 3  # tensors that are named
EXAMPLE = "stm32f4"  # the device of which C says what it takes: a Cortex-M4, the smallest core with fast products


def build_report(
    path: Path, out: Path | None, built: Built, proof: Proof | None, floats: Sequence[str], warnings: Sequence[str]
) -> Report:
    """What was compiled: its steps, what it takes, and what was proven of it; nothing where `proof` is None."""
    program = built.program
    values: dict[str, Any] = {
        "model": str(path), "output": None if out is None else str(out), "macs": program.macs,
        "flash_weight_bytes": len(built.weights), "arena_bytes": built.arena_bytes, "arena_bound": built.memory.bound,
        "steps": [{"node": call.node, "what": call.what, "kernel": call.kernel, "macs": call.macs} for call in built.calls],
        "float_steps": list(floats),
    }  # fmt: skip
    tables = [Table("program", ("step", "kernel", "MACs", "node"), _list_calls(built))]
    lines = [
        f"kernels multiply {program.macs:,} times in {say_count(len(built.calls), 'step')}"
        + (f", {len(floats)} of them in float" if floats else ""),
        f"{len(built.weights):,} bytes of weights; arena {built.arena_bytes:,} bytes, {_compare_arena(built.memory)}",
    ]
    if proof is not None:
        values |= {"proof": _describe_proof(proof)}
        lines += format_proof(proof)
    said = (*warnings, *warn_of_float_steps(floats))
    return Report("compile", values, tuple(tables), tuple(lines), passed=proof is None or proof.passed, warnings=said)


def add_written(report: Report, built: Built, model: Path, out: Path, core: Core | None) -> Report:
    """The report with what was written where, a library or a folder of C, and what comes next.

    Of C also what it takes, on `core` or one for an example.
    """
    name = built.source.name
    if not out.is_dir():
        size = f"{out}: {out.stat().st_size:,} bytes"
        bundle = model.with_name(f"{name}.fcd")
        words = ("bundle", model, "--library", out, "-o", bundle, *(("--force",) if bundle.exists() else ()))
        placed = (size, format_next(*words))
        return replace(report, lines=(*report.lines, *placed))
    alike = (row for row in DEVICES.values() if core is not None and row.target == core.name)
    there = estimate(built, next(alike, DEVICES[EXAMPLE]))
    compiler = "cc" if core is None else f"the compiler of {there.device.core}"
    written = [quote_path(file) for file in sorted(out.iterdir()) if file.suffix in (".c", ".S")]
    lines = (
        f"flash about {there.flash:,} bytes on a {there.device.core}: weights {there.weights:,}, code about {there.code:,}; "
        f"memory {there.ram:,}: arena {there.arena:,}, inputs and outputs {there.ends:,}, stack about {there.stack:,}",
        f"{quote_path(out)}: {say_count(len(list(out.iterdir())), 'file')}; {name}.h has the sizes and {name}_run",
        f"next: {compiler} -std=c11 -O2 -I {quote_path(out)} {' '.join(written)}, or a main.c of yours in place of example.c",
    )
    values = {"flash_about": there.flash, "flash_code_about": there.code, "ram_about": there.ram}
    return replace(report, values=report.values | values, lines=(*report.lines, *lines))


def add_object(report: Report, built: Built, core: Core, out: Path, sizes: tuple[int, int]) -> Report:
    """The report with the sizes of the object file; what was proven is the same program on this machine."""
    flash, written = sizes
    code = flash - len(built.weights)
    line = (
        f"{out}: {flash:,} bytes of flash for {core.name}, {len(built.weights):,} of them weights, {code:,} code and tables; "
        f"{written or 'no'} bytes of memory beside the arena"
    )
    said = f"the object for {core.name} was not run: what was proven is the same program, compiled for this machine"
    values = {"core": core.name, "flash": flash, "flash_code": code, "written_bytes": written}
    return replace(
        report,
        values=report.values | {"object": values},
        lines=(*report.lines, line),
        warnings=(*report.warnings, said),
    )


def add_handed(report: Report, rows: Sequence[Handed] | None) -> Report:
    """The report with the layers that CMSIS-NN computes, first; as it is where it was not asked for."""
    if rows is None:
        return report
    taken = [row for row in rows if not row.why]
    tied = [row for row in taken if row.differ]
    line = f"CMSIS-NN computes {len(taken)} of {say_count(len(rows), 'layer')}"
    if taken:
        line += ", with the same bytes for every sum that their weights can reach" if not tied else (
            f"; in {len(tied)} of them {sum(row.differ for row in tied):,} of {sum(row.sums for row in tied):,} sums that their "
            "weights can reach give a byte one level off"
        )  # fmt: skip
    left = [f"{row.what} of {row.node!r} is not CMSIS-NN's: {row.why}" for row in rows if row.why]
    values = [
        {
            "node": row.node,
            "by": "own" if row.why else "cmsis-nn",
            "why": row.why,
            "differ": row.differ,
            "sums": row.sums,
        }
        for row in rows
    ]
    return replace(report, values=report.values | {"cmsis_nn": values}, lines=(line, *left, *report.lines))


def _list_calls(built: Built) -> tuple[tuple[str, ...], ...]:
    """A row for each call, one for all turns of a step."""
    macs: dict[tuple[str, str, str], list[int]] = {}
    for call in built.calls:
        macs.setdefault((call.what, call.kernel, call.node), []).append(call.macs)
    return tuple(
        (
            f"{what}, {len(each)} calls" if len(each) > 1 else what,
            kernel,
            f"{sum(each):,}" if any(each) else "",
            node,
        )
        for (what, kernel, node), each in macs.items()
    )


def _compare_arena(memory: Memory) -> str:
    if memory.nbytes <= memory.bound:
        return "no smaller one is possible"
    return f"{memory.nbytes / max(1, memory.bound):.2f} of the most that one step needs"


def _describe_proof(proof: Proof) -> dict[str, Any]:
    return {
        "passed": proof.passed,
        "samples": proof.samples,
        "levels": list(proof.levels),
        "unequal": list(proof.unequal),
        "elements": sum(step.elements for step in proof.steps),
        "differ": sum(step.differ for step in proof.steps),
        "outputs": [
            {"output": each.output, "kind": each.kind, "differ": each.differ, "elements": each.elements}
            for each in proof.outputs
        ],
        "onnxruntime": proof.runtime,
        "stretches": None if proof.stretches is None else asdict(proof.stretches),
    }


RUNTIMES = {
    AS_IT_IS: "onnxruntime",
    IN_32_BITS: "onnxruntime adding in 32 bits (its default saturates here)",
    UNOPTIMIZED: "onnxruntime without its optimizations (with them it gives other answers than the file says)",
}


def format_proof(proof: Proof) -> list[str]:
    """What was proven, in words."""
    elements = sum(step.elements for step in proof.steps)
    floats = sum(step.elements for step in proof.steps if step.floats)
    samples = say_count(proof.samples, "sample")
    bad = [step for step in proof.steps if step.differ]
    if bad:
        worst = max(bad, key=lambda step: step.largest)
        differ = f"{say_count(len(bad), 'step')} {'differs' if len(bad) == 1 else 'differ'}"
        first = f"not exact: {differ} from exact arithmetic, {worst.what} of {worst.node!r} most"
    else:
        first = (
            f"exact: all {say_count(elements, 'element')} of {samples}, step by step, are those of exact arithmetic"
            + (f"; floats, {floats:,} of them, within {CLOSE:g}" if floats else "")
        )
    levels = ", ".join(proof.levels)
    second = f"levels that ran here: {levels}" + (
        f"; {', '.join(proof.unequal)} gave other bits"
        if proof.unequal
        else "; the same bits"
        if len(proof.levels) > 1
        else ""
    )
    return [first, second, _compare_outputs(proof)]


def _compare_outputs(proof: Proof) -> str:
    """Bytes one level off are rounding ties; of floats that differ it is said by how much, whatever the reason."""
    differ, total = sum(e.differ for e in proof.outputs), sum(e.elements for e in proof.outputs)
    runtime = RUNTIMES[proof.runtime]
    if not differ:
        return f"equal to {runtime} in all {say_count(total, 'output')}"
    said = f"{differ:,} of {say_count(total, 'output')} {'differs' if differ == 1 else 'differ'} from {runtime}"
    if proof.differs:
        return f"{said}, by more than rounding ties{_describe_stretches(proof.stretches)}"
    if all(each.sqnr_db is None for each in proof.outputs if each.differ):
        return f"{said}: rounding ties"
    return f"{said}, by {max(each.levels for each in proof.outputs):.2g} of 255 levels at most"


def _describe_stretches(found: StretchProof | None) -> str:
    """What cutting the file at its bytes tells of outputs that differ."""
    if found is None or not found.tensors:
        return ""
    cut = f"the file cut at {say_count(found.tensors, 'tensor')} of bytes"
    if found.wrong:
        return f"; {cut}, {list_some(found.wrong, SHOWN)} {'is' if len(found.wrong) == 1 else 'are'} not the program's"
    return f" of one layer, as they add up: {cut}, {found.ties:,} of {found.elements:,} are one level off, all others equal"
