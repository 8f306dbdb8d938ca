"""How far kernels read: some read vectors whole, beyond what lies in a buffer. What they find there changes no result.

Only where such a buffer lies at the end of the arena is memory needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fcdeploy.native.calls.call import Address, KernelCall, Struct
from fcdeploy.native.calls.pack import FOUR, TILE

NARROWEST = 4  # channels: layers of more, up to twice as many, have positions in their lanes
LANES = 8  # positions of a row at least, which layer_lanes.h reads together
LANES_MORE = 13  # bytes beyond the last of their windows: 32 are read of windows that begin at neighbouring bytes


def find_ends(calls: Iterable[KernelCall]) -> dict[int, int]:
    """Bytes up to the last one that is read, of each buffer of the arena that vectors are read of, by its number."""
    ends: dict[int, int] = {}
    for call in calls:
        struct = call.arguments[-1]
        if not isinstance(struct, Struct) or struct.ctype not in BY_STRUCT:
            continue
        source = call.arguments[1]  # behind what it writes
        assert isinstance(source, Address), call
        if source.buffer.where == "arena":
            end = source.offset + BY_STRUCT[struct.ctype](struct.fields) * source.buffer.memory.itemsize
            ends[source.buffer.number] = max(ends.get(source.buffer.number, 0), end)
    return ends


def _find_last_position(f: Mapping[str, Any]) -> int:
    axes = (("images", "x_image"), ("rows", "x_row"), ("columns", "x_column"))
    return sum(max((f[count] - 1) * f.get(step, 0), 0) for count, step in axes)


def _reach_layer(f: Mapping[str, Any]) -> int:
    """The last run of the last window, filled up to four bytes."""
    run = max((f["runs_y"] - 1) * f["run_y"], 0) + max((f["runs_x"] - 1) * f["run_x"], 0)
    lanes = f["groups"] == 1 and NARROWEST < f["outs"] <= 2 * NARROWEST and f["columns"] >= LANES
    more = LANES_MORE if lanes else 0
    return int(_find_last_position(f) + (f["groups"] - 1) * f.get("x_group", 0) + run + f["steps"] * FOUR + more)


def _fill_tile(channels: int) -> int:
    return -(-channels // TILE) * TILE


def _reach_depthwise(f: Mapping[str, Any]) -> int:
    window = max((f["taps_y"] - 1) * f["tap_y"], 0) + max((f["taps_x"] - 1) * f["tap_x"], 0)
    return int(_find_last_position(f) + window + _fill_tile(f["channels"]))


def _reach_pool(f: Mapping[str, Any]) -> int:
    """All channels of the last pixel."""
    axes = ((f["images"], f["x_image"]), (f["x_rows"], f["x_row"]), (f["x_columns"], f["x_column"]))
    return int(sum(max((count - 1) * step, 0) for count, step in axes) + _fill_tile(f["channels"]))


BY_STRUCT: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "struct fc_layer": _reach_layer,
    "struct fc_depthwise": _reach_depthwise,
    "struct fc_pool": _reach_pool,
}
