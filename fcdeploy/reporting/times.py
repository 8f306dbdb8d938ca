"""What is said of time: what was found on this CPU, and what each node loses as integers."""

from __future__ import annotations

from collections.abc import Iterator

from fcdeploy.int8.planning.plan_graph import SLOW
from fcdeploy.int8.timing.choose_kernels import JUDGED, SLOWER
from fcdeploy.int8.timing.costs import CostBasis, find_taken, format_interval, format_ratio, is_uneven
from fcdeploy.records.costs import Costs, TimeTrial
from fcdeploy.records.plan import NodeDecision
from fcdeploy.wording import say_count

SLOWER_ALONE = "slower as integers"
AGAINST = {"onnxruntime": "the float time", "native": "the float time, both as native code"}
SLOWER_AROUND = "converting to integers and back costs more than integers gain"


def describe_times(basis: CostBasis) -> Iterator[str]:
    """What was found about time, and whether integers are worth having."""
    costs = basis.costs
    if costs is None:
        return
    if costs.estimated:
        yield f"times are estimates from the {costs.source}: measure on the CPU itself to be sure"
        return
    tried = (*costs.trials, *costs.confirmed)
    everywhere = min(tried, key=lambda trial: len(trial.choice.slow))
    taken = find_taken(costs)
    if taken.choice.slow and set(taken.choice.slow) >= set(costs.layers):
        yield from _describe_float(costs, taken, everywhere)
    else:
        yield _describe_integers(taken, everywhere, AGAINST[costs.engine])
    if taken.choice.one_scale and taken.sqnr_db is not None:
        layers = len(taken.choice.one_scale)
        yield (
            f"{say_count(layers, 'dense layer')} {'has' if layers == 1 else 'have'} one weight scale for all channels, "
            "which is faster: "
            f"{taken.sqnr_db:.1f} dB on {JUDGED} samples before bias correction, where integers everywhere with a scale "
            f"for each channel reach {costs.sqnr_db:.1f} dB"
        )
    if is_uneven(taken):
        yield (
            f"this machine was too noisy to time it well: {format_interval(taken)}; layers stay integers where float did not "
            "clearly save time; fcdeploy bench measures longer, and --costs measure decides again"
        )
    if basis.before:
        yield "times are those measured before on this CPU; --costs measure takes them anew"


def list_ratios(trial: TimeTrial | None) -> dict[str, float | None]:
    """A time relative to that of float and its interval, as reports name them."""
    ends = (None, None, None) if trial is None else (trial.ratio, trial.low, trial.high)
    return dict(zip(("ratio", "ratio_low", "ratio_high"), ends, strict=True))


def _describe_integers(taken: TimeTrial, everywhere: TimeTrial, against: str) -> str:
    text = f"{format_interval(taken)} of {against}"
    if not taken.choice.slow:
        return f"{text}: no layer is faster in float"
    count = len(taken.choice.slow)
    stay = f"{say_count(count, 'layer')} {'stays' if count == 1 else 'stay'}"
    return f"{text}; integers everywhere would take {format_ratio(everywhere)}, so {stay} float"


def _describe_float(costs: Costs, taken: TimeTrial, everywhere: TimeTrial) -> Iterator[str]:
    lost = costs.confirmed[:-1]
    if lost:
        yield f"what looked fastest took {format_interval(lost[-1])} of the float time when it was run again"
    yield f"float is fastest here: integers everywhere take {format_ratio(everywhere)} of its time; only weights are bytes"
    if taken.low > SLOWER:
        yield f"even so the file takes {format_interval(taken)} of the float model's time: keep the float model for speed"


def add_figures(costs: Costs | None, decision: NodeDecision) -> str:
    """A decision's reason, where it is time, with the times, and what they say of it."""
    if costs is None or decision.node not in costs.nodes or decision.cause != "time":
        return decision.why
    in_float, as_integers = costs.nodes[decision.node]
    cause = SLOWER_ALONE if as_integers > in_float else SLOWER_AROUND
    said = f"{_format_us(as_integers)} as integers, {_format_us(in_float)} in float"
    source = ", estimated from the table" if costs.estimated else ""
    return decision.why.replace(SLOW, f"{said}{source}: {cause}")


def _format_us(microseconds: float) -> str:
    return f"{microseconds:.0f} us" if microseconds >= 10 else f"{microseconds:.1f} us"
