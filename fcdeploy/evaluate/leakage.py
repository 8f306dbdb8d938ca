"""Evaluation samples that were also calibrated on, which flatter the int8 model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.records.fingerprints import KEY, Sketch, from_text
from fcdeploy.samples.kept_samples import hash_sample
from fcdeploy.samples.source import Batch


@dataclass
class LeakageCheck:
    """Counts evaluation samples that were calibrated on; unless that is `allowed`, the first one is an error.

    `option` is what names the samples that are evaluated on.
    """

    known: Sketch | None
    name: str
    allowed: bool
    option: str = "--data"
    samples: int = 0
    shared: int = 0

    def watch(self, parts: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches while counting. Raises FcdeployError at a sample that was calibrated on and may not be."""
        for part in parts:
            if self.known is not None:
                for i, sample in enumerate(part.names):
                    if self.known.contains(hash_sample(part.sample(i))):
                        self.shared += 1
                        self._refuse(sample)
            self.samples += len(part)
            yield part

    @property
    def warning(self) -> str | None:
        """The warning about samples that were calibrated on, None without any."""
        if not self.shared or self.known is None:
            return None
        least = "" if self.known.complete else "at least "
        return f"{least}{self.shared} of {self.samples} samples were calibrated on: the int8 figures flatter the model"

    def _refuse(self, sample: str) -> None:
        if not self.allowed:
            raise FcdeployError(
                f"{sample} is one of the samples that {self.name!r} was calibrated on, expected others to evaluate it",
                f"{self.option} OTHER, or --same-data to evaluate on them all the same",
            )


def make_leakage_check(model: ir.Model, name: str, *, allowed: bool) -> LeakageCheck:
    """Read a model's calibration fingerprints. Raises FcdeployError where they are damaged and samples must differ."""
    text = model.metadata_props.get(KEY)
    try:
        return LeakageCheck(None if text is None else from_text(text, f"model {name!r}"), name, allowed)
    except FcdeployError:
        if not allowed:
            raise
        return LeakageCheck(None, name, allowed)
