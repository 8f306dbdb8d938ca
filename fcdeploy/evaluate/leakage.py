"""Evaluation samples that were also calibrated on, which flatter the int8 model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.errors import FcdeployError
from fcdeploy.records.fingerprints import KEY, Sketch, from_text
from fcdeploy.samples.kept_samples import hash_sample
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.wording import say_count

# Of the samples that a sketch decides on, the share that may have been calibrated on before the others are left out too: rows
# that a table holds twice are as many without anybody's mistake. It estimates the share among the others, and does not bound it.
TOLERATED = 0.1
CHANCE = (
    0.1  # samples are strict where so many, or more, are found this rarely if just TOLERATED of all were calibrated on
)


@dataclass
class LeakageCheck:
    """Finds evaluation samples that were calibrated on: they are left out, unless they are `allowed`.

    Where `strict`, those that the model's sketch does not decide on are left out too; else a share of them is `likely` to have
    been calibrated on.  `option` is what names the samples
    that are evaluated on; `first` the first one that was calibrated on.
    """

    known: Sketch | None
    name: str
    allowed: bool
    option: str = "--data"
    strict: bool = False
    likely: float = 0.0
    samples: int = 0
    shared: int = 0
    left_out: int = 0
    first: str = ""

    @property
    def asks(self) -> bool:
        """Whether all samples must be looked at first, since the model does not record all that it was calibrated on."""
        return self.known is not None and not self.known.complete and not self.allowed

    def count(self, part: Batch) -> tuple[int, int]:
        """Of how many samples of a batch the record decides, and how many of these were calibrated on."""
        if self.known is None:
            return 0, 0
        numbers = [hash_sample(part.sample(i)) for i in range(len(part))]
        return sum(map(self.known.decides, numbers)), sum(map(self.known.contains, numbers))

    def settle(self, decided: int, found: int) -> LeakageCheck:
        """The check for samples that were counted so: strict where too many of them were calibrated on."""
        strict = found > 0 and tail_of_binomial(found, decided, TOLERATED) < CHANCE + 1e-9
        return replace(self, strict=strict, likely=found / decided if found else 0.0)

    def take(self, part: Batch) -> Batch | None:
        """What of a batch is evaluated on, None where nothing is; counted."""
        found, unknown = self._find(part)
        kept = self._leave_out(part, found, unknown)
        self.samples += len(part)
        self.shared += len(found)
        self.left_out += len(part) - (len(kept) if kept is not None else 0)
        self.first = self.first or (part.names[found[0]] if found else "")
        return kept

    def keep(self, part: Batch) -> Batch | None:
        """What `take` returns, not counted."""
        return self._leave_out(part, *self._find(part))

    def _leave_out(self, part: Batch, found: Sequence[int], unknown: Sequence[int]) -> Batch | None:
        """The batch without samples that were calibrated on; whole or not at all where a run takes so many, whole in a stream."""
        out = {*found, *(unknown if self.strict else ())}
        if self.allowed or not out or any(spec.state for spec in part.specs):
            return part
        left = [i for i in range(len(part)) if i not in out]
        return part.pick(left) if left and get_fixed_batch(part.specs) is None else None

    def begin(self) -> LeakageCheck:
        """The same check, nothing counted."""
        return replace(self, samples=0, shared=0, left_out=0, first="")

    def add(self, later: LeakageCheck) -> None:
        """Count what another one counted of samples that follow."""
        self.samples += later.samples
        self.shared += later.shared
        self.left_out += later.left_out
        self.first = self.first or later.first

    @property
    def warning(self) -> str | None:
        """The warning about samples that were calibrated on, None without any."""
        if not self.shared or self.known is None:
            return None
        least = "" if self.known.complete else "at least "
        counted = f"{least}{self.shared} of {say_count(self.samples, 'sample')} were calibrated on"
        if self.left_out:
            others = ", and as many, in proportion, of those that its record is too small for" if self.strict else ""
            rest = (
                f", and about {100 * self.likely:.2g} % of the others may have been too"
                if self.likely and not self.strict
                else ""
            )
            return f"{counted}{others}: {self.left_out} are left out{rest}"
        return f"{counted}: the int8 figures flatter the model"

    def make_error(self) -> FcdeployError:
        """Nothing is left to evaluate on."""
        recorded = "" if self.known is None or self.known.complete else ", as far as it records them"
        return FcdeployError(
            f"{self.first} is one of the samples that {self.name!r} was calibrated on, and so are all others{recorded}, "
            "expected others to evaluate it",
            f"{self.option} OTHER, or --same-data to evaluate on them all the same",
        )

    def _find(self, part: Batch) -> tuple[list[int], list[int]]:
        """The samples of a batch that were calibrated on, and those that the sketch does not decide on."""
        if self.known is None:
            return [], []
        numbers = [hash_sample(part.sample(i)) for i in range(len(part))]
        found = [i for i, number in enumerate(numbers) if self.known.contains(number)]
        return found, [i for i, number in enumerate(numbers) if not self.known.decides(number)]


def make_leakage_check(model: ir.Model, name: str, *, allowed: bool) -> LeakageCheck:
    """Read a model's calibration fingerprints. Raises FcdeployError where they are damaged and samples must differ."""
    text = model.metadata_props.get(KEY)
    try:
        return LeakageCheck(None if text is None else from_text(text, f"model {name!r}"), name, allowed)
    except FcdeployError:
        if not allowed:
            raise
        return LeakageCheck(None, name, allowed)
