"""Elements by constant indices, sums of products in Einstein's notation, and windows over three axes, from plain operators."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.windows import read_window
from fcdeploy.native.reading.spelling import Spelling

# --- indices ---


def _count_up(index: Array, length: int) -> Array:
    """Indices counted from the front."""
    index = index.astype(np.int64)
    return np.where(index < 0, index + length, index)


def gather_elements(s: Spelling) -> ir.Value:
    flat = _flatten_elements(s.constant(1, "indices"), s.shape, s.get("axis", 0))
    return s("Gather", s.reshape(s.x, [-1]), s.hold(flat, np.int64), axis=0)


def _flatten_elements(index: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Where elements lie in a tensor of that shape, whose index along the axis is given, and elsewhere their own."""
    places: list[Array] = list(np.indices(index.shape))
    places[axis] = _count_up(index, shape[axis])
    return np.asarray(np.ravel_multi_index(tuple(places), shape))


def _flatten_tuples(index: Array, shape: tuple[int, ...]) -> Array:
    """The place of each tuple of indices, the last axis, in the leading axes of that shape."""
    count = index.shape[-1]
    tuples = tuple(_count_up(index[..., i], shape[i]) for i in range(count))
    return np.asarray(np.ravel_multi_index(tuples, shape[:count])) if count else np.zeros(index.shape[:-1], np.int64)


def gather_nd(s: Spelling) -> ir.Value:
    index, batch = s.constant(1, "indices"), s.get("batch_dims", 0)
    if batch:  # the place in the batch, in front of each tuple
        own = np.indices(index.shape[:-1])[:batch]
        index = np.concatenate([np.moveaxis(own, 0, -1), index], axis=-1)
    count = index.shape[-1]
    rows = s.reshape(s.x, [prod(s.shape[:count]), *s.shape[count:]])
    return s("Gather", rows, s.hold(_flatten_tuples(index, s.shape), np.int64), axis=0)


def scatter_nd(s: Spelling) -> ir.Value:
    index = s.constant(1, "indices")
    return _scatter(s, _flatten_tuples(index, s.shape), index.shape[-1])


def scatter_elements(s: Spelling) -> ir.Value:
    return _scatter(s, _flatten_elements(s.constant(1, "indices"), s.shape, s.get("axis", 0)), len(s.shape))


def _scatter(s: Spelling, at: Array, count: int) -> ir.Value:
    """Rows of x, which has `count` axes of them, with those at `at` replaced: all rows behind each other, and picked."""
    if s.get("reduction", "none") != "none":
        raise s.refuse(f"its reduction is {s.get('reduction', '')!r}, expected 'none'")
    rows, rest = prod(s.shape[:count]), s.shape[count:]
    chosen = np.arange(rows)
    chosen[at.reshape(-1)] = rows + np.arange(at.size)
    updates = s.node.inputs[2]
    assert updates is not None
    both = s("Concat", s.reshape(s.x, [rows, *rest]), s.reshape(updates, [at.size, *rest]), axis=0)
    return s.reshape(s("Gather", both, s.hold(chosen, np.int64), axis=0), s.shape)


# --- Einsum ---


def einsum(s: Spelling) -> ir.Value:
    """Two operands at a time: what both have and the result does not is summed by a product of matrices."""
    equation = s.get("equation", "").replace(" ", "")
    left, _, out = equation.partition("->")
    terms = left.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise s.refuse(f"its equation is {equation!r}, expected letters, each once in a term")
    if not _:
        every = "".join(terms)
        out = "".join(sorted(letter for letter in set(every) if every.count(letter) == 1))
    values = [value for value in s.node.inputs if value is not None]
    lengths = {letter: n for term, value in zip(terms, values, strict=True)
               for letter, n in zip(term, s.shape_of(value), strict=True)}  # fmt: skip
    term, value = terms[0], values[0]
    for number in range(1, len(terms)):
        later = "".join([*terms[number + 1 :], out])
        kept = "".join(dict.fromkeys(letter for letter in term + terms[number] if letter in later))
        value = _contract(s, (term, value), (terms[number], values[number]), kept, lengths)
        term = kept
    value, term = _sum_out(s, value, term, out)
    return value if term == out else s.transpose(value, [term.index(letter) for letter in out])


