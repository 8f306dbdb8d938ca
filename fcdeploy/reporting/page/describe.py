"""A subject as plain values: what `--json` prints, and the only source of every figure in the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fcdeploy.records.report import to_plain
from fcdeploy.reporting.page.layers import LayerRow
from fcdeploy.reporting.page.subject import Subject
from fcdeploy.wording import say_count

BETTER, SAME = "better", "the same"


def describe(subject: Subject, rows: Sequence[LayerRow]) -> dict[str, Any]:
    """Everything that is known, by the names that the commands' own reports have."""
    validate, bench = subject.reports.get("validate"), subject.reports.get("bench")
    quantize = subject.reports.get("quantize")
    values: dict[str, Any] = {
        "name": subject.name,
        "sha256": subject.sha256,
        "bytes": subject.bytes,
        "made": subject.made,
        "validate": validate,
        "bench": bench,
        "quantize": quantize,
        "bundle": subject.bundle,
        "calibration": None
        if subject.calibration is None
        else {"samples": subject.calibration.samples, "tensors": len(subject.calibration.tensors)},
        "bytes_float": (bench or {}).get("bytes_float") or (quantize or {}).get("bytes_float"),
        "integer_macs": compute_integer_share(rows),
        "layers": [_describe_layer(row) for row in rows],
        "memory": [{"node": node, "bytes": count} for node, count in subject.memory],
        "peak_activation_bytes": max((count for _, count in subject.memory), default=None),
        "preprocessing": list(subject.format.describe()),
    }
    values["size_ratio"] = subject.bytes / values["bytes_float"] if values["bytes_float"] else None
    values["verdict"] = write_verdict(values)
    plain: dict[str, Any] = to_plain(values)
    return plain


def compute_integer_share(rows: Sequence[LayerRow]) -> float | None:
    """The share of the multiplications that integer kernels do; None where some are not known, or there are none."""
    macs = [row.macs for row in rows]
    if None in macs or not sum(one or 0 for one in macs):
        return None
    return sum(row.macs or 0 for row in rows if row.integer) / sum(one or 0 for one in macs)


def _describe_layer(row: LayerRow) -> dict[str, Any]:
    h = row.histogram
    return {
        "node": row.node, "op": row.op, "kernel": row.kernel, "integer": row.integer, "why": row.why,
        "inputs": list(row.inputs), "macs": row.macs, "weight_bytes": row.weight_bytes,
        "activation_bytes": row.activation_bytes, "min": h and h.low, "max": h and h.high,
        "end_low": row.ends and row.ends[0], "end_high": row.ends and row.ends[1],
        "sqnr_db": row.sqnr_db, "fall_db": row.fall_db, "float_us": row.float_us, "int8_us": row.int8_us,
    }  # fmt: skip


def write_verdict(values: Mapping[str, Any]) -> str:
    """One sentence: accuracy, size and time, each only as far as it was measured, and what was not."""
    parts, missing = [], []
    validate, bench = values["validate"] or {}, values["bench"] or {}
    if validate.get("drop") is not None:
        parts.append(_judge_accuracy(validate))
    elif validate.get("agreement") is not None:
        parts.append(
            f"decides as float does on {100 * validate['agreement']:.2f} % of {say_count(validate['samples'], 'sample')}"
        )
    elif validate.get("sqnr_db") is not None:
        parts.append(
            f"its outputs match float's to {validate['sqnr_db']:.1f} dB on {say_count(validate['samples'], 'sample')}"
        )
    else:
        missing.append("accuracy (validate)")
    if values["size_ratio"] is not None:
        parts.append(f"it takes {values['size_ratio']:.2f} of the space")
    else:
        missing.append("size of the float model (fcdeploy quantize, or fcdeploy bench --against)")
    if bench.get("ratio") is not None:
        parts.append(_judge_time(bench))
    else:
        missing.append("time (fcdeploy bench --against)")
    sentence = "; ".join(parts)
    said = f"{sentence[:1].upper()}{sentence[1:]}." if parts else ""
    return f"{said} Not measured: {', '.join(missing)}.".strip() if missing else said


def _judge_accuracy(validate: Mapping[str, Any]) -> str:
    drop, low, high, unit = (validate.get(key) for key in ("drop", "drop_low", "drop_high", "drop_unit"))
    count, limit = validate["samples"], validate.get("max_drop")
    between = "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f})"
    amount = f"{abs(drop or 0):.2f} {unit}"
    side = (
        "as accurate as float" if not drop else f"{amount} {'less' if (drop or 0) > 0 else 'more'} accurate than float"
    )
    chance = ", no more than chance" if drop and low is not None and high is not None and low <= 0 <= high else ""
    held = "" if limit is None else f", {'within' if validate['passed'] else 'not within'} the {limit:g} allowed"
    return f"it is {side}{between} on {say_count(count, 'sample')}{chance}{held}"


def _judge_time(bench: Mapping[str, Any]) -> str:
    ratio, low, high = bench["ratio"], bench["ratio_low"], bench["ratio_high"]
    between = f"{ratio:.2f} ({low:.2f} to {high:.2f}) of the time"
    return (
        f"it takes {between}" if bench.get("conclusive") else f"its time is not certain: {between}, on a noisy machine"
    )
