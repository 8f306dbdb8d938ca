"""What is done of a program, in its order: steps on views of memory, copies and fills."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fcdeploy.arrays import Array
from fcdeploy.native.placing.views import Buffer, View
from fcdeploy.native.program.steps import Step


@dataclass(frozen=True, eq=False)
class Placed:
    """A step with the views it reads and writes; `order` rearranges what a dense layer reads, None where nothing does.

    `scratch` is memory that its kernel needs while it runs.  `parts` are the tensors that it reads or writes some rows of, by
    name: the shape of all of them, and which rows.
    """

    step: Step
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    order: Array | None = None
    scratch: View | None = None
    parts: Mapping[str, tuple[tuple[int, ...], slice]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Copy:
    """Elements of one view to another of the same shape; `node` is what they are for."""

    node: str
    source: View
    target: View


@dataclass(frozen=True, eq=False)
class Fill:
    """A whole buffer, or with `border` what is around an image in it, filled with one value."""

    node: str
    target: View
    value: float
    border: bool = False


Work = Placed | Copy | Fill


@dataclass(eq=False)
class Layout:
    """All work in its order, and the buffers; `outputs` are numbered as the program's are."""

    work: list[Work] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)


def list_arena(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Those that lie in the arena and are used."""
    return [buffer for buffer in buffers if buffer.where == "arena" and buffer.first >= 0]
