"""Which of the samples at hand the tools may see that run the model, and which are set aside for its judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.calibrating.statistics import BESIDE_BYTES, PLENTY
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept_samples import (
    KEPT_MOST,
    SmallestSamples,
    count_samples,
    hash_sample,
    hash_samples,
    open_kept,
)
from fcdeploy.samples.source import Load, Source, get_fixed_batch
from fcdeploy.samples.stretches import split_stretches

APART = 3  # of the samples that tools may run the model on, one in so many is kept apart, and those that
USED = 128  # of them leave over: corrections take no more
MOST_APART = 128
LEAST_APART = 4  # fewer tell nothing: then all samples serve for both, which is said


@dataclass(frozen=True)
class SamplesApart:
    """Samples for `tools`, one array an input, and groups for the judge; `unseen` where none is both.

    `calibration`: without those that are judged, where that matters and can be had, which `ranges_apart` says.
    """

    tools: Arrays
    judged: tuple[Arrays, ...]
    unseen: bool
    calibration: Calibration
    ranges_apart: bool


def set_apart(
    model: ir.Model,
    calibration: Calibration,
    groups: Sequence[Arrays],
    source: Source | None,
    on_step: OnStep | None = None,
) -> SamplesApart:
    """Divide the samples of a calibration; of `source`, of which it was made, more are judged than it keeps of large ones.

    A calibration whose tensors were left for later is completed from `source`.
    """
    tools, judged, unseen = split_samples(groups, streams=bool(calibration.states))
    if unseen and source is not None:
        judged = _draw_more_judged(calibration, groups, judged, source)
    others = _leave_out_judged(model, calibration, groups, judged, source, on_step) if unseen else None
    if others is None and not calibration.tensors and source is not None:
        whole = observe(model, source, model_hash=calibration.model, on_step=on_step)
        calibration = replace(calibration, tensors=whole.tensors)
    return SamplesApart(tools, judged, unseen, others or calibration, others is not None)


def split_samples(groups: Sequence[Arrays], *, streams: bool) -> tuple[Arrays, tuple[Arrays, ...], bool]:
    """Samples for the tools that run the model, samples for its judge, and whether no sample is both.

    `groups` are samples of one shape each.  Tools get most of the largest group, in its order, which is that of hashes: any
    part of it is a random one.  The judge gets the rest.  Where that is too little to tell anything, it gets all.
    Of `streams` groups are stretches: tools get their steps, the judge whole ones.
    """
    if not groups:
        return {}, (), False
    if streams:
        return *split_stretches(groups), True
    largest = max(range(len(groups)), key=lambda at: count_samples(groups[at]))
    cut = count_samples(groups[largest]) - count_judged(count_samples(groups[largest]))
    tools = {name: array[:cut] for name, array in groups[largest].items()}
    rest = {name: array[cut:] for name, array in groups[largest].items()}
    others = [group for at, group in enumerate(groups) if at != largest]
    judged = tuple(group for group in (rest, *others) if count_samples(group))
    if sum(map(count_samples, judged)) < LEAST_APART:
        return groups[largest], tuple(groups), False
    return tools, judged, True


def count_judged(samples: int) -> int:
    """How many of so many samples the judge gets, if there is room for them."""
    return min(max(samples // APART, samples - USED), MOST_APART)


def _draw_more_judged(
    calibration: Calibration, groups: Sequence[Arrays], judged: Sequence[Arrays], source: Source
) -> tuple[Arrays, ...]:
    """More samples for the judge than a calibration keeps of large ones: of five pictures it can tell little.

    The source is read once more for them; where all its samples are kept, or states are carried, `judged` is all.
    """
    wanted = count_judged(len(calibration.seen)) - sum(map(count_samples, judged))
    if calibration.states or wanted <= 0 or sum(map(count_samples, groups)) >= min(KEPT_MOST, len(calibration.seen)):
        return tuple(judged)
    known, more = hash_samples(groups), SmallestSamples(most=wanted, room=BESIDE_BYTES)
    for sample in source:
        number = hash_sample(sample.inputs)
        if number not in known:
            more.offer(number, sample.inputs)
    return (*judged, *more.groups())


def _leave_out_judged(
    model: ir.Model,
    calibration: Calibration,
    groups: Sequence[Arrays],
    judged: Sequence[Arrays],
    source: Source | None,
    on_step: OnStep | None = None,
) -> Calibration | None:
    """The calibration without the samples that are judged, all else as it is.

    None where that matters no more, or cannot be found out: the samples it was made of are those of `groups`, or `source`.
    """
    seen, out = set(calibration.seen.tolist()), hash_samples(judged)
    if not seen & out:
        return calibration if calibration.tensors else None
    if len(seen) >= PLENTY or 2 * len(seen & out) > len(seen) or calibration.states:
        return None
    if seen <= hash_samples(groups) and (
        calibration.tensors or source is None
    ):  # else mistakes are told by the data's names
        source = open_kept(model, groups, out | (hash_samples(groups) - seen))
    elif source is not None:
        source = _without(source, out)
    fixed = 1 if source is None else get_fixed_batch(source.inputs) or 1
    if source is None or (fixed > 1 and (source.count is None or source.count % fixed)):  # they fill no batch
        return None
    fewer = observe(model, source, model_hash=calibration.model, on_step=on_step)
    return replace(calibration, tensors=fewer.tensors)


def _without(source: Source, out: Set[int]) -> Source:
    """The samples of a source but those with these hashes."""

    def read() -> Iterator[tuple[str, Load]]:
        left = (one for one in source if hash_sample(one.inputs) not in out)
        return ((one.name.removeprefix(f"{source.name}, "), partial(dict, one.inputs)) for one in left)

    return Source(source.name, source.inputs, read, None, labelled=False)
