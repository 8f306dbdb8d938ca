"""What is in a model: its layers, what each costs, and which kernel of onnxruntime runs each node here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs, is_quantized, read_model
from fcdeploy.native.device_limits import DeviceLimits, build_model, find_limits, fit
from fcdeploy.prepare import cost_model
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.exact import check_exactness
from fcdeploy.proof.saturation import prove_no_saturation
from fcdeploy.records import origin
from fcdeploy.records.data_format import choose_format, from_metadata, to_json
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Section, join_sections
from fcdeploy.reporting.contents import describe_contents
from fcdeploy.reporting.device import describe_device
from fcdeploy.reporting.exactness import report_exactness
from fcdeploy.reporting.runtimes import describe_runtimes
from fcdeploy.reporting.saturation import describe_saturation
from fcdeploy.reporting.units import format_count
from fcdeploy.runtime.feeds import fix_shapes
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import choose_batch_size, make_batches
from fcdeploy.transform.repair import warn_of_faults
from fcdeploy.wording import quote_path

FEW = 4  # samples that --exact looks at, and the most it runs at once: all their activations are held


def inspect(
    model: Path | str,
    *,
    kernels: bool = False,
    saturation: bool = False,
    exact: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    runtimes: bool = False,
    data: Path | str | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Parameters, multiply-accumulates and memory of every layer at batch 1; with `kernels`, the kernel of every node.

    `shapes` by name are those of inputs with free axes to count at; without, what depends on them stays unknown.
    With `saturation`, which layers of a quantized model can overflow on CPUs that add pairs of products in 16 bits.
    With `exact`, whether its kernels compute on this CPU what exact arithmetic does, on the first `samples` (4 unless
    given, or the model's batch) of `data`; the report passes when they do.
    With `runtimes`, which other runtimes than onnxruntime would refuse the model, or compute it otherwise, and why.
    With `device`, a name such as "stm32f4", what native code of a quantized model takes there: flash and memory in bytes, and
    about how many milliseconds.  The report passes when the device's own memory and flash, or `max_ram` and `max_flash`,
    suffice, and the time is at most `max_ms` at the slow end of its range.

    Works on float and on int8 models; the model runs only where the shape of a tensor cannot be inferred otherwise.
    Raises FcdeployError when the file is not a model, with `kernels` when onnxruntime cannot load it, with
    `saturation`, `exact` and `device` when it is not quantized, and with `device` where an operator has no native kernel.
    """
    path = Path(model)
    _check_options(path, exact=exact, data=data, samples=samples, preprocess=preprocess)
    row = find_limits(device, f"fcdeploy inspect {quote_path(path)}", ram=max_ram, flash=max_flash, ms=max_ms)
    network = read_model(path)
    if shapes:
        cost_model.count_at(network, {s.name: s.shape for s in fix_shapes(input_specs(network), None, shapes)})
    warnings = (*refuse_untrusted(network, str(path)), *warn_of_faults(network))
    known = from_metadata(network.metadata_props, str(path))

    # what runs or proves the model is done before its sizes are, for which its batch becomes 1
    proofs = _report_saturation(network, path) if saturation else Section()
    exactness = Section() if data is None else _compare_exactly(network, path, data, samples, preprocess, on_step)
    contents = describe_contents(network, path, _read_kernels(path) if kernels else None)
    others = describe_runtimes(network) if runtimes else Section()
    fit = Section() if row is None else _fit_device(read_model(path), path, row, shapes or {})

    macs = format_count(contents.values["macs"])
    summary = (
        *known.describe(),
        f"{contents.values['parameters']:,} parameters, {macs} multiply-accumulates at batch 1",
    )
    if row is not None:  # whose table has the layers
        contents = replace(contents, tables=())
    report = join_sections("inspect", [contents, Section(lines=summary), proofs, exactness, others, fit])
    values = {**report.values, "format": to_json(known)}
    passed = exactness.values.get("exact_passed", True) and not fit.values.get("device", {}).get("missed")
    return replace(report, values=values, passed=passed, warnings=(*warnings, *report.warnings))


def _check_options(path: Path, *, exact: bool, data: Path | str | None, samples: int | None, preprocess: Given) -> None:
    if exact != (data is not None):
        raise FcdeployError(
            "--exact runs the model on samples, and there is no --data" if exact else "--data is for --exact alone",
            f"fcdeploy inspect {quote_path(path)} --exact --data DATA",
        )
    if not exact and (samples is not None or preprocess is not None):
        option = "--samples" if samples is not None else "--preprocess"
        raise FcdeployError(
            f"{option} is for --exact alone", f"fcdeploy inspect {quote_path(path)} --exact --data DATA"
        )


def _fit_device(network: ir.Model, path: Path, limits: DeviceLimits, shapes: Mapping[str, Sequence[int]]) -> Section:
    _check_quantized(network, path, "--device is about native code, which is made of integers")
    return describe_device(fit(build_model(network, shapes, limits.device), limits))


def _read_kernels(path: Path) -> list[dict[str, Any]]:
    from fcdeploy.runtime.kernels import find_kernels

    return [
        {"node": row.node, "op": row.op, "kernel": row.kernel, "integer": row.integer, "note": row.note}
        for row in find_kernels(path)
    ]


def _report_saturation(network: ir.Model, path: Path) -> Section:
    """The worst layer first; those that add in 32 bits last."""
    _check_quantized(network, path, "--saturation is about sums of byte products, and it has none")
    proofs = sorted(prove_no_saturation(network), key=lambda row: math.inf if row.margin is None else row.margin)
    return describe_saturation(proofs)


def _check_quantized(network: ir.Model, path: Path, why: str) -> None:
    if is_quantized(network):
        return
    if origin.KEY in network.metadata_props:  # quantized again it would come out the same
        raise FcdeployError(
            f"model {str(path)!r} computes in float, as quantize found right where it was made: {why}",
            "fcdeploy quantize FLOAT --int8 --costs none --data DATA -o OUT makes integers of every layer it can",
        )
    raise FcdeployError(
        f"model {str(path)!r} is not quantized: {why}",
        f"fcdeploy quantize {quote_path(path)} --int8 --data DATA -o OUT, then inspect OUT",
    )


def _compare_exactly(
    network: ir.Model,
    path: Path,
    data: Path | str,
    samples: int | None,
    preprocess: Given,
    on_step: OnStep | None,
) -> Section:
    _check_quantized(network, path, "--exact is about sums of byte products, and it has none")
    inputs = input_specs(network)
    limit = choose_batch_size(inputs, FEW) if samples is None else samples
    recorded = from_metadata(network.metadata_props, str(path))
    how = choose_format(recorded, preprocess=preprocess)
    source = open_source(data, inputs, limit=limit, format=how, model=path)
    parts = make_batches(source, choose_batch_size(inputs, min(limit, FEW)))
    return report_exactness(check_exactness(network, (part.inputs for part in parts), on_step=on_step))
