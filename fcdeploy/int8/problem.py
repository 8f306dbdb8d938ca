"""What quantizing starts from, and the two things that are made of it again and again: a plan and its int8 model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.graph.model import read_model
from fcdeploy.graph.scratch import Scratch
from fcdeploy.graph.weights import initializer_bytes, is_large
from fcdeploy.int8.planning.plan_graph import Overrides, plan_graph
from fcdeploy.int8.planning.stored_biases import shift_stored_biases
from fcdeploy.int8.planning.types import round_packed_layers
from fcdeploy.int8.planning.weights import round_layers
from fcdeploy.int8.writing.rewrite import rewrite
from fcdeploy.records.calibration import Calibration, flatten_stretches
from fcdeploy.records.plan import Effort, Plan
from fcdeploy.runtime import options
from fcdeploy.samples.source import Source
from fcdeploy.tables.targets import Target
from fcdeploy.tables.types import INT8, Types

NO_SAMPLES = "the calibration carries no samples, and there is no --data"


@dataclass(frozen=True)
class Problem:
    """What planning starts from: the model's file, prepared, its statistics, and what the user asked for.

    `samples` are those on which tools may run the model: none where it is too large for that; `judged` are groups of one
    shape each, of streams stretches of steps, on which the result is judged, `unseen` says that no tool has seen these, and
    `ranges_apart` that no range was measured on them.  `source`, of which they are a few, is there where DATA was given.
    `own_ranges` are methods of tensors for which another than `ranges` is better (search/by_tensor.py).
    `rescaled` are the factors that the channels of `model` were divided by, `absorbed` what was taken off them then.
    `scratch` is where weights lie that should not be in memory.  `left_float` are nodes that cannot be integers with this
    runtime, with the reason.
    """

    file: Path
    model: ir.Model
    calibration: Calibration
    samples: Arrays
    target: Target
    ranges: str
    keep_float: tuple[str, ...]
    types: Types = INT8
    effort: Effort = "balanced"
    source: Source | None = None
    judged: tuple[Arrays, ...] = ()
    unseen: bool = False
    ranges_apart: bool = False
    own_ranges: Mapping[str, str] = field(default_factory=dict)
    rescaled: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    absorbed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scratch: Scratch | None = None
    left_float: Mapping[str, str] = field(default_factory=dict)

    @property
    def large(self) -> bool:
        """Whether its weights should be in memory block by block only."""
        return is_large(self.model)

    @property
    def unseen_samples(self) -> Arrays:
        """Those of the first group that is judged, steps of a stream too; the tools' where nothing is judged."""
        if not self.judged:
            return self.samples
        return flatten_stretches(self.judged[0]) if self.calibration.states else self.judged[0]

    @property
    def why_not_run(self) -> str:
        """Why there are no samples to run the model on."""
        if self.large:
            return f"the weights take {initializer_bytes(self.model) / 1e9:.1f} GB, and running the model takes more"
        if self.calibration.kept:
            return "the samples that a calibration keeps do not fill the batch of the model"
        return NO_SAMPLES

    def load_original(self) -> Path | ir.Model:
        """The float model as its file has it; with a scratch its weights lie in files, and no session copies them."""
        if self.scratch is None:
            return self.file
        model = read_model(self.file)
        self.scratch.settle(model)
        return model

    def plan(self, overrides: Overrides | None = None) -> Plan:
        """The plan by what was asked for and what is decided of nodes already."""
        overrides = overrides or Overrides()
        overrides = replace(overrides, stored={**overrides.stored, **self.left_float})
        return plan_graph(
            self.model, self.calibration, self.target,
            ranges=self.ranges, own_ranges=self.own_ranges, keep_float=self.keep_float, types=self.types,
            overrides=overrides,
        )  # fmt: skip

    def build(self, plan: Plan, *, correctable: bool = False) -> ir.Model:
        """The int8 model of a plan, biases not corrected."""
        limit, scratch = self.target.pair_limit, self.scratch
        layers = round_layers(self.model, plan, self.calibration, limit, correctable=correctable, scratch=scratch)
        others = round_packed_layers(self.model, plan, self.calibration, limit, scratch=scratch)
        int8 = self.model.clone()
        shift_stored_biases(int8, plan, self.calibration)
        rewrite(int8, plan, {**layers, **others}, scratch=scratch)
        if limit is None:  # whatever runs it adds as the target's kernels do, which this CPU's may not
            options.write_options(int8, {options.PRECISION: "1"})
        return int8
