"""Whether native code of a model fits on a device, and the last place to cut a model in two so that its first half does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs
from fcdeploy.native.build import Built, build
from fcdeploy.native.estimate import Estimate, estimate
from fcdeploy.native.one_sample import fill_shapes
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.reading.operators import read_program
from fcdeploy.tables.devices import DEVICES, Device
from fcdeploy.tables.native import CORES
from fcdeploy.transform.cut import Cut, extract_first_half, leave_out_idle

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class DeviceLimits:
    """A device, and the most that a network may take there: bytes of "ram" and "flash", and "ms"; None for no limit."""

    device: Device
    limits: Mapping[str, float | None]


@dataclass(frozen=True)
class Fit:
    """What native code takes on the device, the limits that it misses, and its steps that compute in float."""

    estimate: Estimate
    limits: Mapping[str, float | None]
    floats: tuple[str, ...]

    @property
    def missed(self) -> list[str]:
        """Names of limits; time is held to its slow end."""
        reached = {"ram": self.estimate.ram, "flash": self.estimate.flash, "ms": self.estimate.ms[1]}
        return [name for name, limit in self.limits.items() if limit is not None and reached[name] > limit]


def find_limits(
    device: str | None, example: str, *, ram: int | None, flash: int | None, ms: float | None
) -> DeviceLimits | None:
    """The device of this name with its own memory and flash where no limits are given; None without a device.

    Raises FcdeployError, with the command `example` in the hint, where limits are given without one.
    """
    limits = {"ram": ram, "flash": flash, "ms": ms}
    given = next((name for name, limit in limits.items() if limit is not None), None)
    if device is None and given is not None:
        raise FcdeployError(f"--max-{given} is for --device alone", f"{example} --device stm32f4")
    if device is None:
        return None
    for name, limit in limits.items():
        if limit is not None and not 0 < limit < math.inf:
            raise FcdeployError(
                f"--max-{name} {limit:g} is no limit above 0", f"leave --max-{name} out for the device's own"
            )
    if device not in DEVICES:
        raise FcdeployError(f"--device {device!r} is unknown, expected {', '.join(DEVICES)}", "--device stm32f4")
    row = DEVICES[device]
    own = {"ram": row.ram, "flash": row.flash, "ms": None}
    return DeviceLimits(row, {name: own[name] if limit is None else limit for name, limit in limits.items()})


def build_model(model: ir.Model, shapes: Shapes, device: Device | None) -> Built:
    """Native code of one sample, for the device where one is meant. Raises FcdeployError where an operator has no kernel."""
    pairs = device is None or device.target not in CORES
    return build(read_program(model, "model", fill_shapes(input_specs(model), shapes), pairs=pairs))


def fit(built: Built, to: DeviceLimits) -> Fit:
    """What it takes there."""
    return Fit(estimate(built, to.device), to.limits, tuple(list_float_steps(built.program)))


def find_last_cut(model: ir.Model, cuts: Sequence[Cut], to: DeviceLimits, shapes: Shapes) -> tuple[Cut, Fit]:
    """The last of the cuts whose first half fits, and what that half takes; halves that multiply nothing do not count.

    Raises FcdeployError where none fits, with what the smallest takes, or where no first half can be compiled.
    """
    cuts = leave_out_idle(cuts)
    flash, tried, refused = to.limits["flash"], list[tuple[Cut, Fit]](), list[FcdeployError]()
    for cut in reversed(cuts):
        if flash is not None and cut.weights > flash and cut is not cuts[0]:
            continue
        try:
            found = fit(build_model(extract_first_half(model, cut.tensor), shapes, to.device), to)
        except FcdeployError as error:
            refused.append(error)
            continue
        if not found.missed:
            return cut, found
        tried.append((cut, found))
    if not tried:
        raise refused[0]
    cut, least = min(tried, key=lambda each: each[1].estimate.ram + each[1].estimate.flash)
    needs, beyond = least.estimate, " and ".join(least.missed)
    raise FcdeployError(
        f"no first half fits on {to.device.name}: the smallest, cut behind {cut.node!r}, takes {needs.flash:,} bytes of flash, "
        f"{needs.ram:,} of memory and up to {needs.ms[1]:.3g} ms, beyond the limits of {beyond}",
        "larger limits, or another device",
    )