def _sum_out(s: Spelling, value: ir.Value, term: str, kept: str) -> tuple[ir.Value, str]:
    """The sum along the axes that nothing needs."""
    axes = [i for i, letter in enumerate(term) if letter not in kept]
    if not axes:
        return value, term
    return s("ReduceSum", value, s.hold(axes, np.int64), keepdims=0), "".join(c for c in term if c in kept)


def _contract(
    s: Spelling, a: tuple[str, ir.Value], b: tuple[str, ir.Value], out: str, lengths: dict[str, int]
) -> ir.Value:
    """The product of two operands, with the axes of `out`."""
    if s.is_constant(a[1]):  # weights stand behind
        a, b = b, a
    (one, x), (two, y) = a, b
    x, one = _sum_out(s, x, one, two + out)
    y, two = _sum_out(s, y, two, one + out)
    batch = [c for c in one if c in two and c in out]
    inner = [c for c in one if c in two and c not in out]
    rows, columns = [c for c in one if c not in two], [c for c in two if c not in one]

    def arrange(value: ir.Value, term: str, *parts: list[str]) -> ir.Value:
        order = [letter for part in parts for letter in part]
        turned = s.transpose(value, [term.index(letter) for letter in order])
        sizes = [prod(lengths[letter] for letter in part) for part in parts]
        return s.reshape(turned, sizes if batch else sizes[1:])

    product = s("MatMul", arrange(x, one, batch, rows, inner), arrange(y, two, batch, inner, columns))
    letters = [*batch, *rows, *columns]
    whole = s.reshape(product, [lengths[letter] for letter in letters])
    return s.transpose(whole, [letters.index(letter) for letter in out])


# --- windows ---


def conv_3d(s: Spelling) -> ir.Value:
    """Slices that a window reads are channels of an image, one for each place along the first axis of space."""
    weight = s.node.inputs[1]
    assert weight is not None
    n, c, _, *space = s.shape
    outs, each, *kernel = s.shape_of(weight)
    window = read_window(s.node, s.shape[2:], tuple(kernel))
    steps = window.outputs(s.shape[2:])
    x = s.x
    if window.begins[0] or window.ends[0]:
        pads = [0, 0, window.begins[0], 0, 0, 0, 0, window.ends[0], 0, 0]
        x = s("Pad", x, s.hold(pads, np.int64))
    starts = np.arange(steps[0])[:, None] * window.strides[0]
    slices = starts + np.arange(kernel[0]) * window.dilations[0]
    taken = s("Gather", x, s.hold(slices, np.int64), axis=2)  # (n, c, places, slices, rows, columns)
    images = s.reshape(s.transpose(taken, (0, 2, 1, 3, 4, 5)), [n * steps[0], c * kernel[0], *space])
    flat = s.reshape(weight, [outs, each * kernel[0], *kernel[1:]])
    more = {"strides": window.strides[1:], "dilations": window.dilations[1:], "group": s.get("group", 1),
            "pads": (*window.begins[1:], *window.ends[1:])}  # fmt: skip
    result = s("Conv", images, flat, *s.node.inputs[2:3], **more)
    return s.transpose(s.reshape(result, [n, steps[0], outs, *steps[1:]]), (0, 2, 1, 3, 4))


def pool_3d(s: Spelling) -> ir.Value:
    """Within slices, then across: a largest of largest ones, a mean of means."""
    window = read_window(s.node, s.shape[2:], s.get("kernel_shape", ()))
    more = {"ceil_mode": s.get("ceil_mode", 0)}
    if s.node.op_type == "AveragePool":
        more["count_include_pad"] = s.get("count_include_pad", 0)
    n, c, depth, *space = s.shape

    def pool(x: ir.Value, *axes: int) -> ir.Value:
        lists = {"kernel_shape": window.kernel, "strides": window.strides, "dilations": window.dilations}
        own = {key: [each[axis] if axis >= 0 else 1 for axis in axes] for key, each in lists.items()}
        pads = [each[axis] if axis >= 0 else 0 for each in (window.begins, window.ends) for axis in axes]
        return s(s.node.op_type, x, **own, pads=pads, **more)

    grown = window.round_up(s.shape[2:]) if more["ceil_mode"] else window
    rows, columns = grown.outputs(s.shape[2:])[1:]
    inside = pool(s.reshape(s.x, [n, c * depth, *space]), 1, 2)
    across = pool(s.reshape(inside, [n, c, depth, rows * columns]), 0, -1)
    return s.reshape(across, [n, c, grown.outputs(s.shape[2:])[0], rows, columns])


