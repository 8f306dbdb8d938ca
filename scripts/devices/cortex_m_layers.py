"""Instructions that one multiply-accumulate of a layer takes on emulated Cortex-M boards, bias, scaling and stores among them."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from drawn_layers import coding, layer_of

from fcdeploy.native.build import build
from fcdeploy.native.program.steps import Program, Step
from fcdeploy.native.program.tensors import Tensor
from scripts.devices.device_costs import CORES, count_steps, same

BOARDS = ("dsp", "mve")
CONVOLUTIONS = (
    (1, 16, 32, 8),
    (1, 64, 64, 8),
    (1, 128, 128, 6),
    (3, 3, 16, 8),
    (3, 16, 16, 8),
    (3, 32, 32, 8),
    (3, 64, 64, 6),
)
"""(rows and columns of the window, channels in, channels out, rows and columns of the image)."""

DENSE = ((64, 32), (128, 128), (264, 128), (640, 128))


def convolution(random: np.random.Generator, kernel: int, channels: int, outs: int, size: int) -> Step:
    x = Tensor("x", (1, channels, size, size), "uint8", coding(random))
    return layer_of(random, x, outs, same(kernel), 1, extreme=False, real=False)


def dense(random: np.random.Generator, channels: int, outs: int) -> Step:
    return layer_of(
        random, Tensor("x", (1, channels), "uint8", coding(random)), outs, None, 1, extreme=False, real=False
    )


def main() -> int:
    """Print a row for each layer."""
    random = np.random.default_rng(0)
    drawn = {f"{k} x {k}, {a} to {b} channels": convolution(random, k, a, b, size) for k, a, b, size in CONVOLUTIONS}
    drawn |= {f"dense, {a} to {b}": dense(random, a, b) for a, b in DENSE}
    steps = [
        replace(step, inputs=(replace(step.inputs[0], name=f"x{n}"),), outputs=(replace(step.output, name=f"y{n}"),))
        for n, step in enumerate(drawn.values())
    ]
    built = build(Program("net", tuple(s.inputs[0] for s in steps), tuple(s.output for s in steps), tuple(steps)))
    kernels = [i for i, call in enumerate(built.calls) if call.macs]

    counted = {}
    for core in (each for each in CORES if each.name in BOARDS):
        with tempfile.TemporaryDirectory() as temporary:
            counted[core.name], _ = count_steps(built, core, Path(temporary))
    click.echo(f"{'instructions a product':<32}" + "".join(f"{name:>8}" for name in counted))
    for what, at in zip(drawn, kernels, strict=True):
        shares = [each[at] / built.calls[at].macs for each in counted.values()]
        click.echo(f"{what:<32}" + "".join(f"{share:>8.3f}" for share in shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
