"""How much a kernel does in one call, in the numbers that its instructions grow with; read off the call, nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from fcdeploy.native.calls.call import KernelCall, Struct
from fcdeploy.native.calls.pack import FOUR, TILE, list_tiles
from fcdeploy.tables.native import Widths


class Amounts(NamedTuple):
    """Of one call: products, elements written, runs of an inner loop, and windows that it goes to; see each kernel's function."""

    products: int = 0
    elements: int = 0
    runs: int = 0
    windows: int = 0


def count_amounts(call: KernelCall, widths: Widths | None) -> Amounts:
    """What one call of a kernel does where layers are computed as `widths` says, by tiles where that is None."""
    for argument in call.arguments:
        if isinstance(argument, Struct) and argument.ctype in BY_STRUCT:
            return BY_STRUCT[argument.ctype](argument.fields | {"widths": widths, "kernel": call.kernel})
    numbers = [argument for argument in call.arguments if isinstance(argument, int)]
    return Amounts(elements=prod(numbers[-2:]) if call.kernel == "fc_normalize" else max(numbers, default=0), runs=1)


def _count_positions(f: Mapping[str, Any]) -> int:
    return int(f["images"] * f["rows"] * f["columns"])


def _fill(count: int, width: int) -> int:
    """As many as there are where so many are computed at a time."""
    return -(-count // width) * width


def _count_layer(f: Mapping[str, Any]) -> Amounts:
    """Windows are positions, or so many as are computed together, and runs those of their bytes, once for each tile of channels
    or, where all channels are computed together, once.
    """
    positions, widths, groups = _count_positions(f), f["widths"], f["groups"]
    runs, elements = f["runs_y"] * f["runs_x"], positions * groups * f["outs"]
    if widths is None:
        tiles = [width for _, width in list_tiles(f["outs"])]
        runs *= groups * positions
        return Amounts(runs * f["steps"] * FOUR * sum(tiles), elements, runs * len(tiles), positions)

    length, alone = _fill(runs * f["steps"] * FOUR, widths.bytes), _fill(f["outs"], widths.alone)
    if widths.positions == 1:
        times = positions * groups
        return Amounts(times * length * alone, elements, times * runs * alone // widths.alone, times)
    times, left = divmod(positions, widths.positions)
    if widths.again and positions > 1:
        times, left = times + (left > 0), 0
    sums = times * widths.positions * _fill(f["outs"], widths.channels) + left * alone
    windows = groups * (times + left)
    return Amounts(groups * length * sums, elements, windows * runs, windows)


def _count_depthwise(f: Mapping[str, Any]) -> Amounts:
    """Runs are columns of a window; where its vectors hold four rows each, these."""
    positions, widths = _count_positions(f), f["widths"]
    fours, elements = -(-f["taps_y"] // FOUR), positions * f["channels"]
    if widths is None:
        runs = positions * -(-f["channels"] // TILE) * f["taps_x"] * fours
        return Amounts(runs * FOUR * TILE, elements, runs, positions)
    channels = positions * _fill(f["channels"], widths.depthwise)
    runs = channels // widths.depthwise * f["taps_x"] * fours
    return Amounts(channels * f["taps_y"] * f["taps_x"], elements, runs, positions)


def _count_float_layer(f: Mapping[str, Any]) -> Amounts:
    tiles = f["groups"] * -(-f["outs"] // TILE)
    runs = _count_positions(f) * tiles * f["taps_y"] * f["taps_x"]
    return Amounts(runs * f["length"] * TILE, _count_positions(f) * f["groups"] * f["outs"], runs)


def _count_taps(f: Mapping[str, Any], axis: str) -> int:
    """How often windows read something along an axis: where they reach beyond the input they read nothing."""
    outs, size = f["rows" if axis == "y" else "columns"], f["x_rows" if axis == "y" else "x_columns"]
    begins = (out * f[f"step_{axis}"] - f[f"before_{axis}"] for out in range(outs))
    return sum(0 <= begin + tap * f[f"gap_{axis}"] < size for begin in begins for tap in range(f[f"taps_{axis}"]))


def _count_pool(f: Mapping[str, Any]) -> Amounts:
    """Products are elements read: of the largest whole tiles, where something lies behind them."""
    positions, tiles, rest = _count_positions(f), -(-f["channels"] // TILE), f["channels"] % TILE
    whole = "max" in f["kernel"] and (f["behind"] or not rest)
    taps = f["images"] * _count_taps(f, "y") * _count_taps(f, "x")
    return Amounts(
        taps * (tiles * TILE if whole else f["channels"]),
        positions * f["channels"],
        positions * f["taps_y"] * f["taps_x"] * tiles,
        positions * tiles,
    )


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


def _count_moved(f: Mapping[str, Any]) -> Amounts:
    """Of a copy, which takes runs of neighbours whole: these are its products, so to speak, elements those moved one by one."""
    amounts = _count_loop(f)
    if "copy" in f["kernel"] and f["y"][3] == f["a"][3] == 1:
        return amounts._replace(products=amounts.elements, elements=0)
    return amounts


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
    "struct fc_loop": _count_moved,
    "struct fc_border": _count_border,
}
