"""Do the kernels that run agree with the plan?"""

from __future__ import annotations

from collections.abc import Sequence

from fcdeploy.errors import FcdeployError
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.kernels import INTEGER_KERNELS, Kernel
from fcdeploy.runtime.session import read_versions


def check_kernels(kernels: Sequence[Kernel], plan: Plan) -> None:
    """Raise FcdeployError where a node that the plan leaves in float runs in an integer kernel: a fault of ours."""
    floats = {decision.node: decision for decision in plan.nodes if decision.kind in ("float", "weight_only")}
    for kernel in kernels:
        computes = kernel.kernel.startswith("QLinear") or kernel.kernel in INTEGER_KERNELS
        if computes and kernel.node in floats:
            why = floats[kernel.node].why
            raise FcdeployError(
                f"node {kernel.node!r}, a {kernel.op}, is to stay float ({why}), but onnxruntime "
                f"{read_versions()['onnxruntime']} runs {kernel.kernel}: a fault of fcdeploy",
                "please report it with the model",
            )
