"""Programs of many drawn steps, for kernels that are run on another CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from drawn_layers import bytes_like, coding, layer_of, window_of

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.program.layers import Product, Recurrent
from fcdeploy.native.program.steps import Combine, GlobalAverage, Pointwise, Pool, Program, Quantize, Softmax, Step
from fcdeploy.native.program.tensors import Coding, Tensor


def drawn(seed: int, count: int) -> tuple[Program, dict[str, Any]]:
    """One program of many steps that do not read each other: layers of every kind, and one of each other kernel."""
    random = np.random.default_rng(seed)
    inputs: list[Tensor] = []
    steps: list[Step] = []
    feeds: dict[str, Any] = {}

    def add_input(shape: tuple[int, ...], *, extreme: bool = False, dtype: str = "uint8") -> Tensor:
        tensor = Tensor(f"x{len(inputs)}", shape, dtype, coding(random) if dtype == "uint8" else None)
        inputs.append(tensor)
        if dtype == "uint8":
            feeds[tensor.name] = bytes_like(random, shape, extreme=extreme)
        else:
            values = random.normal(size=shape).astype(np.float32) * 4
            values.reshape(-1)[:3] = np.nan, np.inf, -np.inf
            feeds[tensor.name] = values
        return tensor

    def add(step: Step) -> None:
        steps.append(replace(step, outputs=(replace(step.output, name=f"y{len(steps)}"),)))

    while len(steps) < count:
        extreme, real = bool(random.integers(2)), len(steps) % 5 == 0
        space = tuple(int(n) for n in random.integers(1, 14, random.integers(1, 3)))
        window: Window | None = window_of(random, space)
        kind = len(steps) % 4
        groups = int(random.choice([1, 1, 2, 3]))
        if kind == 0:
            groups = channels = outs = int(random.integers(2, 40))
        elif kind == 1:
            window, groups, space = None, 1, ()
            channels, outs = int(random.integers(1, 200)), int(random.integers(1, 40))
        else:
            channels, outs = (groups * int(n) for n in random.integers(1, 20, 2))
        x = add_input((1, channels, *space), extreme=extreme)
        add(layer_of(random, x, outs, window, groups, extreme=extreme, real=real))
    for n, channels in enumerate(
        (9, 16, 37, 64)
    ):  # windows that have a kernel of their own, beside those that have none
        for stride, gap, extreme in (
            (1, 1, False),
            (2, 1, False),
            (1, 2, n % 2 == 0),
            (2, 2, n % 2 == 1),
            (1, 1, True),
        ):
            window = Window((3, 3), (stride, stride), (1, 1), (1, 1), (gap, gap))
            x = add_input((1, channels, 7, 11), extreme=extreme)
            made = layer_of(random, x, channels, window, channels, extreme=extreme, real=n == 2)
            add(replace(made, weight=np.full_like(made.weight, -128)) if extreme and n == 3 else made)
    to = Tensor("y", (1, 19, 5, 7), "uint8", coding(random))
    for name in ("add", "mul"):
        pair: Any = (add_input(to.shape), add_input(to.shape))
        add(Combine(node="c", inputs=pair, outputs=(to,), kind=name))  # type: ignore[arg-type]
    add(Quantize(node="q", inputs=(add_input(to.shape, dtype="float32"),), outputs=(to,)))
    window = Window((3, 2), (2, 1), (1, 0), (0, 1), (1, 1))
    pooled = replace(to, shape=(1, 19, *window.outputs((5, 7))))
    for name in ("average", "max"):
        add(Pool(node="p", inputs=(add_input(to.shape),), outputs=(pooled,), kind=name, window=window))  # type: ignore[arg-type]
    for channels in (5, 8, 13, 40):  # all lanes of a vector, half of them, and what fills none
        window = Window((3, 2), (1, 2), (2, 0), (0, 1), (1 + channels % 2, 1))
        shape = (1, channels, *window.outputs((5, 7)))
        x = add_input((1, channels, 5, 7))
        add(Pool(node="p", inputs=(x,), outputs=(replace(to, shape=shape),), kind="max", window=window))
    for length, whole in ((1001, -127), (1500, 127), (900, -128)):  # sums of weights beyond 16 bits
        made = layer_of(random, add_input((1, length), extreme=True), 21, None, 1, extreme=True, real=False)
        add(replace(made, weight=np.full_like(made.weight, whole)))
    mean = replace(to, shape=(1, 19, 1, 1))
    add(GlobalAverage(node="g", inputs=(add_input(to.shape),), outputs=(mean,), factor=np.float32(0.03)))
    for rows, length, columns in ((6, 21, 37), (2, 8, 16)):  # some together, and one after the other
        pair = add_input((1, rows, length)), add_input((1, length, columns))
        product = Tensor("y", (1, rows, columns), "uint8", coding(random))
        add(Product(node="p", inputs=pair, outputs=(product,), factor=np.float32(0.002)))
    table = np.exp(-np.arange(256) * 0.05).astype(np.float32)
    likely = Tensor("y", (1, 37), "uint8", Coding(np.float32(1 / 255), 0))
    add(Softmax(node="s", inputs=(add_input((1, 37)),), outputs=(likely,), axis=1, table=table))
    units = 37  # two tiles of them and a part of one, two sixteens of a state and a part of one
    given = add_input((4, 1, 4 * units), dtype="float32")
    feeds[given.name] = np.nan_to_num(feeds[given.name], posinf=1, neginf=-1)
    gates = replace(given, name="gates")  # which are overwritten
    steps.append(Pointwise(node="n", inputs=(given,), outputs=(gates,), kind="Neg"))
    last = (Tensor("state", (1, units), "float32"), Tensor("cell", (1, units), "float32"))
    weight = random.integers(-127, 128, (4 * units, units)).astype(np.int8)
    scale, bias = (random.uniform(0.001, 0.01, 4 * units).astype(np.float32) for _ in range(2))
    states = Tensor("states", (4, 1, units), "float32")
    steps.append(
        Recurrent(
            node="r", inputs=(gates,), outputs=(states, *last), kind="lstm", weight=weight, scale=scale, bias=bias
        )
    )
    outputs = tuple(step.output for step in steps if step.output is not gates)
    return Program("drawn", tuple(inputs), outputs, tuple(steps)), feeds
