"""LSTM and GRU while torch traces a network: one operator each, of which only the shapes of the results are asked.

torch 2.13 computes those shapes by the layer itself, written as a compiled loop while it traces with free axes and step by
step afterwards; ONNX's operator then takes the place of either.  That is most of the time of an export, and what was found
first is kept: from the second export of a process on it meets the steps where it needs the loop, and fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

REGISTER = "register_lstm_while_loop_decomposition", "register_gru_while_loop_decomposition"


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, torch asks `_shapes` what an LSTM or a GRU returns."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    operators = torch.ops.aten.lstm.input, torch.ops.aten.gru.input
    before = [operator.py_kernels.get(composite) for operator in operators]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_loops())
        for operator, kernel in zip(operators, before, strict=True):
            stack.callback(_set_kernel, operator, composite, kernel)
            _set_kernel(operator, composite, _shapes)
        yield


def _shapes(x: Any, states: Any, *settings: Any) -> tuple[Any, ...]:
    """Results of aten::lstm and aten::gru without values.

    Every step of the last layer (x's first two axes, directions * size), and the last states.
    """
    *_, both_directions, _ = settings
    last = [torch.empty_like(state) for state in (states if isinstance(states, Sequence) else [states])]
    return (x.new_empty((*x.shape[:2], last[0].shape[-1] * (2 if both_directions else 1))), *last)


def _set_kernel(operator: Any, key: Any, kernel: Any) -> None:
    """None leaves the operator without one; what was looked up before is forgotten."""
    if kernel is None:
        operator.py_kernels.pop(key, None)
    else:
        operator.py_kernels[key] = kernel
    operator._dispatch_cache.clear()


@contextlib.contextmanager
def _no_loops() -> Iterator[None]:
    """torch.onnx.export registers no loops of its own over `_shapes`; other versions of torch than 2.13 may have none."""
    try:
        from torch.export import _patches
    except ImportError:
        yield
        return
    before = {name: getattr(_patches, name) for name in REGISTER if hasattr(_patches, name)}
    try:
        for name in before:
            setattr(_patches, name, contextlib.nullcontext)
        yield
    finally:
        for name, register in before.items():
            setattr(_patches, name, register)
