"""What a judge found of an int8 model, held against a floor: what misses it, and what few samples leave in doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from fcdeploy.arithmetic.significance import estimate_share_interval, tail_of_binomial
from fcdeploy.arrays import Float64
from fcdeploy.evaluate.decision import Decision
from fcdeploy.int8.judging.fidelity import EXACT_DB, format_noise
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.margins import estimate_error
from fcdeploy.samples.kept_samples import KEPT_MOST
from fcdeploy.samples.stretches import STRETCH
from fcdeploy.wording import say_count

SURE = 0.05  # a model is below the floor where chance gives so many changed decisions with this probability at most
NEGLIGIBLE = 1e-4  # of decisions: no sample of any set of a size to run is likely to be among them
EXACT_NOISE = 10 ** (-EXACT_DB / 10)
FAR, FAR_DB = 3.0, 3.0
FEWEST_TOLD = 16  # samples: as many that decide alike leave no more than a fifth of others in doubt
TOLD = 5  # times that each region counts, once at each threshold
HIDDEN = 10  # times as many changes as margins promise: samples that are near another class may all be missing
REGIONS = ": regions"  # behind the name of an output that is a map of things: how many of them both models find
NOTABLE_DIFFERENCE = 0.002  # of decisions: by which fewer are to be expected equal than were, to be said
CARRIED_DB = 10.0  # by which a state must be nearer than others: errors add up for longer than a stretch
CARRIED_SHARE = 2 / 3  # of the changed decisions that the floor allows, for the same reason


class Miss(NamedTuple):
    """What is below the floor: in words, by how many points of decisions or decibels, and of which output."""

    text: str
    by: float
    output: str


@dataclass(frozen=True)
class Judgement:
    """How a model did on `samples`: SQNR by floating-point output, and by deciding output equal decisions and all, (n, 2).

    Of a map of things, by its name with REGIONS behind it, the same of regions.  `expected` is how likely classes and texts are
    to stay the same, (n,), of outputs with one a sample: of these samples and others.  `states` are outputs that the
    next step of a stream takes.  `moved` is how far the margins that decide texts moved, squared and relative to each.
    """

    samples: int
    sqnr_db: Mapping[str, float]
    equal: Mapping[str, Float64]
    decisions: Mapping[str, Decision]
    expected: Mapping[str, Float64] = field(default_factory=dict)
    states: Set[str] = frozenset()
    moved: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst_db(self) -> float:
        """Of the worst output."""
        return min(self.sqnr_db.values(), default=EXACT_DB)

    @property
    def decisive_db(self) -> float:
        """The same by what decides: of texts, whose shares are those of the few steps near a tie, the margins' decibels."""
        return min((-10 * math.log10(max(noise, EXACT_NOISE)) for noise in self._noises()), default=EXACT_DB)

    @property
    def noise(self) -> float:
        """Noise over signal of what decides, summed over the outputs."""
        return sum(self._noises())

    def _noises(self) -> list[float]:
        return [self.moved.get(name, 10 ** (-db / 10)) for name, db in self.sqnr_db.items()]

    @property
    def changed(self) -> float:
        """How many samples' worth of decisions differ, of the output with most of them."""
        return max((self.samples * (1 - self.share(name)) for name in self.equal), default=0.0)

    @property
    def changed_finds(self) -> float | None:
        """The share of things found that differ, of the output with most; None where nothing is looked for but regions of a map.

        No margins tell how many of other samples' will: most of what is near a threshold is nothing in both models.
        """
        found = [name for name, one in self.decisions.items() if one.sparse and self._counts(name)]
        alone = [name for name in found if name not in self.expected and name + REGIONS not in self.equal]
        return max((1 - self.share(name) for name in alone), default=None)

    def share(self, output: str) -> float:
        """Of equal decisions; an output on which no position counted has none that differ."""
        equal, count = self.equal[output].sum(axis=0)
        return float(equal / count) if count else 1.0

    def _list_undecided(self) -> list[str]:
        """Outputs of which nothing counted."""
        return [name for name in self.equal if not name.endswith(REGIONS) and not self._counts(name)]

    def _counts(self, output: str) -> bool:
        """Whether any position of an output counted, in either model's answers: else nothing was decided."""
        return output in self.equal and bool(self.equal[output][:, 1].any())

    def shortfall(self, floor: Floor, *, searched: bool = False) -> float:
        """How far below the floor it is: 0 where it holds, else in points of decisions, or decibels."""
        return max((miss.by for miss in self.misses(floor, searched=searched)), default=0.0)

    def is_far_below(self, floor: Floor) -> bool:
        """Whether more samples would hardly bring it to the floor: FAR times the changes that it allows, or FAR_DB."""
        least = 1 - FAR * (1 - floor.decisions)
        if any(self.share(name) < least and not self._is_chance(name, least) for name in self.equal):
            return True
        numbers = (db for name, db in self.sqnr_db.items() if not self._counts(name))
        return any(db < floor.sqnr_db - FAR_DB for db in numbers)

    def misses(self, floor: Floor, *, searched: bool = False) -> list[Miss]:
        """What is below the floor, in words, and by how much.

        Margins of fewer samples than a calibration keeps may be short of the floor by one standard error; of a model that
        was `searched` for among many by these samples, of which one holds by chance, they have to promise one more.  Of a
        stream they are held to the floor itself, unless it has fewer steps than a stretch and they promise less than one change.

        One answer of a few that differs may be chance.  Of fewer samples than one changed decision in which
        would be below the floor, decibels count for classes too, and where margins say that others will differ, these.
        """
        few = self.samples * (1 - floor.decisions) < 1
        errors = 0.0 if self.states else -1.0 if searched else 1.0  # of a stream fewer changes are allowed anyway
        misses = list[Miss]()
        for name, rows in self.equal.items():
            share = self.share(name)
            output = name.removesuffix(REGIONS)
            by_chance = output == name and self._is_chance(name, floor.decisions, searched=searched)
            least = floor.decisions
            if searched and output != name:
                least += _estimate_promise(rows, floor.decisions)
            if share < least and not by_chance:
                what = f"{_format_below(share, least)} {self._counted(name)} of output {output!r}"
                more = f", of what was searched for by so few {100 * least:.2f} %" if least > floor.decisions else ""
                misses.append(
                    Miss(f"{what}, the floor is {100 * floor.decisions:g} %{more}", 100 * (least - share), output)
                )
            elif (likely := self._estimate_share(name, floor, errors)) < (
                least := self._least_expected(floor)
            ) - NEGLIGIBLE and not (self._is_short() and not searched and self.samples * (1 - likely) < 1):
                stream = f", for a stream {100 * least:.2f} %" if self.states else ""
                text = (
                    f"output {output!r}: {_format_below(likely, least)} equal decisions are expected on other samples, "
                    f"since many lie close to another {self._name_of(name)}; "
                    f"the floor is {100 * floor.decisions:g} %{stream}"
                )
                misses.append(Miss(text, 100 * (least - likely), output))
        for name, db in self.sqnr_db.items():
            told = not few or name in self.moved
            decided = self._counts(name) and not self._has_more(name) and (self.decisions[name].sparse or told)
            least = floor.sqnr_db + (CARRIED_DB if name in self.states else 0.0)
            if not decided and db < least:
                what = "carried state" if name in self.states else "output"
                text = f"{what} {name!r} matches float's to {db:.1f} dB, the floor is {least:g} dB"
                misses.append(Miss(text, least - db, name))
        return misses

    def shortfall_by_chance(self, floor: Floor) -> float:
        """How far below the floor it is in points of decisions where that is no miss, since so few samples allow it."""
        return 100 * max((0.0, *(floor.decisions - self._doubted_share(name, floor) for name in self.equal)))

    def doubts(self, floor: Floor) -> list[str]:
        """What is below the floor, in words, where so few samples allow that as chance."""
        missed = {miss.output for miss in self.misses(floor)}
        doubts = [
            f"nothing is decided of output {name!r} on these {self.samples} samples, by float or int8: it was judged by its "
            "numbers alone; give --data in which something is found"
            for name in self._list_undecided()
        ]
        for name in self.equal:
            share = self._doubted_share(name, floor)
            output = name.removesuffix(REGIONS)
            if share < floor.decisions and output not in missed:
                what = "expected equal decisions" if share < self.share(name) else self._counted(name)
                doubts.append(
                    f"{_format_below(share, floor.decisions)} {what} of output {output!r}, where the floor is "
                    f"{100 * floor.decisions:g} %: "
                    f"{self.samples} samples are too few to tell whether that is chance; give more with --data"
                )
        return doubts or self._doubt_few()

    def _doubt_few(self) -> list[str]:
        """What so few decisions leave possible, where all that were judged are equal."""
        decided = [rows for name, rows in self.equal.items() if self._counts(name) and (rows[:, 1] == 1).all()]
        if not decided or self.samples >= FEWEST_TOLD:
            return []
        low, _ = estimate_share_interval(self.samples, self.samples)
        return [
            f"judged on {say_count(self.samples, 'sample')} alone, which leave {100 * low:.0f} % equal decisions possible on "
            "others (95 %): give more with --data, and validate on others"
        ]

    def _doubted_share(self, name: str, floor: Floor) -> float:
        """Of equal decisions on these samples, or to be expected of others where that is less."""
        return min(self.share(name), self._estimate_share(name, floor, 0.0))

    def _estimate_share(self, name: str, floor: Floor, errors: float) -> float:
        """What is to be expected, and standard errors more or less: what chance explains is no finding, and no proof either."""
        if name not in self.expected:
            return 1.0
        expected = self.expected[name]
        share = float(expected.mean())
        # of a model at the floor, but one that is nearly float is far from it, whatever the samples hide
        error = estimate_error(max(floor.decisions, 1 - HIDDEN * (1 - share)), len(expected))
        if errors < 0:  # on few samples no model but float would be proof enough
            error = min(error, (1 - floor.decisions) / 2)
        elif len(expected) >= KEPT_MOST:  # who gives as many as are kept is held to the floor itself
            error = 0.0
        return share + errors * error

    def _is_short(self) -> bool:
        """A stream of so few steps that margins tell little."""
        return bool(self.states) and self.samples < STRETCH

    def _least_expected(self, floor: Floor) -> float:
        """The share of equal decisions to expect: of a stream nearer to all, since errors add up for longer than a stretch."""
        return 1 - (1 - floor.decisions) * (CARRIED_SHARE if self.states else 1.0)

    def _name_of(self, name: str) -> str:
        """What an output says of a sample."""
        if self.states:
            return "decision"
        return "class" if self.decisions[name].blank is None else "text"

    def _has_more(self, name: str) -> bool:
        """Whether an output has numbers beside those that decide: boxes beside scores."""
        return self.decisions[name].anchors is not None

    def _is_chance(self, name: str, floor: float, *, searched: bool = False) -> bool:
        decision = self.decisions.get(name)
        boxes = decision is not None and decision.sparse and decision.rows
        return is_chance(self.equal[name], floor, searched=searched, boxes=boxes)

    def _counted(self, name: str) -> str:
        return "of regions found by both" if name.endswith(REGIONS) else self.decisions[name].counted

    def _say_expected(self, name: str) -> str:
        expected = self.expected[name].mean() if name in self.expected else 1.0
        return (
            f" ({100 * expected:.1f} % expected of others)" if expected < self.share(name) - NOTABLE_DIFFERENCE else ""
        )

    def summary(self) -> str:
        """'100 % equal decisions, 41.2 dB on 64 samples', with what is to be expected of others where that is less."""
        decided = [
            f"{100 * self.share(name):.4g} % {self._counted(name)}{self._say_expected(name)}"
            for name in self.equal
            if self._counts(name)
        ]
        decided += [f"nothing decided in output {name!r}" for name in self._list_undecided()]
        told = dict.fromkeys(decided)  # outputs that say the same, a label and its scores, say it once
        noise = [format_noise(self.worst_db)] if self.sqnr_db or not told else []  # of integers and texts there is none
        return f"{', '.join([*told, *noise])} on {say_count(self.samples, 'sample')}"


