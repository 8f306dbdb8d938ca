"""What can be done with calibration files: add them up, look into them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcdeploy.arithmetic.histogram_summary import count_in_cells, estimate_quantiles
from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output
from fcdeploy.int8.calibrating.merge import BOTH, merge
from fcdeploy.records.calibration import Calibration, TensorRecord, read, to_bytes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.wording import quote_path, say_count

SHARES = {"0.01 %": 0.0001, "1 %": 0.01, "50 %": 0.5, "99 %": 0.99, "99.99 %": 0.9999}
STRIP, ROWS, BAR = 24, 20, 50  # cells in a row of the table; rows and their length where one tensor is shown
BLOCKS = " ▁▂▃▄▅▆▇█"
PARTS = " ▏▎▍▌▋▊▉█"


def merge_calibrations(
    files: Sequence[str | Path], *, output: str | Path, force: bool = False, on_step: OnStep | None = None
) -> Report:
    """Add calibrations of one model: the file that one run over all their samples would have written, byte for byte.

    Raises FcdeployError when they are of different models.  What differs in CPU family or versions, and samples that
    are in more than one of them, is warned of.
    """
    paths = [Path(file) for file in files]
    if len(paths) < 2:
        raise FcdeployError(
            "only one calibration to merge, expected two or more",
            "fcdeploy calibration merge A.calib B.calib -o C.calib",
        )
    check_output(Path(output), force=force, inputs=tuple(paths))
    total, warnings = read(paths[0]), []
    for done, path in enumerate(paths[1:], 1):
        if on_step:
            on_step("merging", done, len(paths))
        part = read(path)
        warnings += _compare_origins(total, part, path)
        try:
            total = merge(total, part)
        except FcdeployError as error:
            raise FcdeployError(
                f"{str(path)!r} does not go with {str(paths[0])!r}: {error.message}", error.hint
            ) from error
    with replace_file(Path(output), force=force) as aside:
        aside.write_bytes(to_bytes(total))
    values = {
        "samples": total.samples, "tensors": len(total.tensors), "model": total.model, "data": total.data,
        "output": str(output),
    }  # fmt: skip
    counts = say_count(len(paths), "file"), say_count(total.samples, "sample"), say_count(len(total.tensors), "tensor")
    lines = (f"{', '.join(counts)} -> {output}",)
    return Report("calibration-merge", values, lines=lines, warnings=tuple(warnings))


def show_calibration(file: str | Path, *, tensor: str | None = None) -> Report:
    """Ends, percentiles and a histogram of every tensor; `tensor` is a name or a glob, and one alone is drawn large."""
    recorded = read(Path(file))
    shown = [r for r in recorded.tensors.values() if tensor is None or fnmatch.fnmatchcase(r.name, tensor)]
    if tensor in recorded.tensors:
        shown = [recorded.tensors[str(tensor)]]
    if not shown:
        raise FcdeployError(
            f"{str(file)!r} has no tensor {tensor!r}, it has {say_count(len(recorded.tensors), 'other')}",
            f"fcdeploy calibration show {quote_path(file)}",
        )
    values = {
        "model": recorded.model, "data": recorded.data, "samples": recorded.samples,
        "kept": sum(len(next(iter(group.values()))) for group in recorded.sample_groups), "made_by": recorded.made_by,
        "tensors": [_collect_values(record) for record in shown],
    }  # fmt: skip
    alone = len(shown) == 1 and not shown[0].histogram.ends_only
    table = _draw_histogram(shown[0]) if alone else _make_table(shown)
    made = ", ".join(f"{key} {value}" for key, value in sorted(recorded.made_by.items()))
    lines = (
        f"{say_count(recorded.samples, 'sample')}, {values['kept']} of them kept; model {recorded.model[:12]}, "
        f"data {recorded.data[:12]}; made by {made}",
    )
    return Report("calibration-show", values, (table,), lines)


def _compare_origins(total: Calibration, part: Calibration, path: Path) -> list[str]:
    warnings = []
    for key in sorted(total.made_by.keys() | part.made_by.keys()):
        one, other = total.made_by.get(key, "?"), part.made_by.get(key, "?")
        if set(other.split(BOTH)) - set(one.split(BOTH)):
            warnings.append(
                f"{str(path)!r} was made by {key} {other}, not {one}: the last bits of its floats may differ"
            )
    again = len(np.intersect1d(total.seen, part.seen))
    if again:
        are, count = ("is", "counts") if again == 1 else ("are", "count")
        warnings.append(
            f"{say_count(again, 'sample')} of {str(path)!r} {are} in the files before it too, and {count} twice"
        )
    if total.samples and part.samples and bool(total.kept) != bool(part.kept):
        warnings.append(
            f"{str(path)!r} and the files before it: only one of them keeps samples, so the result keeps none"
        )
    return warnings


def _collect_values(record: TensorRecord) -> dict[str, object]:
    h = record.histogram
    return {
        "tensor": record.name, "layer": record.layer, "kind": record.kind, "op": record.op, "shape": list(record.shape),
        "min": h.low, "max": h.high, "elements": h.total, "nonfinite": h.nonfinite,
        "percentiles": None if h.ends_only else dict(zip(SHARES, estimate_quantiles(h, list(SHARES.values())), strict=True)),
        "histogram": None if h.ends_only else count_in_cells(h, STRIP).round(3).tolist(),
    }  # fmt: skip


def _make_table(records: Sequence[TensorRecord]) -> Table:
    rows = []
    for record in records:
        h = record.histogram
        inner = ["-" if h.ends_only else f"{value:.4g}" for value in estimate_quantiles(h, list(SHARES.values()))]
        rows.append((record.name, record.kind, f"{h.low:.6g}", *inner, f"{h.high:.6g}", _draw_strip(record)))
    return Table("from the least to the largest", ("tensor", "kind", "min", *SHARES, "max", "histogram"), tuple(rows))


def _draw_strip(record: TensorRecord) -> str:
    """One character a cell; a cell that holds anything is not blank."""
    if record.histogram.ends_only:
        return "measured elsewhere"
    counts = count_in_cells(record.histogram, STRIP)
    heights = np.ceil(counts / max(counts.max(), 1e-9) * (len(BLOCKS) - 1)).astype(int)
    return "|" + "".join(BLOCKS[height] for height in heights) + "|"


def _draw_histogram(record: TensorRecord) -> Table:
    """One tensor: a bar for each cell."""
    h = record.histogram
    if not h.total - h.nonfinite:
        raise FcdeployError(
            f"tensor {record.name!r} held no finite number", "look at what computes it: fcdeploy inspect MODEL"
        )
    counts = count_in_cells(h, ROWS)
    edges = np.linspace(h.low, h.high, ROWS + 1)
    total = max(counts.sum(), 1e-9)
    rows = [
        (
            f"{edges[i]:.4g}",
            f"{edges[i + 1]:.4g}",
            f"{100 * counts[i] / total:.3g} %",
            _draw_bar(counts[i] / counts.max()),
        )
        for i in range(ROWS)
    ]
    return Table(f"{record.name}: {h.total} elements", ("from", "to", "share", "histogram"), tuple(rows))


def _draw_bar(share: float) -> str:
    eighths = int(np.ceil(share * BAR * 8))
    return PARTS[-1] * (eighths // 8) + PARTS[eighths % 8].strip()
