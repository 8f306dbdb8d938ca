"""The order of stored weights: against convolutions of torch on drawn inputs, and what it is for, a file that holds a floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from networks import Net, in_memory, name_everything, random_data

from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.planning.weight_noise import order_by_noise
from fcdeploy.int8.problem import Problem
from fcdeploy.runtime.cpu import find_target
from fcdeploy.search.builder import begin_building
from fcdeploy.search.by_place import leave_all, leave_by_place
from fcdeploy.search.ladder import Forms, Score

READ, SPACE = 8, 7


def layers(seed: int) -> tuple[dict[str, np.ndarray], Problem]:
    """Layers side by side on one input whose channels differ, each with a weight that makes its steps coarse in its own way."""
    random, net, weights = np.random.default_rng(seed), Net(), dict[str, np.ndarray]()
    net.input("x", READ, SPACE, SPACE)
    for name, outputs, coarse in (("fine", 32, 1.0), ("coarse", 32, 9.0), ("large", 96, 12.0), ("coarsest", 32, 60.0)):
        weight = random.normal(size=(outputs, READ, 3, 3)).astype(np.float32)
        weight[:, random.integers(READ), 0, 0] *= coarse
        weights[name] = weight
        net.output(net.op("Conv", "x", net.constant(weight), name=name))
    data = random_data(seed, 64, x=[READ, SPACE, SPACE])["x"] * np.exp(random.normal(size=(READ, 1, 1)))
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    calibration = observe(model, in_memory({"x": data.astype(np.float32)}, model), model_hash="test")
    return weights, Problem(Path("none"), model, calibration, {}, find_target("host"), "mse", ())


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_noise_on_drawn_inputs(seed: int) -> None:
    """Noise over signal of each layer's output, but for its mean, over the number of its weights."""
    weights, problem = layers(seed)
    plan = problem.plan(Overrides(dict.fromkeys(weights, "for the test")))
    x = torch.tensor(problem.calibration.kept["x"])
    worth = {}
    for name, weight in weights.items():
        node = next(node for node in problem.model.graph if node.name == name)
        scale = np.float32(plan.tensors[node.inputs[1].name].scale)[:, None, None, None]  # type: ignore[union-attr,index]
        rounded = np.clip(np.rint(weight / scale), -127, 127) * scale
        real, error = (torch.nn.functional.conv2d(x, torch.tensor(each)) for each in (weight, rounded - weight))
        noise, signal = (each.var(dim=(0, 2, 3)).sum().item() for each in (error, real))
        worth[name] = noise / signal / weight.size
    expected = sorted(worth, key=lambda name: -worth[name])
    assert order_by_noise(problem.model, plan, problem.calibration) == expected


def test_no_more_weights_than_needed_get_16_bits() -> None:
    """Of a floor that asks for 16 bits of one layer's weights, with everything in float, the others stay in 8."""
    weights, problem = layers(0)
    builder = begin_building(problem, None)

    def measure(forms: Forms) -> Score:
        held = len(forms) == len(weights) and forms["coarsest"] == "wide"
        return Score(0.0 if held else 1.0, 0.0, builder.cost(forms))

    held = leave_by_place(builder, measure)
    assert held is not None
    assert held.forms == {**dict.fromkeys(weights, "bytes"), "coarsest": "wide"}


def test_what_16_bits_cannot_hold_is_no_choice() -> None:
    _, problem = layers(1)
    assert leave_by_place(begin_building(problem, None), lambda _: Score(1.0, 1.0, 1.0)) is None


@pytest.mark.parametrize("sure", [True, False], ids=["16 bits leave none", "16 bits leave it too"])
def test_doubt_is_worth_16_bits_where_they_end_it(sure: bool) -> None:
    """A floor that weights of 8 bits hold as few samples tell, and those of 16 for certain, or no better."""
    weights, problem = layers(2)
    builder = begin_building(problem, None)

    def measure(forms: Forms) -> Score:
        told = sure and forms.get("coarsest") == "wide"
        return Score(0.0, 0.0, builder.cost(forms), 0.0 if told else 0.2)

    held = leave_all(builder, measure)
    assert held is not None
    assert held.forms == {**dict.fromkeys(weights, "bytes"), **({"coarsest": "wide"} if sure else {})}
