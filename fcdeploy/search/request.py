"""What `quantize` was asked for, and whether it can be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.errors import FcdeployError, find_close
from fcdeploy.files import check_output
from fcdeploy.graph.external_data import weights_path
from fcdeploy.graph.weights import is_large
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.native.device_limits import DeviceLimits
from fcdeploy.records.plan import EFFORTS, Effort
from fcdeploy.samples.kinds import Samples
from fcdeploy.search.goal import AccuracyGoal, check_goal
from fcdeploy.tables.targets import Target
from fcdeploy.tables.types import Types


@dataclass(frozen=True)
class Request:
    """What `quantize` was asked for. `target_name` is the row's name or "host"; fields that are None were left out."""

    model: Path
    output: Path
    target: Target
    types: Types
    target_name: str
    samples: Samples | None
    calibration: str | Path | None
    ranges: str | None
    effort: Effort | None
    keep_float: tuple[str, ...]
    runtimes: tuple[str, ...]
    plan: str | Path | None
    save_plan: str | Path | None
    costs: str | Path | None
    goal: AccuracyGoal | None
    limits: DeviceLimits | None
    native: bool
    dry_run: bool
    floor: Floor | None
    accept: bool
    force: bool
    batch_axes: Mapping[str, int | None]
    states: Mapping[str, str]


def check_request(request: Request, output: object) -> None:
    """Raise FcdeployError where something is missing, unknown or of no use."""
    if request.goal is not None:
        check_goal(request.goal, request.types)
    if request.samples is None and not request.calibration and request.types.between:
        raise FcdeployError(
            "there is nothing to take ranges from: neither --data nor --calibration was given",
            "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx",
        )
    if not output and not request.dry_run:
        raise FcdeployError("there is no output: -o was not given", "-o int8.onnx, or --dry-run to see the plan")
    for option, value, known in (("--ranges", request.ranges, METHODS), ("--effort", request.effort, EFFORTS[1:])):
        if value is not None and value not in known:
            raise FcdeployError(
                f"{option} {value!r} is unknown, expected {', '.join(known)}",
                f"{option} {find_close(value, known) or next(iter(known))}",
            )
    by_plan, max_drop = request.plan is not None, request.goal and request.goal.max_drop
    refuse_ignored("--plan decides already", not by_plan, ranges=request.ranges, costs=request.costs, max_drop=max_drop)
    why = "--dry-run writes nothing, and --json prints the plan"
    refuse_ignored(why, not request.dry_run, save_plan=request.save_plan, device=request.limits)


def refuse_ignored(why: str, used: bool, **options: object) -> None:
    """Raise FcdeployError at an option that was given and would be ignored."""
    ignored = [f"--{key.replace('_', '-')}" for key, value in options.items() if value is not None and not used]
    if ignored:
        raise FcdeployError(f"{ignored[0]} would be ignored: {why}", f"leave {ignored[0]} out")


def check_outputs(request: Request, model: ir.Model, files: tuple[Path, ...]) -> None:
    """Raise FcdeployError where an output exists, cannot be written, or is one of the inputs."""
    samples, goal = request.samples, request.goal
    read = (samples and samples.data, request.calibration, request.plan, request.costs, goal and goal.samples.data)
    inputs = (*files, *(Path(file) for file in read if file))
    written = [request.output, *([weights_path(request.output)] if is_large(model) else [])]
    for file in (*written, *([Path(request.save_plan)] if request.save_plan else [])):
        check_output(file, force=request.force, inputs=inputs)
