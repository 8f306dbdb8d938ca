"""Along which axis of each input samples lie, as it is said in the metadata of a model where it is not the leading one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fcdeploy.records.signature import TensorSpec

KEY = "fcdeploy.sample_axes"


@dataclass(frozen=True)
class SampleLayout:
    """`axes` of inputs whose samples do not lie along axis 0; `alone` is why a run takes one sample, empty where it need not."""

    axes: Mapping[str, int | None] = field(default_factory=dict)
    alone: str = ""

    def __bool__(self) -> bool:
        return bool(self.axes or self.alone)

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """The input with what is known of its samples."""
        return replace(spec, sample_axis=self.axes.get(spec.name, 0), alone=bool(self.alone)) if self else spec

    def to_text(self) -> str:
        """One JSON object."""
        return json.dumps({"axes": dict(self.axes), "alone": self.alone}, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> SampleLayout:
        """From metadata; what cannot be read says nothing, as that of another tool might."""
        try:
            read = json.loads(text) if text else {}
            axes, alone = read.get("axes", {}), read.get("alone", "")
            known = {
                str(name): axis for name, axis in axes.items() if axis is None or (type(axis) is int and 0 <= axis < 64)
            }
        except (ValueError, AttributeError, RecursionError):
            return SampleLayout()
        return SampleLayout(known, alone if isinstance(alone, str) else "")
