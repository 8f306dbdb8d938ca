"""The GELU by tanh in the one spelling for which onnxruntime has a kernel, FastGelu.

    y = x / 2 (1 + tanh(r (x + c x^3))),  r = sqrt(2 / pi),  c = 0.044715
    ->  Mul(Mul(x, 1/2), Add(Tanh(Mul(Add(x, Mul(Pow(x, 3), c)), r)), 1))

Other spellings take eight or nine kernels: the cube as products (JAX, TensorFlow), 1/2 behind the sum, x taken out of the
argument.  What is computed is read as a polynomial of x and the Tanh, whatever the order of its steps.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits, remove_dead
from fcdeploy.graph.nodes import array_of, is_op, name_of, producer_of

R, C = math.sqrt(2 / math.pi), 0.044715
CLOSE = 1e-4  # relative: exporters write 0.7978845608 and 0.79788, 0.044715 and 0.0447150
MOST_STEPS = 5  # from the Tanh to the result, and before it to x
MOST_DEGREE = 4

Polynomial = dict[tuple[int, int], float]
"""Powers of x and of the Tanh -> coefficient."""
ARGUMENT: Polynomial = {(1, 0): R, (3, 0): R * C}
GELU: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}


def form_tanh_gelu(model: ir.Model) -> Changes:
    """Write every GELU by tanh as onnxruntime finds it."""
    edits = Edits(model, "form_tanh_gelu")
    for tanh in edits.nodes("Tanh"):
        value = _find_argument(tanh)
        last = None if value is None else _find_result(edits, tanh, value)
        if value is not None and last is not None and not _is_found(last, tanh, value):
            _write(edits, last, value)
    if edits.count:
        remove_dead(model.graph)  # what is left of the spellings would count as readers
    return edits.changes()


def _find_argument(tanh: ir.Node) -> ir.Value | None:
    """x, where the Tanh is of r (x + c x^3)."""
    argument = tanh.inputs[0]
    if argument is None or argument.dtype not in (None, ir.DataType.FLOAT):
        return None
    candidates: list[ir.Value] = [argument]
    for _ in range(MOST_STEPS):
        before = [
            v for c in candidates if (node := c.producer()) is not None and is_op(node, *STEPS) for v in node.inputs
        ]
        candidates += [v for v in before if v is not None and v not in candidates and array_of(v) is None]
    return next((v for v in candidates if _is_close(_expand(argument, {v: {(1, 0): 1.0}}), ARGUMENT)), None)


def _find_result(edits: Edits, tanh: ir.Node, x: ir.Value) -> ir.Node | None:
    """The node that writes x / 2 (1 + tanh), a few steps behind the Tanh."""
    known: dict[ir.Value, Polynomial] = {x: {(1, 0): 1.0}, tanh.outputs[0]: {(0, 1): 1.0}}
    value = tanh.outputs[0]
    for _ in range(MOST_STEPS):
        reader = edits.only_reader(value)
        if reader is None or not is_op(reader, *STEPS):
            return None
        value = reader.outputs[0]
        if _is_close(_expand(value, known), GELU):
            return reader
    return None


def _is_found(last: ir.Node, tanh: ir.Node, x: ir.Value) -> bool:
    """Whether it has the spelling already."""
    half, one = (producer_of(value) for value in last.inputs)
    scaled = producer_of(tanh.inputs[0], "Mul")
    sums = [producer_of(v, "Add") for v in scaled.inputs] if scaled is not None else []
    cubes = [producer_of(v, "Mul") for each in sums if each is not None and x in each.inputs for v in each.inputs]
    powers = [producer_of(v, "Pow") for each in cubes if each is not None for v in each.inputs]
    outer = is_op(half, "Mul") and is_op(one, "Add") and half is not None and x in half.inputs
    return outer and one is not None and tanh.outputs[0] in one.inputs and any(power is not None for power in powers)


def _write(edits: Edits, last: ir.Node, x: ir.Value) -> None:
    stem = name_of(last.outputs[0])

    def number(what: float, name: str) -> ir.Value:
        return edits.constant(f"{stem}.{name}", np.asarray(what, np.float32))

    def step(op: str, one: ir.Value, other: ir.Value | None, name: str) -> ir.Value:
        value = edits.insert(last, op, [one] if other is None else [one, other], output=f"{stem}.{name}")
        value.type, value.shape = x.type, x.shape
        node = value.producer()
        assert node is not None
        node.name = f"{last.name}.{name}"  # there are several of an operator
        return value

    cube = step("Mul", step("Pow", x, number(3.0, "three"), "cube"), number(C, "c"), "small")
    argument = step("Mul", step("Add", x, cube, "sum"), number(R, "r"), "argument")
    share = step("Add", step("Tanh", argument, None, "tanh"), number(1.0, "one"), "share")
    edits.replace(last, "Mul", [step("Mul", x, number(0.5, "half"), "halved"), share])
    edits.count += 1


def _expand(
    value: ir.Value | None, known: dict[ir.Value, Polynomial], depth: int = 2 * MOST_STEPS
) -> Polynomial | None:
    """A value as a polynomial of the known ones; None where it is none, or of too many steps."""
    if value is None or depth < 0:
        return None
    if value in known:
        return known[value]
    array, node = array_of(value), value.producer()
    if array is not None:
        return {(0, 0): float(array.reshape(()))} if array.size == 1 and array.dtype.kind == "f" else None
    if node is None or not is_op(node, *STEPS):
        return None
    parts = [_expand(each, known, depth - 1) for each in node.inputs]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        return None
    return STEPS[node.op_type](parts[0], parts[1])


def _add(one: Polynomial, other: Polynomial) -> Polynomial:
    return {powers: one.get(powers, 0.0) + other.get(powers, 0.0) for powers in {*one, *other}}


def _multiply(one: Polynomial, other: Polynomial) -> Polynomial | None:
    product: Polynomial = {}
    for (a, b), c in one.items():
        for (d, e), f in other.items():
            if a + b + d + e > MOST_DEGREE:
                return None
            product[a + d, b + e] = product.get((a + d, b + e), 0.0) + c * f
    return product


def _divide(one: Polynomial, other: Polynomial) -> Polynomial | None:
    by = other.get((0, 0), 0.0)
    return _multiply(one, {(0, 0): 1 / by}) if set(other) == {(0, 0)} and by else None


def _raise(one: Polynomial, other: Polynomial) -> Polynomial | None:
    power = other.get((0, 0), 0.0)
    if set(other) != {(0, 0)} or power not in (2.0, 3.0):
        return None
    square = _multiply(one, one)
    return square if power == 2.0 or square is None else _multiply(square, one)


STEPS = {"Add": _add, "Mul": _multiply, "Div": _divide, "Pow": _raise}


def _is_close(found: Polynomial | None, wanted: Polynomial) -> bool:
    """Whether the coefficients agree, and there are no others."""
    if found is None:
        return False
    return all(abs(found.get(p, 0.0) - wanted.get(p, 0.0)) <= CLOSE * wanted.get(p, 0.0) for p in {*found, *wanted})