def _estimate_promise(rows: Float64, floor: float) -> float:
    """What regions of a map have to promise beyond the floor: a standard error of as many, each counted at several thresholds."""
    return min(estimate_error(floor, int(rows[:, 1].sum()) // TOLD), (1 - floor) / 2)


def _format_below(share: float, least: float) -> str:
    """A share in percent, with as many digits as tell it from one above it."""
    digits = next((n for n in (1, 2, 3) if round(100 * share, n) < round(100 * least, n)), 4)
    return f"{100 * share:.{digits}f} %"


def is_chance(rows: Float64, floor: float, *, searched: bool = False, boxes: bool = False) -> bool:
    """Whether a model that is at the floor gives so many changed answers, or more, with a probability above SURE.

    Of maps, whose positions are many, only a single one that differs is chance, and none of a model that was `searched` for
    by these samples; where all have to be equal, none is.  Of a few `boxes` one may be too many.
    """
    if floor >= 1:
        return False
    if (rows[:, 1] == 1).all():
        changed = int((rows[:, 0] == 0).sum())
        return changed <= 1 or tail_of_binomial(changed, len(rows), 1 - floor) > SURE
    differ, all_of_both = float((rows[:, 1] - rows[:, 0]).sum()), round(float(rows[:, 1].sum()))
    if searched or differ > 2:  # in both models' lists
        return False
    return not boxes or tail_of_binomial(round(differ), all_of_both, 1 - floor) > SURE