def average_counted(s: Spelling) -> ir.Value:
    """An AveragePool that rounds up and counts its padding, but not what a last window reads behind that."""
    window = read_window(s.node, s.shape[2:], s.get("kernel_shape", ()))
    grown = window.round_up(s.shape[2:])
    x = s("Pad", s.x, s.hold([0, 0, *window.begins, 0, 0, *window.ends], np.int64))
    more = [g - e for g, e in zip(grown.ends, window.ends, strict=True)]
    return s(
        "AveragePool", x, kernel_shape=window.kernel, strides=window.strides, dilations=window.dilations,
        pads=[*[0] * len(more), *more],
    )  # fmt: skip


def lp_pool(s: Spelling) -> ir.Value:
    """The root of the sum of powers in each window: the mean of as many, times how many. What is outside counts as zero."""
    order, window = s.get("p", 2), read_window(s.node, s.shape[2:], s.get("kernel_shape", ()))
    if order not in (1, 2):
        raise s.refuse(f"its p is {order}, expected 1 or 2")
    if s.get("ceil_mode", 0):
        window = window.round_up(s.shape[2:])
    power = s("Abs", s.x) if order == 1 else s("Mul", s.x, s.x)
    mean = s(
        "AveragePool", power, kernel_shape=window.kernel, strides=window.strides, dilations=window.dilations,
        pads=window.pads, count_include_pad=1,
    )  # fmt: skip
    total = s("Mul", mean, s.hold(prod(window.kernel)))
    return total if order == 1 else s("Sqrt", total)


# --- interpolation ---


def resize_by_matrices(s: Spelling) -> ir.Value:
    """A Resize along curves, or along any number of axes: each is a product with the weights of its elements."""
    how = s.get("coordinate_transformation_mode", "half_pixel")
    axes = [axis % len(s.shape) for axis in s.get("axes", ()) or range(len(s.shape))]
    scales, sizes = (s.reader.get_constant(s.node, index) for index in (2, 3))
    if (sizes is None or not sizes.size) and (scales is None or not scales.size):
        raise s.refuse("its sizes are computed at run time")
    if s.get("keep_aspect_ratio_policy", "stretch") != "stretch" or s.get("antialias", 0):
        raise s.refuse("it keeps the ratio of its axes, or has antialias")
    x = s.x
    for number, axis in enumerate(axes):
        length = s.shape[axis]
        if sizes is not None and sizes.size:
            out = int(sizes[number])
            ratio = out / length
        else:
            ratio = float(scales[number])  # type: ignore[index]
            out = int(np.floor(length * ratio))
        if out != length or ratio != 1:
            x = s.multiply_axis(x, axis, _make_weights(s, length, out, ratio, how))
    return x


def _make_weights(s: Spelling, length: int, out: int, ratio: float, how: str) -> Array:
    """(length, out): what each element is worth for each output, by ONNX's formulas for Resize."""
    places = {
        "half_pixel": (np.arange(out) + 0.5) / ratio - 0.5,
        "half_pixel_symmetric": (np.arange(out) + 0.5) / ratio - 0.5 + (length / 2) * (1 - out / (ratio * length)),
        "pytorch_half_pixel": (np.arange(out) + 0.5) / ratio - 0.5 if out > 1 else np.zeros(1),
        "asymmetric": np.arange(out) / ratio,
        "align_corners": np.arange(out) * (length - 1) / max(1, out - 1),
    }.get(how)
    if places is None:
        raise s.refuse(f"its coordinates are {how!r}")
    curve, reach = (_cubic, 2) if s.get("mode", "") == "cubic" else (_straight, 1)
    matrix = np.zeros((length, out))
    for number, place in enumerate(places):
        at = int(np.floor(place)) + np.arange(1 - reach, 1 + reach)
        worth = curve(at - place, s.get("cubic_coeff_a", -0.75))
        if s.get("exclude_outside", 0):
            worth = np.where((at < 0) | (at >= length), 0, worth)
        np.add.at(matrix[:, number], np.clip(at, 0, length - 1), worth / worth.sum())
    return matrix.astype(np.float32)


def _cubic(away: Array, a: float) -> Array:
    """Keys' curve (1981) through two elements to either side."""
    d = np.abs(away)
    near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _straight(away: Array, _: float) -> Array:
    return np.asarray(np.maximum(0, 1 - np.abs(away)))
