"""An int8 model whose weights and biases are learnt together on samples, where torch is installed (pytorch/reconstruction.py)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.weights.layout import from_rows, pack_blocks, to_rows, unpack_blocks
from fcdeploy.arithmetic.weights.pair_bound import enforce_pair_limit
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.graph.edit import set_constant
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import bias_of, constant_array, name_of, output_axis, tensors_of, weight_of
from fcdeploy.int8.nodes import is_depthwise
from fcdeploy.int8.planning.types import bits_of
from fcdeploy.int8.planning.weights import bias_name, find_int8_layers, round_bias
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.plan import LIMITS, Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import count_samples, split_into_chunks
from fcdeploy.samples.source import get_fixed_batch

if TYPE_CHECKING:
    from fcdeploy.pytorch.reconstruction import RoundedWeight

NEEDS = "torch is not installed: pip install 'fcdeploy[export]'"
LEAST = 32  # samples: what is learnt on fewer is theirs alone
MOST_WORK = 1e12  # multiplications in all, backward passes counted: some minutes of one core
STEPS = 2000  # at most
BATCHES = (32, 16, 8)  # samples of a step: the first of which there are ENOUGH steps
ENOUGH, FEWEST = 1000, 300  # steps
BACKWARD = 3  # a step's multiplications over those of a run
SAME = 1e-3  # of the largest answer: by more torch computes another function
PACKED, SCALES, BIAS = 1, 2, 5  # inputs of MatMulNBits


def is_installed() -> bool:
    """Whether there is torch."""
    return importlib.util.find_spec("torch") is not None


def count_steps(model: ir.Model) -> tuple[int, int]:
    """How many steps of how many samples MOST_WORK is, 0 where that is too few."""
    macs = max(sum(count_macs_by_node(model).values()), 1)
    for batch in BATCHES:
        steps = int(MOST_WORK / (BACKWARD * batch * macs))
        if steps >= ENOUGH or batch == BATCHES[-1]:
            return (min(steps, STEPS) if steps >= FEWEST else 0), batch
    raise AssertionError("there are batches")


def why_not_reconstructed(model: ir.Model, samples: Arrays) -> str:
    """Why the weights of a network cannot be learnt on these samples; empty where they can."""
    if not is_installed():
        return NEEDS
    count = count_samples(samples) if samples else 0
    if count < LEAST:
        return f"tools may run {count} samples, and what is learnt on fewer than {LEAST} is of no use to others"
    if not count_steps(model)[0]:
        return "a network of so many multiplications takes too long"
    from fcdeploy.pytorch.graph_run import why_not_run
    from fcdeploy.pytorch.reconstruction import run_float

    if why := why_not_run(list(model.graph)):
        return why
    few = {name: array[: get_fixed_batch(input_specs(model)) or 2] for name, array in samples.items()}
    session = Session(model)
    answers = [session.run(chunk) for _, chunk in split_into_chunks(model, few)]
    truth = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    try:
        ours = run_float(model.graph, few)
    except (RuntimeError, IndexError, TypeError) as error:  # a graph made for one sample alone
        return f"torch does not run it on samples beside each other ({str(error).splitlines()[0][:80]})"
    alike = all(_is_same(ours[name], y) for name, y in zip(session.outputs, truth, strict=True))
    return "" if alike else "torch computes other numbers than onnxruntime"


def _is_same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max(initial=0.0) <= SAME * np.abs(other).max(initial=1e-30))


def reconstruct_layers(
    model: ir.Model,
    int8: ir.Model,
    plan: Plan,
    samples: Arrays,
    *,
    pair_limit: int | None,
    on_step: OnStep | None = None,
) -> int:
    """Learn the weights and biases of `int8` together, in place; return how many layers changed.

    `model` is the prepared float model, `int8` what `rewrite` made of it, rounded and corrected as far as that goes.
    """
    from fcdeploy.pytorch.reconstruction import Network, Rounding, reconstruct

    activations = {name_of(value) for value in tensors_of(model.graph)}
    rounded = {
        name: Rounding(q.scale[0], q.zero_point)
        for name, q in plan.tensors.items()
        if name in activations and q.dtype == "uint8" and not q.pixels
    }
    weights = {**_read_blocks(model, int8, plan), **_read_layers(model, int8, plan)}
    steps, batch = count_steps(model)

    def tell(done: int, total: int) -> None:
        if on_step:
            on_step("reconstructing", done, total)

    learnt = reconstruct(Network(model.graph, rounded, weights), samples, steps, batch, tell) if weights else {}
    for node in model.graph:
        if name_of(node) in learnt and plan.kinds[name_of(node)] == "blockwise":
            _write_block(node, int8, plan, learnt[name_of(node)])
        elif name_of(node) in learnt:
            _write_layer(node, int8, plan, learnt[name_of(node)], pair_limit)
    return len(learnt)


def _read_blocks(model: ir.Model, int8: ir.Model, plan: Plan) -> dict[str, RoundedWeight]:
    """The layers in blocks as they stand."""
    from fcdeploy.pytorch.reconstruction import RoundedWeight

    by_name, found = {node.name: node for node in int8.graph}, {}
    for node in model.graph:
        weight = weight_of(node)
        if plan.kinds[name_of(node)] != "blockwise" or weight is None:
            continue
        q, written, axis = plan.tensors[name_of(weight)], by_name[node.name], output_axis(node)
        rows = to_rows(constant_array(weight), axis)
        integers = unpack_blocks(constant_array(written.inputs[PACKED]), rows.shape[1], bits_of(q))
        scales = constant_array(written.inputs[SCALES]).reshape(len(rows), -1)
        bias = bias_of(node)
        found[name_of(node)] = RoundedWeight(
            rows, integers, scales, None if bias is None else constant_array(bias).reshape(-1), q.block, LIMITS[q.dtype],
            constant_array(weight).shape, axis, free_scales=True,
        )  # fmt: skip
    return found


def _write_block(node: ir.Node, int8: ir.Model, plan: Plan, learnt: RoundedWeight) -> None:
    written = next(each for each in int8.graph if each.name == node.name)
    q = plan.tensors[name_of(weight_of(node))]
    packed, scales = written.inputs[PACKED], written.inputs[SCALES]
    assert packed is not None and scales is not None
    set_constant(packed, pack_blocks(learnt.integers, q.block, bits_of(q)))
    set_constant(scales, learnt.scales.reshape(constant_array(scales).shape))
    bias = written.inputs[BIAS] if len(written.inputs) > BIAS else None
    if learnt.bias is not None and bias is not None:
        set_constant(bias, learnt.bias.reshape(constant_array(bias).shape))


def _read_layers(model: ir.Model, int8: ir.Model, plan: Plan) -> dict[str, RoundedWeight]:
    """The integer layers as they stand, but for those of pixels, whose integers are of other weights."""
    from fcdeploy.pytorch.reconstruction import RoundedWeight

    by_name, found = {node.name: node for node in int8.graph}, {}
    for node, weight in find_int8_layers(model.graph, plan):
        if plan.tensors[name_of(node.inputs[0])].pixels or plan.kinds[name_of(node)] != "int8":
            continue
        q, axis, exact = plan.tensors[name_of(weight)], output_axis(node), constant_array(weight)
        rows = _flatten(exact, axis)
        integers = _find_integers(by_name[node.name], 1)
        unpadded = constant_array(integers)[tuple(map(slice, exact.shape))]  # without channels of zeros
        scales = np.broadcast_to(np.asarray(q.scale, np.float32).reshape(-1, 1), (len(rows), 1))
        scaled = plan.tensors.get(bias_name(node))
        bias = None
        if scaled is not None:
            bias = constant_array(_find_integers(by_name[node.name], 2)).reshape(-1) * np.asarray(scaled.scale)
        found[name_of(node)] = RoundedWeight(
            rows, _flatten(unpadded, axis), scales, bias, rows.shape[1], (-LIMITS[q.dtype][1], LIMITS[q.dtype][1]),
            exact.shape, axis, free_scales=False,
        )  # fmt: skip
    return found


def _write_layer(node: ir.Node, int8: ir.Model, plan: Plan, learnt: RoundedWeight, pair_limit: int | None) -> None:
    written = next(each for each in int8.graph if each.name == node.name)
    held, shape, axis = _find_integers(written, 1), learnt.shape, learnt.axis
    moved = learnt.integers.reshape(shape[axis], *shape[:axis], *shape[axis + 1 :])
    integers = np.moveaxis(moved, 0, axis)
    if pair_limit is not None and not is_depthwise(node):
        integers = _keep_pairs(integers, axis, pair_limit)
    whole = constant_array(held).copy()
    whole[tuple(map(slice, shape))] = integers
    set_constant(held, whole)
    if learnt.bias is not None:
        bias = _find_integers(written, 2)
        codes = round_bias(learnt.bias.astype(np.float64), plan.tensors[bias_name(node)])
        set_constant(bias, codes.reshape(constant_array(bias).shape))


def _keep_pairs(integers: Array, axis: int, limit: int) -> Array:
    """The nearest weights whose pairs keep the bound of the target."""
    rows = to_rows(integers, axis).astype(np.float64)
    kept: Float64 = enforce_pair_limit(rows, rows, np.ones(rows.shape[1]), limit)
    return from_rows(kept.astype(np.int8), integers.shape, axis)


def _flatten(array: Array, axis: int) -> Array:
    """(out, all the rest)."""
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1)


def _find_integers(layer: ir.Node, index: int) -> ir.Value:
    """The integers behind the DequantizeLinear that the layer's weight or bias comes from."""
    value = layer.inputs[index]
    producer = None if value is None else value.producer()
    assert producer is not None and producer.inputs[0] is not None
    return producer.inputs[0]
