"""What native code takes on a device: flash, memory, and about how long.  Answered from the calls; nothing is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fcdeploy.native.amounts import count_amounts
from fcdeploy.native.build import Built
from fcdeploy.native.calls.call import KernelCall
from fcdeploy.tables.device_costs import COSTS
from fcdeploy.tables.devices import Device
from fcdeploy.tables.native import Cost, Costs


@dataclass(frozen=True)
class CallEstimate:
    """One call of a kernel and the instructions that it is likely to take."""

    node: str
    what: str
    kernel: str
    macs: int
    instructions: int


@dataclass(frozen=True)
class Estimate:
    """Bytes of flash (code, weights) and of memory (the arena, inputs and outputs, the stack), and instructions by call."""

    device: Device
    code: int
    weights: int
    arena: int
    ends: int
    stack: int
    calls: tuple[CallEstimate, ...]

    @property
    def flash(self) -> int:
        return self.code + self.weights

    @property
    def ram(self) -> int:
        return self.arena + self.ends + self.stack

    @property
    def instructions(self) -> int:
        return sum(call.instructions for call in self.calls)

    @property
    def ms(self) -> tuple[float, float]:
        """Milliseconds of a run, at best and at worst."""
        once = self.instructions / (self.device.mhz * 1e3)
        fast, slow = self.device.cycles
        return once * fast, once * slow


def estimate(built: Built, device: Device) -> Estimate:
    """What the network needs on the device."""
    costs, program = COSTS[device.kernels], built.program
    parts = {
        call: call.parts or (call,) for call in built.calls
    }  # what is combined in a layer is counted as two kernels
    used = {each.kernel: find_cost(each.kernel, costs) for several in parts.values() for each in several}
    calls = tuple(
        CallEstimate(
            call.node,
            call.what,
            call.kernel,
            call.macs,
            sum(count_instructions(each, used[each.kernel], costs) for each in several),
        )
        for call, several in parts.items()
    )
    code = costs.routines + costs.call * len(calls) + sum(_count_code(kernel, used, costs) for kernel in used)
    ends = sum(tensor.nbytes for tensor in (*program.inputs, *program.outputs))
    stack = max((cost.stack for cost in used.values()), default=0)
    return Estimate(device, code, len(built.weights), built.arena_bytes, ends, stack, calls)


def find_cost(kernel: str, costs: Costs) -> Cost:
    """The kernel's own row; of one that was not counted, that of its kind which takes most for an element."""
    if kernel in costs.kernels:
        return costs.kernels[kernel]
    kind = "_".join(kernel.split("_")[:2])  # as fc_unary of fc_unary_Tanh
    alike = [row for name, row in costs.kernels.items() if name.startswith(kind)] or list(costs.kernels.values())
    return max(alike, key=lambda cost: cost.element)


def _count_code(kernel: str, used: Mapping[str, Cost], costs: Costs) -> int:
    """Bytes of a kernel; what it shares with the one that writes bytes was counted there, and is its own without that."""
    sibling = kernel.removesuffix("_reals") + "_bytes"
    shared = costs.kernels[sibling].code if sibling in costs.kernels and sibling not in used else 0
    return max(used[kernel].code, shared)


def count_instructions(call: KernelCall, cost: Cost, costs: Costs) -> int:
    products, elements, runs, windows = count_amounts(call, costs.widths)
    each = cost.product * products + cost.element * elements + cost.run * runs + cost.window * windows
    return round(each + cost.once)
