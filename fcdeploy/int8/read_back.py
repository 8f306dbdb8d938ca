"""What was written, run: does it load, and do the kernels agree with the plan?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import read_model, save_model
from fcdeploy.int8.problem import Problem
from fcdeploy.records import sample_layout
from fcdeploy.records.data_format import from_metadata
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.kernels import Kernel, find_kernels, is_integer_kernel
from fcdeploy.runtime.session import LoadOptions, Session, read_versions
from fcdeploy.samples.kept_samples import take_run

GROWN = 1.02  # of the float file: less is scales and names
OVERHEAD = 16384  # bytes of the same, of small networks


@dataclass(frozen=True)
class Written:
    """An int8 file that is not in place yet, its bytes, and those of the float model."""

    file: Path
    bytes: int
    float_bytes: int


def run_and_read_back(file: Path, problem: Problem, plan: Plan) -> tuple[Kernel, ...]:
    """The kernels that run a file. Raises FcdeployError where it does not load or run, or they are not those of the plan."""
    session = Session(file, threads=1, load=LoadOptions(prepack=not problem.large))
    if problem.samples and not problem.large:
        session.run(take_run(problem.model, problem.samples))
    del session  # before it is loaded once more
    kernels = find_kernels(file)
    check_kernels(kernels, plan)
    return kernels


def check_kernels(kernels: Sequence[Kernel], plan: Plan) -> None:
    """Raise FcdeployError where a node that the plan leaves in float runs in an integer kernel: a fault of ours."""
    floats = {decision.node: decision for decision in plan.nodes if decision.kind in ("float", "weight_only")}
    for kernel in kernels:
        if is_integer_kernel(kernel.kernel) and kernel.node in floats:
            why = floats[kernel.node].why
            raise FcdeployError(
                f"node {kernel.node!r}, a {kernel.op}, is to stay float ({why}), but onnxruntime "
                f"{read_versions()['onnxruntime']} runs {kernel.kernel}: a fault of fcdeploy",
                "please report it with the model",
            )


def gains_nothing(int8: ir.Model, plan: Plan) -> bool:
    """Whether nothing was quantized, and the file does not even say how its samples are read."""
    return not (plan.tensors or replace(from_metadata(int8.metadata_props, "the model"), statistics=(), boxes=None))


def warn_of_size(written: Written) -> str:
    """A warning of an int8 file that is larger than the float one by more than what small networks gain by; else empty."""
    if written.bytes <= max(GROWN * written.float_bytes, written.float_bytes + OVERHEAD):
        return ""
    ratio = written.bytes / written.float_bytes
    return (
        f"the file is larger than the float one, {ratio:.2f} of it: what other nodes than layers read of the weights, such as "
        "bodies of Loop and If, stays in it as floats, beside the integers"
    )


def leave_as_it_was(file: Path, int8: ir.Model, aside: Path) -> None:
    """The float file, with nothing but what later commands need to know of its samples."""
    if sample_layout.KEY not in int8.metadata_props:
        shutil.copyfile(file, aside)
        return
    model = read_model(file)
    model.metadata_props[sample_layout.KEY] = int8.metadata_props[sample_layout.KEY]
    save_model(model, aside)
