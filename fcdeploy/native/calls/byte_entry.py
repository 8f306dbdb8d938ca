"""A run whose caller gives bytes in place of floats, and takes them: what it does otherwise than the usual one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np

from fcdeploy.native.calls.call import KernelCall, Weights
from fcdeploy.native.calls.others import call_copy
from fcdeploy.native.placing.views import Buffer, View, Where
from fcdeploy.native.placing.work import Copy, Fill, Layout, Placed, Work
from fcdeploy.native.program.steps import Lookup, Program, Quantize
from fcdeploy.native.program.tensors import CODES, Coding


@dataclass(frozen=True)
class ByteEntry:
    """`calls` stand for the steps of these numbers, none where there is nothing left to do; `inputs` and `outputs`, by their
    numbers, are bytes with these codings.

    The others are what they are in the usual run.
    """

    calls: MutableMapping[int, KernelCall | None]
    inputs: MutableMapping[int, Coding]
    outputs: MutableMapping[int, Coding]


def find_byte_entry(program: Program, layout: Layout, weights: Weights) -> ByteEntry | None:
    """Inputs that are only made bytes, and outputs that bytes are turned into; None where there are none."""
    entry = ByteEntry({}, {}, {})
    for number in range(len(program.inputs)):
        _add_input(entry, number, _find_users(layout, "input", number), weights)
    for number in range(len(program.outputs)):
        users = _find_users(layout, "output", number)
        copied = [work.source.buffer for work in users.values() if isinstance(work, Copy)]
        if copied and copied[0].where == "arena":  # what is put together elsewhere
            users |= _find_users(layout, "arena", copied[0].number)
        _add_output(entry, number, users, weights)
    return entry if entry.calls else None


def _add_input(entry: ByteEntry, number: int, users: Mapping[int, Work], weights: Weights) -> None:
    codings = {_find_input_coding(work) for work in users.values()}
    coding = codings.pop() if len(codings) == 1 else None
    if coding is None:
        return
    entry.inputs[number] = coding
    for at, work in users.items():
        assert isinstance(work, Placed)
        entry.calls[at] = _copy_bytes(work, work.outputs[0], weights)


def _add_output(entry: ByteEntry, number: int, users: Mapping[int, Work], weights: Weights) -> None:
    """One that a single step writes, to its place or to where a single copy takes it from."""
    first, *others = sorted(users) or [-1]
    work, last = users.get(first), users.get(max(users, default=-1))
    coding = _find_output_coding(work) if work is not None else None
    if coding is None or not isinstance(work, Placed):
        return
    if not others:
        entry.calls[first] = _copy_bytes(work, work.outputs[0], weights)
    elif len(others) == 1 and isinstance(last, Copy) and _are_alike(last.source, work.outputs[0]):
        entry.calls[first] = _copy_bytes(work, last.target, weights)
        entry.calls[others[0]] = None
    else:
        return
    entry.outputs[number] = coding


def list_byte_calls(entry: ByteEntry | None) -> list[KernelCall]:
    """Those that no usual run makes."""
    return [call for call in entry.calls.values() if call is not None] if entry else []


def _find_users(layout: Layout, where: Where, number: int) -> dict[int, Work]:
    """The work that reads or writes a buffer, by its number."""
    return {
        at: work
        for at, work in enumerate(layout.work)
        if any(view.buffer.where == where and view.buffer.number == number for view in _list_views(work))
    }


def _are_alike(one: View, other: View) -> bool:
    return (one.offset, one.strides, one.array.shape) == (other.offset, other.strides, other.array.shape)


def _list_views(work: Work) -> tuple[View, ...]:
    if isinstance(work, Placed):
        return (*work.inputs, *work.outputs)
    return (work.target,) if isinstance(work, Fill) else (work.source, work.target)


def _find_input_coding(work: Work) -> Coding | None:
    """Of a step that does nothing but make floats bytes."""
    step = work.step if isinstance(work, Placed) else None
    plain = isinstance(step, Quantize) and step.gain is None and (step.low, step.high) == (0, CODES - 1)
    return step.output.coding if step is not None and plain else None


def _find_output_coding(work: Work) -> Coding | None:
    """Of a step that does nothing but turn bytes into what they stand for."""
    step = work.step if isinstance(work, Placed) else None
    coding = step.inputs[0].coding if isinstance(step, Lookup) else None
    if not isinstance(step, Lookup) or coding is None:
        return None
    return coding if step.table.ndim == 1 and np.array_equal(step.table, coding.values) else None


def _copy_bytes(work: Placed, target: View, weights: Weights) -> KernelCall:
    """The bytes as they are, from where the step reads to the target."""
    source, to = _view_as_bytes(work.inputs[0]), _view_as_bytes(target)
    return call_copy(Copy(work.step.node, source, to), weights)


def _view_as_bytes(view: View) -> View:
    """The same elements of memory that holds a byte for each of them."""
    itemsize = view.array.itemsize
    if itemsize == 1:
        return view
    memory = np.empty(view.buffer.memory.shape, np.uint8)
    begin = memory.reshape(-1)[view.offset // itemsize :]
    strides = tuple(stride // itemsize for stride in view.array.strides)
    shown = np.lib.stride_tricks.as_strided(begin, view.array.shape, strides)
    return View(Buffer(view.buffer.where, memory, view.buffer.number), shown)
