"""What the functions of a network are called with: a parameter an input and output, and what its macros begin with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from fcdeploy.native.calls.call import C_TYPES
from fcdeploy.native.program.steps import Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.writing.text import make_identifier

Side = Literal["in", "out"]
MACROS: dict[Side, str] = {"in": "INPUT", "out": "OUTPUT"}


@dataclass(frozen=True, eq=False)
class Parameter:
    """An input or output: its `number` among them, its name in C, and the `label` of its macros behind the network's name."""

    tensor: Tensor
    side: Side
    number: int
    name: str
    label: str

    @property
    def ctype(self) -> str:
        return C_TYPES[self.tensor.dtype]


def list_parameters(program: Program) -> tuple[list[Parameter], list[Parameter]]:
    """Inputs and outputs; no two have the same name, and behind their side no name is a word or a macro of C or C++."""
    taken = set[str]()
    both: dict[Side, list[Parameter]] = {"in": [], "out": []}
    for side, tensors in zip(both, (program.inputs, program.outputs), strict=True):
        for number, tensor in enumerate(tensors):
            wanted = name = f"{side}_{make_identifier(tensor.name)}"
            again = 1
            while name in taken:
                again += 1
                name = f"{wanted}_{again}"
            taken.add(name)
            label = MACROS[side] + (f"_{number}" if len(tensors) > 1 else "")
            both[side].append(Parameter(tensor, side, number, name, label))
    return both["in"], both["out"]


def format_parameters(program: Program, bytes_in: Collection[int] = (), bytes_out: Collection[int] = ()) -> str:
    """As a function declares them; those of these numbers are bytes."""
    inputs, outputs = list_parameters(program)
    return ", ".join(
        [
            *(f"const {'uint8_t' if each.number in bytes_in else each.ctype} *{each.name}" for each in inputs),
            *(f"{'uint8_t' if each.number in bytes_out else each.ctype} *{each.name}" for each in outputs),
        ]
    )
