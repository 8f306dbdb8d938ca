"""One model as two files, the first small enough for a device, proven as a pair before they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import replace_files
from fcdeploy.errors import FcdeployError
from fcdeploy.files import HALVES
from fcdeploy.graph.model import files_of, hash_model, is_quantized, save_model
from fcdeploy.graph.nodes import name_of
from fcdeploy.native.device_limits import find_last_cut, find_limits
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.sample_axes import declare_samples, parse_axes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table, format_next
from fcdeploy.reporting.device import add_fit
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.states import parse_states
from fcdeploy.transform.cut import Cut, Cuts, fix_shapes, leave_out_idle, quantization_of, split_model
from fcdeploy.transform.equality import (
    ComparedSamples,
    Comparison,
    Equality,
    Feeds,
    Run,
    compare,
    describe_equality,
    load_once,
    open_samples,
    read_to_transform,
    refuse_different,
)
from fcdeploy.wording import quote_path, say_count


def split(
    model: Path | str,
    *,
    output: Path | str | None = None,
    at: str | None = None,
    memory: int | None = None,
    macs: int | None = None,
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Path | str | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Cut a model, float or int8, behind the node `at`, or as late as `memory` bytes of weights and activations or
    `macs` multiply-accumulates allow for the first half; without any of them only list the cuts there are.
    With `device`, a name such as "stm32f4", as late as native code of the first half of an int8 model fits there: its memory
    and flash, or `max_ram` and `max_flash` bytes, and `max_ms` at the slow end of what is estimated.

    NAME.onnx as `output` writes NAME.first.onnx and NAME.second.onnx.  Before that the pair is run as one against the
    whole, on `samples` of `data`, else on numbers drawn with a seed.  Raises FcdeployError where there is no such cut,
    or the pair answers differently.
    """
    path = Path(model)
    wanted = {"--at": at, "--memory": memory, "--macs": macs, "--device": device}
    options = [option for option, value in wanted.items() if value is not None]
    limits = find_limits(
        device, f"fcdeploy transform split {quote_path(path)}", ram=max_ram, flash=max_flash, ms=max_ms
    )
    if len(options) > 1 or bool(options) != (output is not None):
        have = " and ".join([*options, *(["-o"] if output is not None else [])])
        raise FcdeployError(
            f"a cut takes one of --at, --memory, --macs, --device, and -o, here it has {have}",
            f"fcdeploy transform split {quote_path(path)} --memory 256KB -o {quote_path(path.stem)}.onnx",
        )
    targets = _name_halves(Path(output)) if output is not None else ()
    on = Comparison(shapes, data, samples, preprocess, batch_axes, states)
    network = read_to_transform(path, targets, on, force=force)
    warnings = list(refuse_untrusted(network, str(path)))
    declare_samples(path, network, on.choose_samples(), parse_axes(on.batch_axes), parse_states(on.states))
    compared = open_samples(path, network, on)
    cuts = Cuts(fix_shapes(network, compared.sizes))
    rows = cuts.all()
    if not rows:
        raise FcdeployError(
            f"model {str(path)!r} cannot be cut: {cuts.why_none()}", f"fcdeploy inspect {quote_path(path)}"
        )
    if not targets:
        least = min(leave_out_idle(rows), key=lambda row: row.bytes or 0)
        then = format_next("transform split", path, "--at", quote_path(least.node), "-o", Path(f"{path.stem}.onnx"))
        lines = (f"{say_count(len(rows), 'cut')}; {then}",)
        return Report("transform-split", {"cuts": [_describe_cut(row) for row in rows]}, (_make_table(rows, None),), lines,
                      warnings=tuple(warnings))  # fmt: skip
    fitting = None
    if limits is not None:
        _refuse_float(network, path)
        cut, fitting = find_last_cut(cuts.model, rows, limits, {})
    else:
        cut = cuts.at(at) if at is not None else _choose_latest(leave_out_idle(rows), memory, macs)
    first, second = split_model(network, cut, hash_model(files_of(network, path)))
    equal = _write((first, second), targets, load_once(path), compared, force=force, on_step=on_step)
    scale, zero = quantization_of(network, cut.tensor)
    if is_quantized(network) and scale is None:
        warnings.append(f"the model is quantized, but {cut.tensor!r}, which crosses, is {cut.dtype}")
    report = _make_report(rows, cut, (scale, zero), equal, compared.source, targets, warnings)
    return report if fitting is None else add_fit(report, fitting)


def _refuse_float(network: ir.Model, path: Path) -> None:
    if not is_quantized(network):
        raise FcdeployError(
            f"model {str(path)!r} is not quantized: --device is about native code, which is made of int8 models",
            f"fcdeploy quantize {quote_path(path)} --int8 --data DATA -o OUT, then split OUT",
        )


