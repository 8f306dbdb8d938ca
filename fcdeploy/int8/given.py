"""What quantizing starts from, and the two things that are made of it again and again: a plan and its int8 model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.int8.planning import plan_graph
from fcdeploy.int8.planning.weigh import round_layers
from fcdeploy.int8.rewrite import rewrite
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import Target


@dataclass(frozen=True)
class Given:
    """What planning starts from: the model's file, prepared, its statistics, and what the user asked for."""

    file: Path
    graph: ir.Model
    recorded: Calibration
    samples: dict[str, Any]
    row: Target
    ranges: str
    keep_float: tuple[str, ...]

    def plan(self, slow: Mapping[str, str], one_scale: Sequence[str] = ()) -> Plan:
        """The plan that leaves the nodes of `slow` in float; the weights of `one_scale` have one for all channels."""
        return plan_graph(
            self.graph,
            self.recorded,
            self.row,
            ranges=self.ranges,
            keep_float=self.keep_float,
            slow=slow,
            one_scale=one_scale,
        )

    def build(self, plan: Plan, *, correctable: bool = False) -> ir.Model:
        """The int8 model of a plan, biases not corrected."""
        layers = round_layers(self.graph, plan, self.recorded, self.row.pair_limit, correctable=correctable)
        int8 = self.graph.clone()
        rewrite(int8, plan, layers)
        return int8
