"""Do the samples look like what the model expects?  Mistakes that raise no error, found in a few samples.

Pixels that were not scaled, or twice, or without mean and std; channels in the other order; rows of pixels where channels
belong; the same sample over and over; pictures that were stretched; the first of a folder that is sorted by class.  Each
warning has the figure and the likely cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fcdeploy.arrays import Array, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.preprocessing.apply import import_pillow
from fcdeploy.preprocessing.settings import IMAGENET_MEAN as MEAN
from fcdeploy.preprocessing.settings import IMAGENET_STD as STD
from fcdeploy.preprocessing.settings import guess_layout
from fcdeploy.records.data_format import DataFormat, InputStatistics
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.kept_samples import hash_sample
from fcdeploy.samples.source import Sample, Source

FEW = 64  # samples that are looked at
OUTSIDE = 0.01  # share of elements beyond the calibrated ends that is no chance
ROOM = 0.1  # of the calibrated span, beyond which an element is outside
FULL = 255.0
SMALL = 16.0  # no preprocessing leaves pictures beyond it: 1 / 0.0625 standard deviations of a channel
STRETCH = 1.05  # of the proportions, which nobody sees
UNLIKELY = 4.0  # standard errors
NARROW = 32.0  # times as narrow as what was calibrated on: no other pictures, other numbers
ALIKE = 1.5  # times as wide, or as narrow, as the same numbers of other pictures may be
USUAL_ENDS = {
    "pixel / 255": (0.0, 1.0),
    "from -1 to 1": (-1.0, 1.0),
    "normalized with ImageNet's mean and standard deviation": (
        min(-mean / std for mean, std in zip(MEAN, STD, strict=True)),
        max((1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)),
    ),
}
"""What black and white become."""
INTERLEAVED = 0.75  # neighbours three apart differ that much less than those side by side, where pixels lie in threes


@dataclass(frozen=True)
class LookedAt:
    """One input over a few samples: its statistics, whether it is floats of pictures in grey or in colours, how far
    the ends of its widest channel lie apart, how much its first channel less its last differs from sample to sample (the
    standard deviation), whether all are whole numbers, the share outside the recorded ends, and how much less elements
    three apart in a row differ than neighbours.
    """

    statistics: InputStatistics
    picture: bool
    width: float
    spread: float
    whole: bool
    outside: float
    interleaving: float


def take_few(source: Source) -> list[Sample]:
    """A few samples, drawn from all, that can be used; what is wrong with others is said where all are read."""
    try:
        return list(islice(source.draw_few(FEW).without_bad(), FEW))
    except FcdeployError:
        return []


def warn_of_inputs(source: Source, samples: Sequence[Sample], recorded: Sequence[InputStatistics] = ()) -> list[str]:
    """What is odd about a few samples of a source; beside what was recorded at calibration, where it was."""
    known = {row.name: row for row in recorded}
    warnings = list(_warn_of_equal(samples, source.name))
    for spec in source.inputs if samples else ():
        if spec.dtype.kind == "O":  # text
            continue
        before = known.get(spec.name)
        looked = _look_at(spec, samples, source.format, before)
        warnings += _warn_of_range(looked, before, len(samples))
        warnings += _warn_of_order(looked, before, len(samples))
    return [*warnings, *_warn_of_stretch(source), *_warn_of_sorted(source)]


def _warn_of_sorted(source: Source) -> Iterator[str]:
    """The first so many pictures of class folders, which come one after the other, are of the first classes."""
    if source.limit is None or not source.labelled or source.format.preprocessing is None:
        return
    folders = [name.partition("(")[2].partition("/")[0] for name, _ in source.read() if "/" in name]
    taken, every = set(folders[: source.limit]), set(folders)
    if len(taken) < len(every):
        yield (
            f"the first {source.limit} pictures of {source.name} are of {len(taken)} of its {len(every)} classes: "
            f"--samples {source.limit} --seed 1 draws them from all"
        )


def _look_at(spec: TensorSpec, samples: Sequence[Sample], how: DataFormat, known: InputStatistics | None) -> LookedAt:
    arrays = [sample.inputs[spec.name] for sample in samples]
    low, high = float(min(array.min() for array in arrays)), float(max(array.max() for array in arrays))
    axis = _find_channels(spec, arrays[0], how)
    means: tuple[float, ...] = ()
    spread, width = 0.0, high - low
    if axis is not None and arrays[0].shape[axis] == 3:
        each = np.stack([_average_channels(array, axis) for array in arrays])
        means = tuple(each.mean(axis=0).tolist())
        width = max(_measure_width([array.take(at, axis) for array in arrays]) for at in range(3))
        spread = float((each[:, 0] - each[:, 2]).std())
    outside = 0.0
    if known is not None:
        room = ROOM * (known.high - known.low)
        beyond = sum(int(((a < known.low - room) | (a > known.high + room)).sum()) for a in arrays)
        outside = beyond / sum(a.size for a in arrays)
    picture = axis is not None and arrays[0].shape[axis] in (1, 3) and spec.dtype.kind == "f"
    whole = all(bool((a == np.rint(a)).all()) for a in arrays)
    interleaving = _measure_interleaving(arrays) if axis == 0 and arrays[0].shape[0] == 3 else 1.0
    return LookedAt(InputStatistics(spec.name, low, high, means), picture, width, spread, whole, outside, interleaving)


def _find_channels(spec: TensorSpec, array: Array, how: DataFormat) -> int | None:
    """The axis of channels of a picture, without the leading one."""
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        return None
    layout = how.preprocessing.layout if how.preprocessing else guess_layout(spec.shape)
    return 0 if layout == "NCHW" else 2


def _measure_width(arrays: Sequence[Array]) -> float:
    return float(max(array.max() for array in arrays)) - float(min(array.min() for array in arrays))


def _average_channels(array: Array, axis: int) -> Float64:
    others = tuple(at for at in range(3) if at != axis)
    return np.asarray(array.mean(axis=others, dtype=np.float64))


def _measure_interleaving(arrays: Sequence[Array]) -> float:
    """Mean difference of elements three apart in a row over that of neighbours: below 1 where pixels lie in threes."""
    near = far = 0.0
    for array in arrays:
        if array.shape[-1] < 8:
            return 1.0
        rows = array.astype(np.float64)
        near += float(np.abs(np.diff(rows, axis=-1)).mean())
        far += float(np.abs(rows[..., 3:] - rows[..., :-3]).mean())
    return far / near if near else 1.0


def _warn_of_equal(samples: Sequence[Sample], name: str) -> Iterator[str]:
    if len(samples) > 1 and len({hash_sample(sample.inputs) for sample in samples}) == 1:
        yield f"{len(samples)} samples of {name} are all equal: is the same one yielded, or read, again and again?"


def _warn_of_range(each: LookedAt, known: InputStatistics | None, count: int) -> Iterator[str]:
    """Samples beside those that were calibrated on, or, where there are none, beside what pictures can be."""
    now = each.statistics
    if known is None:
        resized = bool(now.means) and FULL / 2 < now.high <= FULL + 1
        if each.picture and now.low >= 0 and (resized or (each.whole and now.high > SMALL)):
            yield (
                f"input {now.name!r}: {'whole ' if each.whole else ''}numbers from {now.low:g} to {now.high:g}, "
                "as pixels are stored: networks mostly want them scaled, --preprocess says how"
            )
        return
    before = known.high - known.low
    where = (
        f"input {now.name!r}: {now.low:.4g} to {now.high:.4g} in {count} samples, {known.low:.4g} to {known.high:.4g} "
    )
    where += "when it was calibrated"
    cause = _explain_range(each, known)
    if each.outside > OUTSIDE:
        yield f"{where}; {100 * each.outside:.3g} % of the elements lie outside: {cause or 'other data, or read otherwise'}"
    elif before > 0 and cause and (now.high - now.low < before / NARROW or now.means):
        yield f"{where}: {cause}"


def _explain_range(each: LookedAt, known: InputStatistics) -> str:
    now = each.statistics
    most, before = (max(abs(row.low), abs(row.high)) for row in (now, known))
    if each.whole and now.low >= 0 and SMALL < now.high <= FULL and (before <= SMALL or known.low < -SMALL):
        was = "scaled" if before <= SMALL else "less a mean"
        return f"whole numbers up to 255: pixels as they are stored (uint8), which were {was} before"
    if before and FULL / 2 <= most / before <= 2 * FULL:
        return "about 255 times as large: pixels were not divided by 255"
    if most and FULL / 2 <= before / most <= 2 * FULL * max(1.0, before / FULL):
        return "about 255 times as small: pixels were divided by 255, which they were not before, or twice"
    if now.low >= 0 and now.high <= 1 and known.low < -0.05 * (known.high - known.low):
        return "pixel / 255 without the mean and standard deviation that were taken off before"
    if known.low >= 0 and known.high <= 1 and now.low < -0.05 and most <= SMALL:
        return "a mean and a standard deviation were taken off, which they were not before"
    return _explain_width(now, known, each.width) if now.means else ""


def _explain_width(now: InputStatistics, known: InputStatistics, width: float) -> str:
    """Of pictures whose numbers all lie within those that were calibrated on, and are others."""
    narrower = (known.high - known.low) / width if width else 0.0
    if FULL / 2 <= narrower <= 2 * FULL:
        return f"{narrower:.0f} times as narrow: pixels were divided by 255 twice"
    if narrower >= NARROW:
        return f"{narrower:.0f} times as narrow: pixels were scaled or normalized, which they were not before"
    is_now, was = _name_ends(now), _name_ends(known)
    if is_now in ("", was):
        return ""
    low, high = USUAL_ENDS[is_now]
    beyond = min(known.low - low, high - known.high) < -0.05 * (high - low)  # which such numbers cannot be
    return f"these look like numbers {is_now}, and were {was or 'others'} before" if was or beyond else ""


def _name_ends(row: InputStatistics) -> str:
    """Which usual preprocessing has such ends."""
    for name, (low, high) in USUAL_ENDS.items():
        if max(abs(row.low - low), abs(row.high - high)) < 0.01 * (high - low):
            return name
    return ""


def _warn_of_order(each: LookedAt, known: InputStatistics | None, count: int) -> Iterator[str]:
    now = each.statistics
    if each.interleaving < INTERLEAVED:
        yield (
            f"input {now.name!r}: elements three apart in a row differ {each.interleaving:.2f} times as much as neighbours: "
            "these look like pixels of three channels each (NHWC), and the model reads NCHW: transpose, do not reshape"
        )
        return
    if known is None or not now.means or not known.means or each.outside > OUTSIDE:
        return
    if not 1 / ALIKE < (now.high - now.low) / max(known.high - known.low, 1e-12) < ALIKE:
        return  # other numbers, whatever their order
    tint = known.means[0] - known.means[2]
    error = each.spread / math.sqrt(max(count, 2)) + 1e-6 * (known.high - known.low) + 1e-12
    straight = abs(now.means[0] - now.means[2] - tint) / error
    if straight > UNLIKELY and any(abs(other - tint) / error < straight / 2 for other in _swap_tint(now.means)):
        now_text, then_text = (", ".join(f"{value:.3g}" for value in row) for row in (now.means, known.means))
        yield (
            f"input {now.name!r}: its channels have the means {now_text}, and had {then_text} when it was calibrated: "
            "they look reversed (BGR for RGB)"
        )


def _swap_tint(means: Sequence[float]) -> Iterator[float]:
    """First less last channel, had they been the other way round: before ImageNet's mean and deviation were taken off, or as
    they are."""
    yield means[2] - means[0]
    red, blue = (means[at] * STD[at] + MEAN[at] for at in (0, 2))
    yield (blue - MEAN[0]) / STD[0] - (red - MEAN[2]) / STD[2]


def _warn_of_stretch(source: Source) -> Iterator[str]:
    """Pictures whose proportions changed though nobody said that they may."""
    how = source.format.preprocessing
    step = next((step for step in how.steps if step.kind == "resize"), None) if how else None
    if how is None or step is None or "resize" not in how.assumed:
        return
    worst, count, seen = 1.0, 0, 0
    for file in islice(source.draw_few(FEW).list_files(), FEW):
        size = _read_size(file)
        if size is None:
            continue
        seen += 1
        factor = size[0] * step.size[0] / (size[1] * step.size[1])  # of width to height, before over behind
        count += not 1 / STRETCH <= factor <= STRETCH
        worst = max(worst, factor, 1 / factor)
    if count:
        meant = "--preprocess scale-0-1" if "numbers" in how.assumed else 'resize = "stretch" in its settings'
        yield (
            f"{count} of {seen} pictures were stretched to other proportions, by up to {worst:.2f}, and nobody said so: "
            f"--preprocess torchvision-imagenet cuts the centre out, {meant} says that it is meant"
        )


def _read_size(file: object) -> tuple[int, int] | None:
    """Width and height from a picture's header."""
    try:
        with import_pillow().open(file) as picture:
            width, height = picture.size
    except Exception:  # what cannot be read is said where it is read
        return None
    return (width, height) if min(width, height) > 0 and math.isfinite(width / height) else None
