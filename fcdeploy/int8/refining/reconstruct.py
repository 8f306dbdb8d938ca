"""An int8 model whose weights and biases are learnt together on samples, where torch is installed (pytorch/reconstruction.py)."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.layout import from_rows, pack_blocks, to_rows, unpack_blocks
from fcdeploy.arithmetic.weights.pair_bound import enforce_pair_limit
from fcdeploy.arrays import Array, Arrays
from fcdeploy.graph.edit import set_constant
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import bias_of, constant_array, name_of, output_axis, tensors_of, weight_of
from fcdeploy.int8.nodes import is_depthwise
from fcdeploy.int8.planning.types import bits_of, find_shared_blocks
from fcdeploy.int8.planning.weights import bias_name, find_int8_layers, find_shared_weights, round_bias
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.plan import LIMITS, Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import count_samples, split_into_chunks
from fcdeploy.samples.source import get_fixed_batch

if TYPE_CHECKING:
    from fcdeploy.pytorch.reconstruction import RoundedWeight, Schedule

NEEDS = "torch is not installed: pip install 'fcdeploy[export]'"
LEAST = 32  # samples: what is learnt on fewer is theirs alone
MOST_WORK = 1e12  # multiplications in all, backward passes counted: some minutes of one core
STEPS = 2000  # at most
BATCHES = (32, 16, 8)  # samples of a step: the first of which there are ENOUGH steps
ENOUGH, FEWEST = 1000, 300  # steps
BACKWARD = 3  # a step's multiplications over those of a run
POOL = 2048  # samples and mixtures of them that are held at most
MOST_BYTES = 1 << 28  # of these, and of a step's tensors, at most
TRIED = 3  # samples that torch runs first
LEARNT = ("Conv", "Gemm", "MatMul")  # integer layers
SAME = 1e-3  # of the largest answer: by more torch computes another function
PACKED, SCALES, BIAS = 1, 2, 5  # inputs of MatMulNBits


def is_installed() -> bool:
    """Whether there is torch."""
    return importlib.util.find_spec("torch") is not None


def find_schedule(model: ir.Model, samples: Arrays) -> tuple[Schedule | None, str]:
    """How the weights of a network are learnt on these samples, or why they cannot be."""
    if not is_installed():
        return None, NEEDS
    count = count_samples(samples) if samples else 0
    if count < LEAST:
        return None, f"tools may run {count} samples, and what is learnt on fewer than {LEAST} is of no use to others"
    macs = max(sum(count_macs_by_node(model).values()), 1)
    if _count_steps(macs, BATCHES[-1]) < FEWEST:
        return None, "a network of so many multiplications takes too long"

    from fcdeploy.pytorch.graph_run import why_not_run
    from fcdeploy.pytorch.reconstruction import Schedule

    if why := why_not_run(list(model.graph)):
        return None, why
    size, why = _try(model, samples, TRIED)
    if why:
        return None, why
    fitting = [batch for batch in BATCHES if batch * size <= MOST_BYTES]
    if not fitting:
        return None, "what lies between its layers takes too much memory"
    batch = next((batch for batch in fitting if _count_steps(macs, batch) >= ENOUGH), fitting[-1])
    _, why = _try(model, samples, batch)
    if why:
        return None, why
    pool = max(min(POOL, MOST_BYTES // size), count)
    return Schedule(min(_count_steps(macs, batch), STEPS), batch, pool), ""


def _count_steps(macs: int, batch: int) -> int:
    return int(MOST_WORK / (BACKWARD * batch * macs))


def _try(model: ir.Model, samples: Arrays, count: int) -> tuple[int, str]:
    """Bytes of all tensors for a sample, where torch computes of so many at once what the runtime does; else why not."""
    from fcdeploy.pytorch.reconstruction import run_float

    fixed = get_fixed_batch(input_specs(model)) or 1
    some = {name: array[: -(-count // fixed) * fixed] for name, array in samples.items()}
    session = Session(model)
    answers = [session.run(chunk) for _, chunk in split_into_chunks(model, some)]
    try:
        ours, size = run_float(model.graph, some)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:  # lengths in the graph are those of one batch
        return 0, f"torch does not run {count} samples at once ({str(error).splitlines()[0][:80]})"
    for name, *parts in zip(session.outputs, *answers, strict=True):
        if parts[0].ndim == 0 or not _is_same(ours[name], np.concatenate(parts)):
            return 0, "torch computes other numbers than onnxruntime, or samples are not independent"
    return max(size // count_samples(some), 1), ""


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
    weights = {**_read_blocks(model, int8, plan), **_read_layers(model, int8, plan, pair_limit)}
    schedule, why = find_schedule(model, samples)
    assert schedule is not None, why

    def tell(done: int, total: int) -> None:
        if on_step:
            on_step("reconstructing", done, total)

    learnt = reconstruct(Network(model.graph, rounded, weights), samples, schedule, tell) if weights else {}
    for node in model.graph:
        if name_of(node) in learnt and plan.kinds[name_of(node)] == "blockwise":
            _write_block(node, int8, plan, learnt[name_of(node)])
        elif name_of(node) in learnt:
            _write_layer(node, int8, plan, learnt[name_of(node)])
    return len(learnt)


def _read_blocks(model: ir.Model, int8: ir.Model, plan: Plan) -> dict[str, RoundedWeight]:
    """The layers in blocks as they stand."""
    from fcdeploy.pytorch.reconstruction import RoundedWeight

    by_name, found, shared = {node.name: node for node in int8.graph}, {}, find_shared_blocks(model, plan)
    for node in model.graph:
        weight, bias = weight_of(node), bias_of(node)
        apart = plan.kinds[name_of(node)] == "blockwise" and name_of(node) not in shared
        if not apart or weight is None or _is_shared(weight, bias):
            continue
        q, written, axis = plan.tensors[name_of(weight)], by_name[node.name], output_axis(node)
        rows = to_rows(constant_array(weight), axis)
        integers = unpack_blocks(constant_array(written.inputs[PACKED]), rows.shape[1], bits_of(q))
        scales = constant_array(written.inputs[SCALES]).reshape(len(rows), -1)
        found[name_of(node)] = RoundedWeight(
            rows, integers, scales, None if bias is None else constant_array(bias).reshape(-1), q.block, LIMITS[q.dtype],
            constant_array(weight).shape, axis, free_scales=True, allow=lambda integers: integers,
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


def _read_layers(model: ir.Model, int8: ir.Model, plan: Plan, pair_limit: int | None) -> dict[str, RoundedWeight]:
    """The integer layers as they stand, but for those of pixels, whose integers are of other weights."""
    from fcdeploy.pytorch.reconstruction import RoundedWeight

    by_name, found = {node.name: node for node in int8.graph}, {}
    shared = find_shared_weights(model.graph, plan)
    for node, weight in find_int8_layers(model.graph, plan):
        pixels = plan.tensors[name_of(node.inputs[0])].pixels
        alone = name_of(node) not in shared and not _is_shared(weight, None)
        if pixels or plan.kinds[name_of(node)] != "int8" or node.op_type not in LEARNT or not alone:
            continue
        q, axis, exact = plan.tensors[name_of(weight)], output_axis(node), constant_array(weight)
        rows, written = to_rows(exact, axis), by_name[node.name]
        unpadded = constant_array(_find_integers(written, 1))[
            tuple(map(slice, exact.shape))
        ]  # without channels of zeros
        scales = np.broadcast_to(np.asarray(q.scale, np.float32).reshape(-1, 1), (len(rows), 1))
        scaled, bias = plan.tensors.get(bias_name(node)), None
        if scaled is not None:
            bias = constant_array(_find_integers(written, 2)).reshape(-1) * np.asarray(scaled.scale)
        limit = None if is_depthwise(node) else pair_limit
        found[name_of(node)] = RoundedWeight(
            rows, to_rows(unpadded, axis), scales, bias, rows.shape[1], (-LIMITS[q.dtype][1], LIMITS[q.dtype][1]),
            exact.shape, axis, free_scales=False, allow=partial(_keep_pairs, limit=limit),
        )  # fmt: skip
    return found


def _write_layer(node: ir.Node, int8: ir.Model, plan: Plan, learnt: RoundedWeight) -> None:
    written = next(each for each in int8.graph if each.name == node.name)
    held = _find_integers(written, 1)
    whole = constant_array(held).copy()
    whole[tuple(map(slice, learnt.shape))] = from_rows(learnt.integers, learnt.shape, learnt.axis)
    set_constant(held, whole)
    if learnt.bias is not None:
        bias = _find_integers(written, 2)
        codes = round_bias(learnt.bias.astype(np.float64), plan.tensors[bias_name(node)])
        set_constant(bias, codes.reshape(constant_array(bias).shape))


def _keep_pairs(integers: NDArray[np.int8], limit: int | None) -> NDArray[np.int8]:
    """The nearest weights (out, K) whose pairs keep the bound of the target."""
    if limit is None:
        return integers
    rows = integers.astype(np.float64)
    return enforce_pair_limit(rows, rows, np.ones(rows.shape[1]), limit).astype(np.int8)


def _is_shared(weight: ir.Value, bias: ir.Value | None) -> bool:
    """Whether others read these numbers, too, and would get what was learnt for one place."""
    return any(value is not None and len(value.uses()) > 1 for value in (weight, bias))


def _find_integers(layer: ir.Node, index: int) -> ir.Value:
    """The integers behind the DequantizeLinear that the layer's weight or bias comes from."""
    value = layer.inputs[index]
    producer = None if value is None else value.producer()
    assert producer is not None and producer.inputs[0] is not None
    return producer.inputs[0]
