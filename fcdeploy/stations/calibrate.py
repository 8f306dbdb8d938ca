"""Model and samples to a calibration: what every tensor looked like, in one streaming pass."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

from fcdeploy.arithmetic.needs import needs
from fcdeploy.graph.model import (
    check_output,
    files_of,
    input_specs,
    model_hash,
    read_model,
    refuse_unsupported,
    replacing,
)
from fcdeploy.int8.observe import observe
from fcdeploy.prepare import prepare
from fcdeploy.records.calibration import Calibration, to_bytes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.samples import open_source

COLUMNS = ("layer", "tensor", "kind", "min", "max", "needs")


def calibrate(
    model: str | Path,
    *,
    data: str | Path,
    output: str | Path | None = None,
    csv_file: str | Path | None = None,
    samples: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    preprocess: Path | None = None,
    everything: bool = False,
    keep_samples: bool = True,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Record minimum, maximum, histogram and per-channel moments of every weight, bias and activation.

    `output` is MODEL.calib beside the model unless given.  `batch` changes speed and memory, never the result.
    """
    path = Path(model)
    target = Path(output) if output else path.with_suffix(".calib")
    table_file = Path(csv_file) if csv_file else None
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    files = files_of(graph, path)
    for file in filter(None, (target, table_file)):
        check_output(file, force=force, inputs=(*files, Path(data)))
    begin = time.perf_counter()
    prepare(graph)
    source = open_source(data, input_specs(graph), limit=samples, seed=seed, preprocess=preprocess)
    calibration = observe(
        graph, source, model_hash=model_hash(files), batch=batch, everything=everything, keep_samples=keep_samples,
        on_step=on_step,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    with replacing(target, force=force) as aside:
        aside.write_bytes(to_bytes(calibration))
    rows = list(ranges_table(calibration))
    if table_file:
        with replacing(table_file, force=force) as beside, beside.open("w", newline="") as table:
            csv.writer(table).writerows([COLUMNS, *rows])
    return _report(path, calibration, rows, seconds, target)


def ranges_table(calibration: Calibration) -> Iterator[tuple[str, ...]]:
    """Layer, tensor, kind, minimum, maximum, and what its numbers need, one row a tensor."""
    for record in calibration.tensors.values():
        h = record.histogram
        yield record.layer or "-", record.name, record.kind, f"{h.low:.6g}", f"{h.high:.6g}", needs(h.low, h.high)


def _report(model: Path, calibration: Calibration, rows: list[tuple[str, ...]], seconds: float, output: Path) -> Report:
    broken = [record.name for record in calibration.tensors.values() if record.histogram.nonfinite]
    constant = [
        record.name
        for record in calibration.tensors.values()
        if record.kind == "activation" and record.histogram.low == record.histogram.high
    ]
    warnings = (
        *(f"tensor {name!r} became NaN or infinite: its layers will stay float" for name in broken),
        *(f"tensor {name!r} was the same value in every sample" for name in constant),
    )
    tensors = [dict(zip(COLUMNS, row, strict=True)) | _numbers(calibration, row[1]) for row in rows]
    values = {
        "tensors": tensors, "samples": calibration.samples, "seconds": round(seconds, 3), "output": str(output),
        "model": calibration.model, "data": calibration.data,
    }  # fmt: skip
    lines = (
        f"{calibration.samples} samples, {len(rows)} tensors, {seconds:.1f} s -> {output}",
        f"next: fcdeploy quantize {model} --int8 --calibration {output} -o int8.onnx",
    )
    return Report("calibrate", values, (Table("dynamic ranges", COLUMNS, tuple(rows)),), lines, warnings=warnings)


def _numbers(calibration: Calibration, name: str) -> dict[str, object]:
    h = calibration.tensors[name].histogram
    return {"min": h.low, "max": h.high, "elements": h.total}
