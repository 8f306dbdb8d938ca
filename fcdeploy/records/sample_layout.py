"""Along which axis of each input samples lie, as it is said in the metadata of a model where it is not the leading one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fcdeploy.records.signature import TensorSpec

KEY = "fcdeploy.sample_axes"


@dataclass(frozen=True)
class SampleLayout:
    """`axes` of inputs whose samples do not lie along axis 0; `alone` is why a run takes one sample, empty where it need not.

    `states`: inputs that take what an output gave in the run before, and that output.
    """

    axes: Mapping[str, int | None] = field(default_factory=dict)
    alone: str = ""
    states: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.axes or self.alone)

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """The input with what is known of its samples."""
        if not self:
            return spec
        axis, state = self.axes.get(spec.name, 0), self.states.get(spec.name, "")
        return replace(spec, sample_axis=axis, alone=bool(self.alone), state=state)

    def to_text(self) -> str:
        """One JSON object."""
        states = {"states": dict(self.states)} if self.states else {}
        values = {"axes": dict(self.axes), "alone": self.alone, **states}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> SampleLayout:
        """From metadata; what cannot be read says nothing, as that of another tool might."""
        try:
            read = json.loads(text) if text else {}
            axes, alone = read.get("axes", {}), read.get("alone", "")
            known = {
                str(name): axis for name, axis in axes.items() if axis is None or (type(axis) is int and 0 <= axis < 64)
            }
            states = {str(name): out for name, out in read.get("states", {}).items() if isinstance(out, str)}
        except (ValueError, AttributeError, RecursionError):
            return SampleLayout()
        return SampleLayout(known, alone if isinstance(alone, str) else "", states)
