"""One sentence on what to do about an int8 model's loss, decided from what was measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.loss import Loss, digits_of, format_amount
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.rounding_error import RoundingError
from fcdeploy.sensitivity.error_sources import ErrorSource
from fcdeploy.sensitivity.groups import Remedy
from fcdeploy.sensitivity.rank import Ranking, SourceCost
from fcdeploy.wording import say_count

NO_CHANGE = "no change needed: "
STANDS_OUT = 0.25  # of the output's error: less than a quarter of it, gone, is 1.2 dB
BY_CLIPPING = 0.5  # of a tensor's own error: wider ranges would round coarser, so less is no reason for them
EXACT_ENOUGH_DB = 40.0  # outputs to within a hundredth
QUANTIZE = "fcdeploy quantize ..."


class Advice(NamedTuple):
    """A sentence, and the rounding that it names as the cause; None where it names none."""

    text: str
    culprit: SourceCost | None = None


def advise(
    *,
    answers: Answers | None,
    loss: Loss | None,
    sqnr_db: float | None,
    ranking: Ranking,
    rows: Sequence[Remedy],
    ranges: Mapping[ErrorSource, RoundingError],
    saturates: bool = False,
    effort: str | None = None,
) -> Advice:
    """What to do, with the command that does it, or that no change is needed, and why.

    `answers` are what float and int8 answered, None where only errors of outputs are known; `loss` sums them up.
    `rows` are the remedies, the one that brings back most first; `ranges` what rounding does to tensors on the samples.
    `saturates`: the model's pair sums can overflow on some CPUs, and its kernels changed the outputs here.  `effort` is that
    with which the model was quantized, None where it does not say.
    """
    if not ranking.costs and not ranking.unknown:
        return Advice(f"{NO_CHANGE}nothing in this model is rounded to few bits")
    if saturates:
        return Advice(
            f"byte products saturate on this CPU, which costs more than rounding: {QUANTIZE} --target x86-avx2"
        )
    metric = None if answers is None else answers.metric
    within = "" if answers is None else _explain_noise(metric, loss, answers.samples)
    if within:
        return Advice(f"{NO_CHANGE}{within}")

    # one group stands out, or is sure to bring something back: that is what to do
    best = next((row for row in rows if row.returns > 0 or (row.share >= STANDS_OUT and row.low > 0)), None)
    if best is not None:
        return Advice(_describe_remedy(best, metric, ranges), best.group.cost)

    # else rounding better everywhere is all that is left, if anything is lost at all
    if not ranking.costs:
        return Advice("what rounding costs is not known: give --against the float model that this one was made from")
    dearest = max(ranking.costs, key=lambda cost: cost.share)
    spread = _describe_dearest(dearest, ranking)
    if metric is None and sqnr_db is not None and sqnr_db >= EXACT_ENOUGH_DB:
        return Advice(f"{NO_CHANGE}the outputs match float's to {sqnr_db:.1f} dB, and {spread}")
    if dearest.share >= STANDS_OUT:
        better = "--activations int16 rounds finer, without the speed"
        if effort != "best":
            better = f"to round better everywhere: {QUANTIZE} --effort best"
        return Advice(f"{spread}, and float around it is no sure gain; {better}", dearest)
    if effort != "best":
        return Advice(f"{spread}, so it takes better rounding everywhere: {QUANTIZE} --effort best")
    return Advice(
        f"leaving nodes in float gains nothing: {spread}; --activations int16 rounds finer, without the speed"
    )


def describe_source(source: ErrorSource) -> str:
    """'weights of stem', 'output of stem', 'input image'."""
    if source.kind == "weights":
        return f"weights of {source.node}"
    return f"output of {source.node}" if source.node else f"input {source.name}"


def format_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _describe_dearest(dearest: SourceCost, ranking: Ranking) -> str:
    """What the costliest rounding of the ranking makes of the error: by name, where it stands out."""
    if dearest.share >= STANDS_OUT:
        seen = f"95 % interval {100 * dearest.low:.0f} to {100 * dearest.high:.0f} %, {ranking.samples} samples"
        seen = seen if math.isfinite(dearest.low) else "one sample"
        return f"rounding the {describe_source(dearest.source)} makes {format_percent(dearest.share)} of the error ({seen})"
    tried = f" of the {len(ranking.costs)} tried" if ranking.left or ranking.unknown else ""
    return f"no single rounding{tried} makes more than {format_percent(max(dearest.share, 0.0))} of the error"


def _explain_noise(metric: Metric | None, loss: Loss | None, samples: int) -> str:
    """Why the metric asks for nothing; empty where int8 is worse by more than chance, or there is no metric."""
    if metric is None or loss is None or (loss.low is not None and loss.low > 0):
        return ""
    count = say_count(samples, "sample")
    if metric.name == "agreement":
        return f"all decisions on {count} are float's"
    if loss.drop <= 0:
        return f"int8 is no worse than float on {count}"
    if loss.low is None or loss.high is None:
        return f"one sample cannot tell the drop of {format_amount(loss.drop, metric.unit)} from chance"
    digits = digits_of(metric.unit)
    interval = f"95 % interval {loss.low:{digits}} to {loss.high:{digits}}"
    return f"the drop of {format_amount(loss.drop, metric.unit)} is no more than chance on {count}, {interval}"


def _describe_remedy(best: Remedy, metric: Metric | None, ranges: Mapping[ErrorSource, RoundingError]) -> str:
    source = best.group.cost.source
    seen = ranges.get(source)
    if seen is not None and seen.clipped and seen.by_clipping >= BY_CLIPPING:
        return (
            f"{100 * seen.clipped:.2f} % of the {describe_source(source)} lies outside its range, and rounding it makes "
            f"{format_percent(best.group.cost.share)} of the error: {QUANTIZE} --ranges minmax, or more data to calibrate on"
        )
    options = " ".join(f"--keep-float {shlex.quote(node)}" for node in best.group.nodes)
    if best.returns > 0 and metric is not None:
        back = f"brings back {format_amount(best.returns, metric.unit)}"
    else:
        back = f"takes away {format_percent(best.share)} of the error"
    cost = f" for {best.time.median:.2f} of the time here" if best.time else ""
    return f"float around the {describe_source(source)} {back}{cost}: {QUANTIZE} {options}"
