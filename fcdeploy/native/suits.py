"""Is a model one that native code can be made of?  Answered while it is quantized, before it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.problem import Problem
from fcdeploy.native.build import Built
from fcdeploy.native.costs import check_native_costs
from fcdeploy.native.device_limits import DeviceLimits, build_model
from fcdeploy.native.program.float_steps import list_float_steps, warn_of_float_steps
from fcdeploy.records.report import Report
from fcdeploy.runtime.engine import check_engine
from fcdeploy.samples.kept_samples import take_run
from fcdeploy.tables.types import INT8, WEIGHT_ONLY, Types
from fcdeploy.wording import say_count


def is_native(engine: str, types: Types, costs: str | Path | None, limits: DeviceLimits | None) -> bool:
    """Whether `engine` is native code.

    Raises FcdeployError where it is unknown, where these types have no kernels there, and at `costs` that there are not.
    """
    check_engine(engine)
    if engine != "native":
        return False
    if types != INT8:
        raise FcdeployError(
            f"native code has no kernels of --weights {types.weights} --activations {types.activations}",
            "--int8, or leave --engine native out",
        )
    check_native_costs(costs, None if limits is None else limits.device.name)
    return True


def use_types(types: Types, *, native: bool) -> Types:
    """What layers become: native code has an LSTM on stored weights, and none that scales its activations in every run."""
    return replace(types, recurrent=WEIGHT_ONLY) if native else types


def find_lengths(int8: ir.Model, problem: Problem) -> dict[str, tuple[int, ...]]:
    """The shapes of one sample for inputs with free axes behind the first."""
    inputs, one = input_specs(int8), take_run(problem.model, problem.samples) if problem.samples else {}
    shapes = {name: array.shape for name, array in one.items()}
    return {spec.name: shapes[spec.name] for spec in inputs if None in spec.shape[1:] and spec.name in shapes}


def build_native(int8: ir.Model, problem: Problem, limits: DeviceLimits | None) -> Built:
    """What native code of the model would be, for one sample, on the device where one is meant.

    Raises FcdeployError at a node without a kernel.
    """
    return build_model(int8, find_lengths(int8, problem), None if limits is None else limits.device)


def add_native(report: Report, built: Built) -> Report:
    """The report with what native code takes, in front of its last line."""
    floats = list_float_steps(built.program)
    values = {
        "steps": len(built.calls), "float_steps": floats, "macs": built.program.macs,
        "flash_weight_bytes": len(built.weights), "arena_bytes": built.arena_bytes,
    }  # fmt: skip
    steps = say_count(len(built.calls), "step")
    line = (
        f"native code: {steps}, {len(floats) or 'none'} of them in float, {len(built.weights):,} bytes of weights, "
        f"arena {built.arena_bytes:,} bytes"
    )
    said = [f"native code: {warning}" for warning in warn_of_float_steps(floats)]
    return report.extend(values={"native": values}, lines=[line], warnings=said)
