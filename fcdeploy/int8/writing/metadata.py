"""The end of an int8 model's making: the lowest versions that can say it, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace

import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.opset import lower_opset, lowest_ir_version, lowest_opset
from fcdeploy.int8.writing.blocked_weights import store_unblocked
from fcdeploy.int8.writing.shared_constants import share_blocks
from fcdeploy.int8.writing.strip import strip
from fcdeploy.proof.saturation import prove_no_saturation
from fcdeploy.records import data_format, fingerprints, origin
from fcdeploy.records import plan as plans
from fcdeploy.records.calibration import Calibration, describe_inputs
from fcdeploy.records.origin import JudgedBy
from fcdeploy.records.plan import Plan
from fcdeploy.runtime import options
from fcdeploy.samples.kept_samples import count_samples, take_run
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import INT8


def finish_model(int8: ir.Model, calibration: Calibration, plan: Plan, judged: JudgedBy | None) -> None:
    """The last changes before the model is written, in place; none of them changes what it computes.

    The lowest opset and IR version that can say it, what it was made from and which samples it knows, what a session of it
    must set, and nothing that follows from the rest.  `judged` is by what it was judged, None of a model that was not.
    """
    store_unblocked(int8.graph)
    share_blocks(int8.graph)
    opset, _ = lowest_opset(int8)
    lower_opset(int8, opset)
    int8.ir_version = lowest_ir_version(int8)
    _write_metadata(int8, calibration, plan, judged)
    if TARGETS[plan.target].pair_limit is None and all(proof.exact_on_x86 for proof in prove_no_saturation(int8)):
        options.drop_option(int8, options.PRECISION)  # it would only cost time
    strip(int8)


def _write_metadata(int8: ir.Model, calibration: Calibration, plan: Plan, judged: JudgedBy | None) -> None:
    """Say in the model what it was made from, and which samples it knows."""
    int8.producer_name, int8.producer_version = "fcdeploy", __version__
    made = {
        "float": calibration.model,
        "data": calibration.data,
        "target": plan.target,
        "effort": plan.effort,
        "costs": plan.costs,
        "plan": plans.digest(plan),
    }
    if (plan.weights, plan.activations) != (INT8.weights, INT8.activations):
        made |= {"weights": plan.weights, "activations": plan.activations}
    if shapes := _find_run_shapes(int8, calibration):
        made[origin.SHAPES] = json.dumps(shapes)
    if judged is not None:
        made[origin.DECIDES] = json.dumps(judged.decides)
        if judged.backgrounds:
            made[origin.BACKGROUNDS] = json.dumps(dict(judged.backgrounds))
    int8.metadata_props[origin.KEY] = origin.to_text(made)
    boxes = None if judged is None else judged.boxes
    known = replace(calibration.format, statistics=describe_inputs(calibration), boxes=boxes)
    if known:
        int8.metadata_props[data_format.KEY] = data_format.to_metadata(known)
    weights = sum(value.const_value.nbytes for value in int8.graph.initializers.values() if value.const_value)
    if calibration.samples:  # ranges that were measured elsewhere come without
        int8.metadata_props[fingerprints.KEY] = fingerprints.to_text(calibration.seen, weights)


def _find_run_shapes(int8: ir.Model, calibration: Calibration) -> dict[str, list[int]]:
    """The shapes of a run on the commonest samples that are kept, of inputs that have free lengths besides the samples."""
    inputs = [spec for spec in input_specs(int8) if not spec.state]
    free = any(n is None for spec in inputs for axis, n in enumerate(spec.shape) if axis != spec.sample_axis)
    if not free or not calibration.kept:
        return {}
    most = max(calibration.sample_groups, key=count_samples)
    run = take_run(int8, most)
    return {spec.name: list(run[spec.name].shape) for spec in inputs if 0 not in run[spec.name].shape}
