"""A float model in which biases take in what channels have in common on samples (arithmetic/weights/absorb.py).

Between a layer and layers that read what it writes, directly, or through a Relu.  Directly the model computes the same;
behind a Relu it does where no channel falls below what it was on the samples, which is why this is tried, not done.  A
convolution that reads padding would see zeros where its bias counts on c, and stays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.weights.absorb import choose_offsets
from fcdeploy.arrays import Arrays, Float64
from fcdeploy.graph.edit import Edits
from fcdeploy.graph.nodes import is_op, name_of, tensor_of
from fcdeploy.int8.refining.activations import iterate_activations
from fcdeploy.prepare.channels import LARGEST, UnfitChannelsError
from fcdeploy.prepare.linear_layers import (
    LinearLayer,
    channels_of,
    is_layer,
    read_layer,
    reads_padding,
    scale_inputs,
    write_layer,
)

ABSORBED = ".absorbed"
Shifts = Mapping[str, Sequence[float]]  # what a layer writes -> what is taken off each of its channels


@dataclass(frozen=True)
class AbsorptionSite:
    """A layer, what its readers read, whether that is behind a Relu, and the readers."""

    layer: ir.Node
    value: ir.Value
    clipped: bool
    readers: tuple[ir.Node, ...]


def find_shifts(model: ir.Model, samples: Arrays) -> dict[str, tuple[float, ...]]:
    """What biases of a prepared float model can absorb, empty where that makes no tensor's range narrower."""
    places = find_absorption_sites(model)
    names = [name_of(place.value) for place in places.values()]
    ends: list[list[Float64]] = [[] for _ in places]
    for values in iterate_activations(model, names, samples) if places else ():
        for seen, x in zip(ends, values, strict=True):
            others = tuple(axis for axis in range(x.ndim) if axis != 1)
            seen.append(np.stack([x.min(axis=others), x.max(axis=others)]).astype(np.float64))
    shifts = {}
    for (name, place), seen in zip(places.items(), ends, strict=True):
        c = choose_offsets(np.min(seen, axis=0)[0], np.max(seen, axis=0)[1], clipped=place.clipped)
        if np.any(c):
            shifts[name] = tuple(c.tolist())
    return shifts


def absorb_shifts(model: ir.Model, shifts: Shifts) -> None:
    """Take `shifts` off in place. Raises UnfitChannelsError where that cannot be."""
    edits = Edits(model, "absorb")
    for name, shift in shifts.items():
        place = find_absorption_sites(model).get(name)
        if place is None:
            raise UnfitChannelsError(f"tensor {name!r} is not between a layer and layers that may absorb a shift")
        layer, c = _layer(place.layer), np.asarray(shift)
        if len(c) != layer.outputs:
            raise UnfitChannelsError(f"tensor {name!r} has {layer.outputs} channels, not {len(c)}")
        if place.clipped and np.any(c < 0):
            raise UnfitChannelsError(f"tensor {name!r} is read through a Relu, which lets no negative shift pass")
        reason = write_layer(edits, layer, layer.weight, layer.bias - c)
        for reader in place.readers:
            of = _layer(reader)
            parameters = scale_inputs(of, np.ones(len(c)), c)
            assert not isinstance(parameters, str), "readers of padding are no readers of a place"
            reason = reason or write_layer(edits, of, *parameters)
        if reason:
            raise UnfitChannelsError(reason)
        for changed in {name, name_of(place.value)}:  # what they hold is another
            value = next(v for node in model.graph for v in node.outputs if v.name == changed)
            value.name = f"{changed}{ABSORBED}"


def find_absorption_sites(model: ir.Model) -> dict[str, AbsorptionSite]:
    """What a layer writes, by name, where all that read it can absorb what is taken off."""
    sites = {}
    for node in model.graph:
        out = node.outputs[0] if node.outputs else None
        if out is None or not is_layer(node) or isinstance(_read(node), str):
            continue
        users = list(out.consumers())
        clipped = len(users) == 1 and is_op(users[0], "Relu") and users[0].graph is model.graph
        value = users[0].outputs[0] if clipped and not out.is_graph_output() else out
        readers = tuple(value.consumers())
        if readers and not value.is_graph_output() and all(_can_absorb(reader, value, model) for reader in readers):
            sites[name_of(out)] = AbsorptionSite(node, value, clipped, readers)
    return sites


def _can_absorb(reader: ir.Node, value: ir.Value, model: ir.Model) -> bool:
    if not is_layer(reader) or reader.graph is not model.graph or reader.inputs[0] is not value:
        return False
    layer = _read(reader)
    padded = reader.op_type == "ConvTranspose" or (reader.op_type == "Conv" and reads_padding(reader))
    once = sum(other is value for other in reader.inputs) == 1
    return once and not padded and isinstance(layer, LinearLayer) and layer.inputs == channels_of(value)


def _read(node: ir.Node) -> LinearLayer | str:
    weight = node.inputs[1]
    small = (tensor := tensor_of(weight)) is not None and tensor.size <= LARGEST
    return read_layer(node) if small else "its weights are not to be read whole"


def _layer(node: ir.Node) -> LinearLayer:
    layer = _read(node)
    assert isinstance(layer, LinearLayer), "places have such layers"
    return layer
