"""How much a kernel does in one call, in the numbers that its instructions grow with; read off the call, nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from fcdeploy.native.calls.call import KernelCall, Struct
from fcdeploy.native.calls.pack import FOUR, TILE, list_tiles


class Amounts(NamedTuple):
    """Of one call: products, elements written, and runs of an inner loop."""

    products: int = 0
    elements: int = 0
    runs: int = 0


def count_amounts(call: KernelCall, *, filled: bool) -> Amounts:
    """What one call of a kernel does; `filled` counts the products of channels and taps that fill up a vector, too."""
    for argument in call.arguments:
        if isinstance(argument, Struct) and argument.ctype in BY_STRUCT:
            return BY_STRUCT[argument.ctype](argument.fields | {"filled": filled})
    numbers = [argument for argument in call.arguments if isinstance(argument, int)]
    return Amounts(elements=prod(numbers[-2:]) if call.kernel == "fc_normalize" else max(numbers, default=0), runs=1)


def _count_positions(f: Mapping[str, Any]) -> int:
    return int(f["images"] * f["rows"] * f["columns"])


def _count_layer(f: Mapping[str, Any]) -> Amounts:
    widths = [width for _, width in list_tiles(f["outs"])]
    runs = f["groups"] * f["runs_y"] * f["runs_x"] * _count_positions(f)
    products = runs * f["steps"] * FOUR * (sum(widths) if f["filled"] else f["outs"])
    return Amounts(products, _count_positions(f) * f["groups"] * f["outs"], runs * len(widths))


def _count_depthwise(f: Mapping[str, Any]) -> Amounts:
    tiles, fours = -(-f["channels"] // TILE), -(-f["taps_y"] // FOUR)
    if not f["filled"]:
        elements = _count_positions(f) * f["channels"]
        return Amounts(elements * f["taps_y"] * f["taps_x"], elements, elements * f["taps_x"])
    runs = _count_positions(f) * tiles * f["taps_x"] * fours
    return Amounts(runs * FOUR * TILE, _count_positions(f) * f["channels"], runs)


def _count_float_layer(f: Mapping[str, Any]) -> Amounts:
    tiles = f["groups"] * -(-f["outs"] // TILE)
    runs = _count_positions(f) * tiles * f["taps_y"] * f["taps_x"]
    return Amounts(runs * f["length"] * TILE, _count_positions(f) * f["groups"] * f["outs"], runs)


def _count_pool(f: Mapping[str, Any]) -> Amounts:
    elements = _count_positions(f) * f["channels"]
    taps = f["taps_y"] * f["taps_x"]
    return Amounts(elements * taps, elements, _count_positions(f) * taps * -(-f["channels"] // TILE))


def _count_global(f: Mapping[str, Any]) -> Amounts:
    return Amounts(_count_positions(f) * f["channels"], f["images"] * f["channels"], _count_positions(f))


def _count_softmax(f: Mapping[str, Any]) -> Amounts:
    rows = f["outer"] * f["inner"]
    return Amounts(0, rows * f["count"], rows)


def _count_product(f: Mapping[str, Any]) -> Amounts:
    elements = prod(f["count"])
    return Amounts(elements * f["length"], elements, prod(f["count"][:3]) * f["length"])


def _count_recurrent(f: Mapping[str, Any]) -> Amounts:
    states = f["times"] * f["batch"] * f["units"]
    return Amounts(states * f["units"], states, f["times"] * f["batch"])


def _count_interpolate(f: Mapping[str, Any]) -> Amounts:
    return Amounts(0, _count_positions(f) * f["channels"], _count_positions(f))


def _count_loop(f: Mapping[str, Any]) -> Amounts:
    return Amounts(0, prod(f["count"]), prod(f["count"][:3]))


def _count_border(f: Mapping[str, Any]) -> Amounts:
    filled = (f["top"] + f["bottom"]) * f["row"] + f["rows"] * (f["left"] + f["right"])
    return Amounts(0, f["images"] * filled, f["images"] * f["rows"])


BY_STRUCT: dict[str, Callable[[Mapping[str, Any]], Amounts]] = {
    "struct fc_layer": _count_layer,
    "struct fc_depthwise": _count_depthwise,
    "struct fc_float_layer": _count_float_layer,
    "struct fc_pool": _count_pool,
    "struct fc_global": _count_global,
    "struct fc_softmax": _count_softmax,
    "struct fc_product": _count_product,
    "struct fc_recurrent": _count_recurrent,
    "struct fc_interpolate": _count_interpolate,
    "struct fc_combine": lambda f: _count_loop(f["loop"]),
    "struct fc_loop": _count_loop,
    "struct fc_border": _count_border,
}
