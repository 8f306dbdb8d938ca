"""Two calibrations of one model to that of both data sets: exact, whatever the order and the grouping."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcdeploy.arithmetic.histogram import merge_histograms, merge_moments
from fcdeploy.errors import FcdeployError
from fcdeploy.records.calibration import Calibration, Moments, TensorRecord
from fcdeploy.records.data_format import describe_difference
from fcdeploy.samples.kept_samples import merge_kept

BOTH = " + "  # between the CPU families, or versions, of what was merged


def merge(a: Calibration, b: Calibration) -> Calibration:
    """The calibration of both data sets: associative and commutative, bit for bit. One without samples adds nothing.

    A sample that is in both counts twice, as it would if the data had held it twice.  Where one of the two kept no
    samples, the result keeps none.  Raises FcdeployError for calibrations of different models, or of different tensors.
    """
    if a.model != b.model:
        raise FcdeployError(
            f"one calibration is of model {a.model[:12]}, the other of {b.model[:12]}, expected one model",
            "fcdeploy calibration show FILE tells which",
        )
    for one in (a, b):
        if "imported" in one.made_by:
            raise FcdeployError(
                f"one calibration holds ranges that were measured elsewhere ({one.made_by['imported']}), "
                "which have no histograms to add",
                "fcdeploy calibrate MODEL --data DATA measures them here",
            )
    if a.format != b.format and a.samples and b.samples:
        raise FcdeployError(
            f"the calibrations read their samples otherwise: {describe_difference(a.format, b.format)}",
            "calibrate all shards with the same --preprocess and --classes",
        )
    if not a.samples or not b.samples:
        return a if a.samples else b
    if a.tensors.keys() != b.tensors.keys():
        odd = sorted(a.tensors.keys() ^ b.tensors.keys())
        raise FcdeployError(
            f"only one of the calibrations has tensor {odd[0]!r}, expected the same tensors in both",
            "calibrate all shards by the same version, all with --all-tensors or none",
        )
    if (a.states, a.axes) != (b.states, b.axes):
        told = (f"{dict(part.states) or 'none'} and {dict(part.axes) or 'none'}" for part in (a, b))
        raise FcdeployError(
            f"the calibrations have different states and batch axes: {' against '.join(told)}",
            "calibrate all shards with the same --state and --batch-axis",
        )
    tensors = {name: _merge_records(record, b.tensors[name]) for name, record in a.tensors.items()}
    kept = merge_kept((a.groups, a.seen), (b.groups, b.seen)) if a.groups and b.groups else ()
    seen = np.sort(np.concatenate([a.seen, b.seen]))
    return Calibration(
        a.model,
        tensors,
        seen,
        kept[0] if kept else {},
        _merge_made_by(a.made_by, b.made_by),
        kept[1:],
        a.format,
        a.states,
        a.axes,
    )


def _merge_records(a: TensorRecord, b: TensorRecord) -> TensorRecord:
    if a.kind in ("weight", "bias"):
        return a
    same_rank = len(a.shape) == len(b.shape)
    shape = tuple(n if n == m else None for n, m in zip(a.shape, b.shape, strict=True)) if same_rank else (None,)
    histogram = merge_histograms(a.histogram, b.histogram)
    return TensorRecord(a.name, a.kind, a.layer, a.op, shape, histogram, _merge_moments(a.moments, b.moments))


def _merge_moments(a: Moments | None, b: Moments | None) -> Moments | None:
    """None where either had none, or where the number of channels varies."""
    if a is None or b is None or len(a.limbs) != len(b.limbs):
        return None
    return merge_moments(a, b)


def _merge_made_by(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    """CPU family and versions of both, sorted, so that the order of merging does not show."""
    made = {key: {*a.get(key, "?").split(BOTH), *b.get(key, "?").split(BOTH)} for key in (*a, *b)}
    return {key: BOTH.join(sorted(values)) for key, values in sorted(made.items())}
