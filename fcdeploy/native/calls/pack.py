"""Weights in the order in which kernels read them: arrays in, arrays out. The layouts are described in kernels/*.h."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array
from fcdeploy.native.program.pairs import TOP, leaves_16_bits, pair_steps

TILE, NARROW = 16, 8  # channels computed together; the last ones of a group fill 16 or 8
FOUR = 4  # bytes that one lane multiplies at once
LOWEST = -128
RAISED = np.uint8(128)  # added to a byte, which makes an unsigned number of a signed one
STATE_STEPS, STATE_PART = 2**20 - 1, 1024  # FC_STEPS and FC_PART of kernels/recurrent.h
TOP_DIGIT = 127  # of a state
PART = 64  # steps whose sums the order `pairs` keeps in 32 bits: FC_DSP_STEPS_ALONE
ORDERED = 256  # steps of a window whose order is in one piece: FC_PAIRED of kernels/layer_pairs.h
ORDERS = ("pairs", "rows")  # of weights of layers beside the usual one: for SMLAD, for Helium (kernels/order.h)


def list_tiles(outs: int) -> list[tuple[int, int]]:
    """(first channel, width) of each tile of a group."""
    pieces = []
    done = 0
    while done < outs:
        width = TILE if outs - done > NARROW else NARROW
        pieces.append((done, width))
        done += width
    return pieces


def pack_layer_weights(rows: Array, groups: int) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Weights (out, runs, length) as [group][tile][run][four][channel][4], and whether each tile can leave 16 bits.

    Two neighbouring products can, on AVX2; on NEON two of -128 that are multiplied by -128 (bytes are made signed).
    """
    outs, runs, length = len(rows) // groups, rows.shape[1], rows.shape[2]
    steps = -(-length // FOUR)
    packed, wide = [], []
    for group in range(groups):
        own = rows[group * outs : (group + 1) * outs]
        for first, width in list_tiles(outs):
            part = np.zeros((width, runs, steps * FOUR), np.int8)
            count = min(width, outs - first)
            part[:count, :, :length] = own[first : first + count]
            packed.append(part.reshape(width, runs, steps, FOUR).transpose(1, 2, 0, 3).reshape(-1))
            wide.append(leaves_16_bits(part.reshape(-1, 2)) or bool((part == LOWEST).any()))
    return np.concatenate(packed), np.array(wide, np.uint8)


def arrange_tiles(packed: NDArray[np.uint8], groups: int, outs: int, order: str) -> NDArray[np.uint8]:
    """The bytes of `pack_layer_weights` in another order: as many bytes, raised by 128 where they are multiplied unsigned.

    `pairs`: [group][four channels][four][two channels][bytes 0 and 2, or 1 and 3][channel], the first of two channels raised.
    `rows`: [group][channel][run][four][4], all raised.
    """
    widths = [width for _ in range(groups) for _, width in list_tiles(outs)]
    steps = len(packed) // FOUR // sum(widths)
    arranged, done = [], 0
    for width in widths:
        tile = packed[done : done + steps * width * FOUR].reshape(steps, width, FOUR)
        done += tile.size
        if order == "rows":
            arranged.append(tile.transpose(1, 0, 2) ^ RAISED)
        else:
            each = tile.reshape(steps, -1, 2, 2, 2, 2).transpose(1, 0, 2, 5, 4, 3)
            arranged.append(each ^ np.array([RAISED, 0], np.uint8))
    return np.concatenate([each.reshape(-1) for each in arranged])


def pair_biases(biases: NDArray[np.int32], arranged: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Biases for weights in the order `pairs` of a layer of one position, whose low bytes are multiplied in pairs.

    What the products of the weights themselves add to a sum, wherever it is added: kernels/layer_dsp.h.
    """
    low = arranged.reshape(len(biases) // FOUR, -1, 2, 2, 2, 2)[..., 0].astype(np.int64)  # four, step, two, word, half
    added = (low[:, :, :, 0] * low[:, :, :, 1]).sum(axis=-1)  # four, step, two
    parts = [added[:, at : at + PART].sum(axis=1) for at in range(0, added.shape[1], PART)]
    first, second = sum(parts), sum(-(-part // 256) for part in parts)
    paired = biases.astype(np.int64).reshape(-1, 2, 2) + np.stack([-first, second], axis=-1)
    wrapped: NDArray[np.int32] = paired.reshape(-1).astype(np.uint32).view(np.int32)
    return wrapped


def pack_channel_values(values: Array, groups: int) -> Array:
    """A number for each output channel, in tiles as the weights are, filled up with zeros."""
    outs = len(values) // groups
    parts = []
    for group in range(groups):
        own = values[group * outs : (group + 1) * outs]
        for first, width in list_tiles(outs):
            part = np.zeros(width, values.dtype)
            count = min(width, outs - first)
            part[:count] = own[first : first + count]
            parts.append(part)
    return np.concatenate(parts)


def pack_depthwise_weights(window: Array) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Weights (channels, rows, columns) as [tile of 16][column][four rows][channel][row], and the tiles that are wide."""
    channels, rows, columns = window.shape
    count, fours = -(-channels // TILE), -(-rows // FOUR)
    full = np.zeros((count * TILE, fours * FOUR, columns), np.int8)
    full[:channels, :rows] = window
    each = full.reshape(count, TILE, fours, FOUR, columns).transpose(0, 4, 2, 1, 3)
    wide = [leaves_16_bits(tile.reshape(-1, 2)) for tile in each]
    if rows == FOUR - 1:  # the same weights are read one row further down, too
        wide = [
            now or leaves_16_bits(np.roll(tile, 1, axis=-1).reshape(-1, 2))
            for now, tile in zip(wide, each, strict=True)
        ]
    return np.ascontiguousarray(each).reshape(-1), np.array(wide, np.uint8)


def pack_gates(values: Array, units: int) -> Array:
    """A number or a row for each unit of each gate, (gates x units, ...), as [tile of 16 units][...][gate][unit]."""
    gates = values.reshape(-1, units, *values.shape[1:])
    full = np.pad(gates, ((0, 0), (0, -units % TILE), *[(0, 0)] * (gates.ndim - 2)))
    tiles = full.reshape(len(gates), -1, TILE, *gates.shape[2:])
    return np.ascontiguousarray(np.moveaxis(tiles, (0, 2), (-2, -1)))


def pack_recurrent_weights(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Weights (gates x units, units) as [tile of 16 units][four][gate][unit][4], and what is added to sums of highest digits.

    Digits are of state + 2^20, the highest of them in units of 2^14: a shift for each part of `STATE_PART` units.
    """
    units = weight.shape[1]
    fours = np.pad(weight, ((0, 0), (0, -units % FOUR))).reshape(len(weight), -1, FOUR)
    each = np.moveaxis(pack_gates(fours, units), 2, -1)  # (tile, four, gate, unit, 4)
    parts = [weight[:, begin : begin + STATE_PART].sum(axis=1, dtype=np.int32) for begin in range(0, units, STATE_PART)]
    shift = np.stack([pack_gates(-(2**20 // 2**14) * part, units) for part in parts])
    return np.ascontiguousarray(each), shift.astype(np.int32)


def order_fours(packed: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The order in which AVX2 reads fours of `pack_recurrent_weights`, for each tile and part: pairs, them, and the others.

    Products of a pair with digits of the state are added in 16 bits.
    """
    found = []
    for tile in packed:  # (four, gate, unit, 4)
        for begin in range(0, len(tile), STATE_PART // FOUR):
            part = tile[begin : begin + STATE_PART // FOUR]
            order, pairs = pair_steps(part.reshape(len(part), -1, 2), TOP_DIGIT)
            found.append(np.array([pairs, *order], np.uint8))
    return np.concatenate(found)


def order_steps(packed: NDArray[np.int8], fields: Mapping[str, int]) -> tuple[NDArray[np.uint8], float]:
    """The order in which AVX2 reads steps of `pack_layer_weights`, and the share of them that are in pairs.

    `fields` are those of struct fc_layer. For each eight channels and `ORDERED` steps of the window: pairs, them, and the
    other steps (kernels/layer_pairs.h).
    """
    steps = fields["runs_y"] * fields["runs_x"] * fields["steps"]
    found, paired, done = list[NDArray[np.uint8]](), 0, 0
    for _, width in list_tiles(fields["outs"]) * fields["groups"]:
        tile = packed[done : done + steps * FOUR * width].reshape(steps, width, 2, 2)
        done += tile.size
        for channel in range(0, width, NARROW):
            for begin in range(0, steps, ORDERED):
                part = tile[begin : begin + ORDERED, channel : channel + NARROW]
                order, pairs = pair_steps(part.reshape(len(part), -1, 2), TOP)
                found.append(np.array([pairs, *order], np.uint8))
                paired += 2 * pairs
    every = sum(len(each) - 1 for each in found)
    return np.concatenate(found), paired / every


def find_offsets(fields: Mapping[str, int]) -> NDArray[np.int32]:
    """Bytes from the beginning of a window to those of each of its steps. `fields` are those of struct fc_layer."""
    ry, rx, step = np.indices((fields["runs_y"], fields["runs_x"], fields["steps"]), np.int32)
    offsets: Array = ry * fields["run_y"] + rx * fields["run_x"] - (ry & fields.get("early", 0)) + FOUR * step
    return np.array(offsets.reshape(-1), np.int32)


def fill_up(values: Array, multiple: int = TILE) -> Array:
    """With zeros behind it, to a multiple."""
    return np.pad(values, (0, -len(values) % multiple))


def pack_float_weights(rows: Array, groups: int) -> Array:
    """Weights (out, runs, length) as [group][tile of 16][run][element][channel]."""
    outs, runs, length = len(rows) // groups, rows.shape[1], rows.shape[2]
    count = -(-outs // TILE)
    full = np.zeros((groups, count * TILE, runs, length), np.float32)
    full[:, :outs] = rows.reshape(groups, outs, runs, length)
    each = full.reshape(groups, count, TILE, runs, length).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(each).reshape(-1)


def pack_float_values(values: Array, groups: int) -> Array:
    """A number for each output channel, in tiles of 16 of each group."""
    outs = len(values) // groups
    return np.concatenate([fill_up(values[g * outs : (g + 1) * outs]) for g in range(groups)])