def _write(
    models: tuple[ir.Model, ir.Model],
    targets: tuple[Path, ...],
    whole: Run,
    compared: ComparedSamples,
    *,
    force: bool,
    on_step: OnStep | None,
) -> Equality:
    """Write both halves aside, run them one behind the other against the whole, and move them into place when equal."""
    with replace_files(targets, force=force) as (one, other):
        save_model(models[0], one)
        save_model(models[1], other)
        device, server = load_once(one), load_once(other)
        name = name_of(models[0].graph.outputs[0])

        def run_both(inputs: Feeds) -> Sequence[Array]:
            return server({name: device(inputs)[0]})

        differences = compare(whole, run_both, compared.feeds, axes=compared.axes, on_step=on_step)
        refuse_different(differences, "the pair of halves")
    return differences


def _name_halves(output: Path) -> tuple[Path, Path]:
    stem = output.name.removesuffix(".onnx")
    first, second = (output.with_name(f"{stem}.{half}.onnx") for half in HALVES)
    return first, second


def _choose_latest(rows: list[Cut], memory: int | None, macs: int | None) -> Cut:
    """The last cut whose first half stays within the limit. Raises FcdeployError, naming the smallest, when none does."""
    limit, what = (memory, "bytes") if memory is not None else (macs, "multiply-accumulates")
    assert limit is not None
    needs = [row.memory if memory is not None else row.macs for row in rows]
    if None in needs:
        raise FcdeployError("what the first half takes is unknown: shapes are computed from data", "--at NODE")
    known = [need for need in needs if need is not None]
    fits = [row for row, need in zip(rows, known, strict=True) if need <= limit]
    if not fits:
        least = min(range(len(rows)), key=lambda index: known[index])
        parts = f", {rows[least].weights:,} of weights and {rows[least].activations:,} of activations"
        raise FcdeployError(
            f"no first half stays within {limit:,} {what}: the smallest, cut behind {rows[least].node!r}, takes "
            f"{known[least]:,}{parts if memory is not None else ''}",
            f"--at {rows[least].node}",
        )
    return fits[-1]


def _describe_cut(cut: Cut) -> dict[str, Any]:
    return {**asdict(cut), "shape": None if cut.shape is None else list(cut.shape), "memory": cut.memory}


def _make_table(rows: list[Cut], chosen: Cut | None) -> Table:
    cells = tuple(
        (
            row.node,
            row.op,
            row.tensor,
            "?" if row.shape is None else " x ".join(map(str, row.shape)),
            row.dtype,
            *("?" if number is None else f"{number:,}" for number in (row.bytes, row.weights, row.activations)),
            *("?" if number is None else f"{number:,}" for number in (row.memory, row.macs)),
            "cut" if chosen is not None and row.tensor == chosen.tensor else "",
        )
        for row in rows
    )
    columns = ("behind", "op", "crosses", "shape", "type", "bytes", "weights", "activations", "memory", "MACs", "")
    return Table("Cuts: what crosses, and bytes and multiply-accumulates of the first half at batch 1", columns, cells)


def _make_report(
    rows: list[Cut],
    cut: Cut,
    quantized: tuple[float | None, int | None],
    equal: Equality,
    source: str,
    targets: tuple[Path, ...],
    warnings: list[str],
) -> Report:
    scale, zero = quantized
    values: dict[str, Any] = {
        "cut": {**_describe_cut(cut), "scale": scale, "zero_point": zero}, "cuts": [_describe_cut(row) for row in rows],
        "samples": equal.samples, "max_rel": equal.relative, "equal": equal.equal,
        "first": str(targets[0]), "second": str(targets[1]),
    }  # fmt: skip
    size = "an unknown number of" if cut.bytes is None else f"{cut.bytes:,}"
    with_scale = f", scale {scale:.6g}, zero point {zero}" if scale is not None else ""
    takes = "?" if cut.memory is None else f"{cut.memory:,}"
    parts = f"{cut.weights:,} of weights, {'?' if cut.activations is None else f'{cut.activations:,}'} of activations"
    lines = [
        f"cut behind {cut.node!r}: {cut.tensor!r} crosses, {size} bytes of {cut.dtype} a sample{with_scale}",
        f"first half, as onnxruntime runs it: {takes} bytes of memory ({parts}), "
        f"{'?' if cut.macs is None else f'{cut.macs:,}'} multiply-accumulates",
        f"run one behind the other: {describe_equality(equal, source)} -> {targets[0]}, {targets[1]}",
    ]
    return Report("transform-split", values, (_make_table(rows, cut),), tuple(lines), warnings=tuple(warnings))
