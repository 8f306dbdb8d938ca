"""Calls of convolutions and dense layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.calls import pack
from fcdeploy.native.calls.call import (
    Address,
    Argument,
    KernelCall,
    Struct,
    WeightAddress,
    Weights,
    make_address,
    make_call,
    make_code,
    make_image,
    make_positions,
    make_taps,
    make_two_axes,
)
from fcdeploy.native.placing.views import View, nest_loops
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.layers import FloatLayer, Layer, split_weights
from fcdeploy.native.program.pairs import begin_early

WORTH_PAIRING = 0.65  # of the steps: with fewer in pairs AVX2 takes as long without


def call_layer(step: Layer, work: Placed, weights: Weights) -> KernelCall:
    if step.depthwise and step.weight.dtype == np.int8:
        return _call_depthwise(step, work, weights)
    fields, rows = _split_runs(step, work)
    packed, wide = pack.pack_layer_weights(rows, step.groups)
    if wide.any() and fields["runs_x"] == 1 and rows.shape[2] % 2:
        packed_early, wide_early = pack.pack_layer_weights(begin_early(rows), step.groups)
        if wide_early.sum() < wide.sum():
            packed, wide, fields["early"] = packed_early, wide_early, 1
    return _call_runs("layer", step, work, weights, fields, packed, wide)


def _call_runs(
    kind: str, step: Layer, work: Placed, weights: Weights, fields: dict[str, Any], packed: Array, wide: Array
) -> KernelCall:
    to = step.output.coding
    flags = weights.add(wide, "uint8_t") if wide.any() else None
    fields |= {"code": make_code(step, 0 if to is None else to.zero_point), "wide": flags}
    if kind == "layer" and weights.paired and (wide.any() or not has_one_position(fields)):
        order, share = pack.order_steps(packed, fields)
        if share >= WORTH_PAIRING:
            fields["order"] = weights.add(order, "uint8_t")
            fields["offsets"] = weights.add(pack.find_offsets(fields), "int32_t")

    def values(each: Array) -> Array:
        return pack.fill_up(each) if kind == "depthwise" else pack.pack_channel_values(each, step.groups)

    arguments: list[Argument] = [
        make_address(work.outputs[0], weights), _find_window_begin(step, work.inputs[0]),
        stored := _add_weights(kind, packed, fields, weights),
        weights.add(values(step.bias), "int32_t", stored if kind == "layer" and has_one_position(fields) else None),
        weights.add(values(step.factor), "float"),
    ]  # fmt: skip
    if to is None:
        arguments.append(None if step.real_bias is None else weights.add(values(step.real_bias), "float"))
    kernel = f"fc_{kind}_{'reals' if to is None else 'bytes'}"
    return make_call(work, f"{kind}.h", kernel, *arguments, Struct(f"struct fc_{kind}", fields))


def _add_weights(kind: str, packed: Array, fields: Mapping[str, Any], weights: Weights) -> WeightAddress:
    shape = (fields["groups"], fields["outs"]) if kind == "layer" else None
    return weights.add(packed, "int8_t", shape)


def has_one_position(fields: Mapping[str, Any]) -> bool:
    """Whether a layer writes each channel once, as dense layers do: `pairs` has other biases for it, of its weights."""
    return bool(fields["images"] * fields["rows"] * fields["columns"] == 1)


def find_most_steps_alone(calls: Sequence[KernelCall]) -> int:
    """Four bytes each, of the longest window of a layer of one position: what kernels unpack at once (FC_ALONE_STEPS)."""
    layers = [call.arguments[-1].fields for call in calls if call.header == "layer.h"]  # type: ignore[union-attr]
    return max((f["runs_y"] * f["runs_x"] * f["steps"] for f in layers if has_one_position(f)), default=0)


def arrange_weights(weights: bytes, calls: Sequence[KernelCall], order: str) -> bytes:
    """All constants, those of layers in another of `pack.ORDERS`, and the biases that go with it."""
    arranged = np.frombuffer(weights, np.uint8).copy()
    for call in (each for each in calls if each.header == "layer.h"):
        begin, bias, fields = call.arguments[2], call.arguments[3], call.arguments[-1]
        assert isinstance(begin, WeightAddress) and isinstance(bias, WeightAddress) and isinstance(fields, Struct)
        groups, outs = fields.fields["groups"], fields.fields["outs"]
        steps = fields.fields["runs_y"] * fields.fields["runs_x"] * fields.fields["steps"]
        channels = groups * sum(width for _, width in pack.list_tiles(outs))
        count = steps * pack.FOUR * channels
        part = slice(begin.offset, begin.offset + count)
        usual = np.frombuffer(weights, np.uint8)[part]
        arranged[part] = pack.arrange_tiles(usual, groups, outs, order)
        if order == "pairs" and has_one_position(fields.fields):
            own = slice(bias.offset, bias.offset + 4 * channels)
            biases = np.frombuffer(weights, np.uint8)[own].view(np.int32)
            arranged[own] = pack.pair_biases(biases, arranged[part]).view(np.uint8)
    return arranged.tobytes()


def _split_runs(step: Layer, work: Placed) -> tuple[dict[str, Any], Array]:
    """The geometry of a layer as runs of neighbouring bytes, and its weights (out, runs, length) in that order."""
    x, y = work.inputs[0], work.outputs[0]
    if step.window is None:
        count = prod(x.array.shape[:-1])
        rows = step.weight if work.order is None else step.weight[:, work.order]
        x_step = _find_distance(x)
        fields = {"images": 1, "rows": 1, "columns": count, "x_column": x_step, "y_column": _find_distance(y)}
        length, rows = rows.shape[1], rows[:, None, :]
        geometry = {"runs_y": 1, "runs_x": 1, "run_y": 0, "run_x": 0}
        outs = len(rows)
        group = 0
    else:
        window, (source, target) = make_two_axes(step.window), (make_image(x), make_image(y))
        each, outs = step.weight.shape[1], len(step.weight) // step.groups
        weight = step.weight.reshape(len(step.weight), each, *window.kernel)
        taps_y, taps_x = window.kernel
        run_y, run_x = window.dilations[0] * source.row, window.dilations[1] * source.column
        rows = np.moveaxis(weight, 1, -1).reshape(len(weight), taps_y, taps_x, each)
        if run_x == each and step.groups == 1:  # pixels side by side: a row of the window is one run
            rows, taps_x, run_x = rows.reshape(len(rows), taps_y, 1, -1), 1, 0
            if run_y == rows.shape[-1]:  # and so are its rows
                rows, taps_y, run_y = rows.reshape(len(rows), 1, 1, -1), 1, 0
        geometry = {"runs_y": taps_y, "runs_x": taps_x, "run_y": run_y, "run_x": run_x}
        length, rows = rows.shape[-1], rows.reshape(len(rows), taps_y * taps_x, -1)
        fields = make_positions(source, target, window)
        group = each
    if rows.dtype != np.int8:
        rows, geometry = _repeat_runs(step, rows, geometry)
    return (
        fields | geometry | {"steps": -(-length // pack.FOUR), "groups": step.groups, "x_group": group, "outs": outs}
    ), rows


def _repeat_runs(step: Layer, rows: Array, geometry: dict[str, int]) -> tuple[Array, dict[str, int]]:
    """Weights of more than 8 bits as a sum of some of 8: each run is read as often."""
    assert geometry["runs_x"] == 1, f"{step.node}: such windows are read with rows that repeat"
    parts = split_weights(rows)
    each = np.stack(parts, axis=2)  # (out, runs, parts, length)
    return each.reshape(len(rows), -1, rows.shape[2]), geometry | {"runs_x": len(parts), "run_x": 0}


def _find_distance(view: View) -> int:
    """Elements between the positions of a dense layer, which lie at even distances."""
    lengths, (strides,), _ = nest_loops([view], keep=view.array.ndim - 1)
    return strides[-2] if len(lengths) > 1 else 0


def _find_window_begin(step: Layer, view: View) -> Address:
    """Where the first window begins: in the border, before the first pixel."""
    back = 0
    if step.window is not None:
        window, source = make_two_axes(step.window), make_image(view)
        back = window.begins[0] * source.row + window.begins[1] * source.column
    return Address(view.buffer, view.offset - back, "uint8_t")


def _call_depthwise(step: Layer, work: Placed, weights: Weights) -> KernelCall:
    assert step.window is not None
    window, source, target = make_two_axes(step.window), make_image(work.inputs[0]), make_image(work.outputs[0])
    taps = step.weight.reshape(len(step.weight), *window.kernel)
    run_y, run_x = window.dilations[0] * source.row, window.dilations[1] * source.column
    if window.kernel[0] == 1:  # a row is walked as a column, four taps at a time
        taps, run_y, run_x = taps.transpose(0, 2, 1), run_x, run_y
    packed, wide = pack.pack_depthwise_weights(taps)
    fields = make_positions(source, target, window) | {
        "taps_y": taps.shape[1], "taps_x": taps.shape[2], "tap_y": run_y, "tap_x": run_x, "channels": len(taps),
    }  # fmt: skip
    return _call_runs("depthwise", step, work, weights, fields, packed, wide)


def call_float_layer(step: FloatLayer, work: Placed, weights: Weights) -> KernelCall:
    x, y = work.inputs[0], work.outputs[0]
    if step.window is None:
        rows = (step.weight if work.order is None else step.weight[:, work.order])[:, None, :]
        count = prod(x.array.shape[:-1])
        fields: dict[str, Any] = {
            "images": 1, "rows": 1, "columns": count, "x_column": _find_distance(x), "y_column": _find_distance(y),
            "taps_y": 1, "taps_x": 1, "x_rows": 1, "x_columns": count, "step_x": 1, "outs": len(rows),
        }  # fmt: skip
    else:
        window, source, target = make_two_axes(step.window), make_image(x), make_image(y)
        each = step.weight.shape[1]
        weight = step.weight.reshape(len(step.weight), each, *window.kernel)
        rows = np.moveaxis(weight, 1, -1).reshape(len(weight), -1, each)
        fields = make_positions(source, target, window) | make_taps(source, window) | {
            "x_row": source.row, "x_column": source.column, "x_group": each, "outs": len(weight) // step.groups,
        }  # fmt: skip
    fields |= {"length": rows.shape[-1], "groups": step.groups}
    packed = weights.add(pack.pack_float_weights(rows, step.groups), "float")
    bias = weights.add(pack.pack_float_values(step.bias, step.groups), "float")
    return make_call(
        work, "float_layer.h", "fc_float_layer", make_address(y, weights), make_address(x, weights), packed, bias,
        Struct("struct fc_float_layer", fields),
    )  # fmt: skip
