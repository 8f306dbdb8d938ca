"""How to run a model to see its tensors: how many samples at a time, how often over the data, and where samples lie.

The record is the same bit for bit whatever is chosen here; this is about time and memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Float32
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import name_of, tensors_of
from fcdeploy.graph.weights import initializer_bytes, is_large
from fcdeploy.int8.calibrating.instrument import pooled_step
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.footprint import MEBI, read_resident_bytes
from fcdeploy.runtime.session import LoadOptions, Session
from fcdeploy.samples.layout import stack_samples
from fcdeploy.samples.source import Source, choose_batch_size, get_fixed_batch

BATCH_BYTES = 24 << 20  # of observed tensors held at once: larger batches leave the caches and gain nothing
MOST_BATCH = 64
# Memory of a pass beside the observed tensors: weights as the file has them and packed by the runtime, and what it
# holds of the model while it loads.  Measured on the networks in models/.
WEIGHT_COPIES = 3
COPIES = 2.5  # of an observed tensor: the runtime's and NumPy's, and an arena that grows in steps


@dataclass(frozen=True)
class Passes:
    """Samples in a run, the tensors of each pass over the data, and for each tensor the axis that counts samples.

    `axes` has None for a tensor that has no such axis; then the batch is 1.
    """

    batch: int
    groups: tuple[tuple[str, ...], ...]
    axes: dict[str, int | None]


def plan_passes(
    model: ir.Model,
    values: Sequence[ir.Value],
    source: Source,
    *,
    batch: int | None = None,
    max_memory: int | None = None,
) -> Passes:
    """Choose for a prepared model and these tensors of it.

    `batch` is taken as it is, unless a tensor without samples forces 1; `max_memory` is bytes of this whole process.
    Sizes come from the declared shapes, else from running the first sample.  Raises FcdeployError when the model does
    not fit into the memory with one tensor and one sample.
    """
    fixed = get_fixed_batch(source.inputs)
    declared = {name_of(value): _read_declared_sizes(value, model, source.inputs, fixed) for value in values}
    unknown = [value for value in values if declared[name_of(value)] is None]
    measured = _measure_sizes(model, unknown, source, fixed) if unknown else {}
    sizes = {name: (known or measured[name]) for name, known in declared.items()}
    axes = {name: axis for name, (axis, _) in sizes.items()}
    costs = {name: max(4 * size, 1) for name, (_, size) in sizes.items()}  # bytes a sample
    alone = None in axes.values() and not fixed
    if max_memory is None:
        exposed = sum(costs[name_of(value)] // pooled_step(value, axes[name_of(value)]) ** 2 for value in values)
        wanted = batch or max(1, min(MOST_BATCH, BATCH_BYTES // max(exposed, 1)))
        return Passes(1 if alone else choose_batch_size(source.inputs, wanted), (tuple(costs),), axes)
    weights = 0 if is_large(model) else WEIGHT_COPIES * initializer_bytes(model)  # large ones stay on disk
    room = max_memory - read_resident_bytes() - weights
    least = choose_batch_size(source.inputs, 1 if alone else batch or 1)
    working = 2 * least * max(costs.values(), default=0)
    room = int((room - working) / COPIES)
    if room < least * max(costs.values(), default=0):
        needed = max_memory - room * COPIES + COPIES * least * max(costs.values())
        raise FcdeployError(
            f"--max-memory of {max_memory / MEBI:.0f} MB is less than the {needed / MEBI:.0f} MB that the model and "
            "its largest tensor take",
            f"--max-memory {math.ceil(needed / MEBI / 10) * 10}MB",
        )
    wanted = batch or max(1, min(MOST_BATCH, room // max(sum(costs.values()), 1)))
    size = 1 if alone else choose_batch_size(source.inputs, wanted)
    return Passes(size, tuple(_group_by_room(costs, room // size)), axes)


def move_samples_first(x: Float32, count: int, axis: int | None, channels: int | None) -> tuple[Float32, int | None]:
    """An array of `count` samples with an axis for them in front, and which axis counts channels then.

    A leading axis that is a multiple of the samples, as a Reshape of sequences makes it, is cut into them; an array
    without samples is one.
    """
    if axis:
        x, channels = np.moveaxis(x, axis, 0), x.ndim - 1  # sequences: time, samples, features
    if x.ndim and len(x) == count and axis is not None:
        return x, channels
    folded = x.reshape(count, len(x) // count, *x.shape[1:]) if x.ndim and len(x) % count == 0 else x[None]
    return folded, None if channels is None else channels + 1


def _group_by_room(costs: Mapping[str, int], room: int) -> Iterator[tuple[str, ...]]:
    """Neighbours together, as many as there is room for."""
    group: list[str] = []
    used = 0
    for name, cost in costs.items():
        if group and used + cost > room:
            yield tuple(group)
            group, used = [], 0
        group.append(name)
        used += cost
    yield tuple(group)


def _read_declared_sizes(
    value: ir.Value, model: ir.Model, inputs: Sequence[TensorSpec], fixed: int | None
) -> tuple[int | None, int] | None:
    """The axis of samples and the elements of one, where the shape says both; None where only a run can tell."""
    if value.shape is None:
        return None
    dims = [n if isinstance(n, int) else n.value for n in value.shape]
    if fixed:
        lengths = tuple(n for n in dims if isinstance(n, int))
        return _find_sample_axis(lengths, lengths, fixed) if len(lengths) == len(dims) else None
    at = {spec.name: spec.sample_axis for spec in inputs}
    batch = set()
    for given in model.graph.inputs:
        axis = at.get(name_of(given), 0)
        length = given.shape[axis] if given.shape and axis is not None else 0
        if not isinstance(length, int):
            batch.add(length.value)
    here = [axis for axis, n in enumerate(dims) if n in batch and n is not None]
    inner = [n for n in dims if isinstance(n, int)]
    return (here[0], math.prod(inner)) if len(here) == 1 and len(inner) == len(dims) - 1 else None


def _measure_sizes(
    model: ir.Model, values: Sequence[ir.Value], source: Source, fixed: int | None
) -> dict[str, tuple[int | None, int]]:
    """The same from runs of the first sample alone and twice: the axis that doubles is that of the samples.

    Where the model does not take two, or more than one axis doubles, there is none that could be told.
    """
    copy = model.clone()
    by_name = {value.name: value for value in tensors_of(copy.graph)}
    copy.graph.outputs.clear()
    for value in values:
        node = ir.node("Shape", [by_name[value.name]], outputs=[ir.Value(name=f"{value.name}'s shape")])
        producer = by_name[value.name].producer()
        if producer is None:
            copy.graph.append(node)
        else:
            copy.graph.insert_after(producer, node)
        copy.graph.outputs.append(node.outputs[0])
    session = Session(copy, load=LoadOptions(prepack=not is_large(model), in_order=True))
    sample = next(iter(source)).inputs

    def shapes(count: int) -> list[tuple[int, ...]]:
        return [tuple(shape.tolist()) for shape in session.run(stack_samples([sample] * count, source.inputs))]

    one = shapes(fixed or 1)
    try:
        two = one if fixed else shapes(2)
    except FcdeployError:
        two = one
    names = [name_of(value) for value in values]
    return {name: _find_sample_axis(a, b, fixed) for name, a, b in zip(names, one, two, strict=True)}


def _find_sample_axis(one: tuple[int, ...], two: tuple[int, ...], fixed: int | None) -> tuple[int | None, int]:
    """From the shapes that one and two samples give; a model that insists on its batch gives one."""
    if fixed:
        axis = 0 if one and one[0] % fixed == 0 else None
        return axis, math.prod(one) // (fixed if axis == 0 else 1)
    doubled = [i for i, (n, m) in enumerate(zip(one, two, strict=False)) if m == 2 * n]
    same = len(one) == len(two) and all(
        n == m for i, (n, m) in enumerate(zip(one, two, strict=False)) if i not in doubled
    )
    return (doubled[0] if len(doubled) == 1 and same else None), math.prod(one)
