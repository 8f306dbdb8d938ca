"""C text of a network: its header, one function a step, tables of numbers, and the weights as bytes.

What is written down here was decided elsewhere; there is no loop in it but those of the kernels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from fcdeploy import __version__
from fcdeploy.native.calls.byte_entry import ByteEntry, list_byte_calls
from fcdeploy.native.calls.call import Address, Argument, KernelCall, Struct, WeightAddress
from fcdeploy.native.calls.layers import find_most_steps_alone
from fcdeploy.native.placing.memory import Memory
from fcdeploy.native.program.steps import Program
from fcdeploy.native.program.tensors import Coding
from fcdeploy.native.writing.parameters import format_parameters, list_parameters
from fcdeploy.native.writing.text import PARAMETERS, make_comment, make_identifier

TEXT_BYTES = 256 * 1024  # of weights that are written as text; of more, the assembler takes them from a file
ARENA_ALIGNMENT = 64
INCLUDE_ORDER = '#include "order.h"\n'


@dataclass(frozen=True)
class CSource:
    """The C text of a network: file name -> text or bytes, and which of them are compiled once for each level."""

    name: str
    files: Mapping[str, str | bytes]


def render_sources(
    program: Program,
    calls: Sequence[KernelCall],
    memory: Memory,
    constants: tuple[bytes, Mapping[str, bytes]],
    offsets: Mapping[int, int],
    byte_entry: ByteEntry | None,
) -> CSource:
    """All files of a network but the kernels. `constants` come in the usual order, and in others, by their names.

    `offsets` are those of buffers of the arena, by their number.
    """
    weights, arranged = constants
    name = make_identifier(program.name)
    made = make_comment(f"Written by fcdeploy {__version__} from {program.name}: do not edit.") + "\n"
    texts: dict[str, str | bytes] = {
        f"{name}.h": made + _format_header(name, program, memory, len(weights), byte_entry),
        f"{name}.c": made + _format_code(_StepWriter(name, offsets), program, calls, byte_entry),
    }
    if len(weights) <= TEXT_BYTES:
        texts[f"{name}_weights.c"] = made + _format_weights(name, weights, arranged)
    else:
        texts[f"{name}_weights.bin"] = weights
        texts |= {f"{name}_weights_{order}.bin": each for order, each in arranged.items()}
        texts[f"{name}_weights.S"] = _write_weights(name, list(arranged))
    return CSource(name, texts)


def read_kernel_files(calls: Sequence[KernelCall]) -> Iterator[tuple[str, str]]:
    """The kernels that are called, and what they include: file name and text."""
    folder = files("fcdeploy.native") / "kernels"
    waiting, seen = sorted({call.header for call in calls}), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        text = (folder / name).read_text()
        yield name, text
        waiting += re.findall(r'#include "([^"]+)"', text)


# --- the header ---


def _format_header(name: str, program: Program, memory: Memory, flash: int, byte_entry: ByteEntry | None) -> str:
    upper, codings = name.upper(), _list_codings(program, byte_entry)
    lines = [
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"#define {upper}_ARENA_BYTES {memory.nbytes} /* aligned to {ARENA_ALIGNMENT} bytes; nothing in it is kept */",
        f"#define {upper}_WEIGHT_BYTES {flash}",
    ]
    for parameter in itertools.chain(*list_parameters(program)):
        tensor, label = parameter.tensor, f"{upper}_{parameter.label}"
        said = make_comment(f"'{tensor.name}': {tensor.dtype}{list(tensor.shape)}")
        lines.append(f"#define {label}_SIZE {tensor.size} {said}")
        if (coding := codings.get(parameter.label)) is not None:
            lines.append(f"#define {label}_SCALE {_format_float(coding.scale)} /* of a byte less the zero point */")
            lines.append(f"#define {label}_ZERO_POINT {coding.zero_point}")
    lines += [
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* One sample. Reentrant: nothing is kept but in the arena. */",
        f"void {name}_run({format_parameters(program)}, void *arena);",
        "",
        *(_declare_byte_entry(name, program, byte_entry) if byte_entry else []),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join([*lines, ""])


def _list_codings(program: Program, byte_entry: ByteEntry | None) -> dict[str, Coding]:
    """What bytes stand for, by the labels of the inputs and outputs that are or may be bytes."""
    inputs, outputs = list_parameters(program)
    said = {each.label: each.tensor.coding for each in (*inputs, *outputs) if each.tensor.coding is not None}
    if byte_entry:
        said |= {inputs[number].label: coding for number, coding in byte_entry.inputs.items()}
        said |= {outputs[number].label: coding for number, coding in byte_entry.outputs.items()}
    return said


def _declare_byte_entry(name: str, program: Program, byte_entry: ByteEntry) -> list[str]:
    return [
        "/* The same, with bytes for whatever has a scale above. */",
        f"void {name}_run_bytes({format_parameters(program, byte_entry.inputs, byte_entry.outputs)}, void *arena);",
        "",
    ]


# --- the steps ---


def _format_code(
    writer: _StepWriter, program: Program, calls: Sequence[KernelCall], byte_entry: ByteEntry | None
) -> str:
    name = writer.name
    headers = sorted({call.header for call in (*calls, *list_byte_calls(byte_entry))})
    steps_alone = find_most_steps_alone(calls)
    lines = [
        *([f"#define FC_ALONE_STEPS {steps_alone} /* layer_dsp.h */"] if steps_alone else []),
        *(f'#include "{header}"' for header in headers),
        f'#include "{name}.h"',
        "",
        "#ifndef FC_LEVEL",
        "#define FC_LEVEL(name) name",
        "#endif",
        "",
        f"extern const uint8_t {name}_weights[];",
        "",
        "/* What steps read and write: the arena, inputs and outputs. */",
        "struct fc_memory {",
        "    uint8_t *arena;",
        "    const void *const *inputs;",
        "    void *const *outputs;",
        "};",
        "",
    ]
    for number, call in enumerate(calls):
        lines += writer.write(str(number), call)
    steps = ", ".join(f"step_{number}" for number in range(len(calls)))
    declared = f"void FC_LEVEL({name}_steps)(int32_t first, int32_t last, {PARAMETERS})"
    lines += [
        f"static void (*const steps[{len(calls)}])(const struct fc_memory *) = {{",
        *(f"    {line}" for line in _wrap(steps)),
        "};",
        "",
        "/* Steps from `first` to before `last`: all of them are one run. */",
        f"{declared};",
        declared,
        "{",
        "    const struct fc_memory memory = {(uint8_t *)arena, inputs, outputs};",
        "    for (int32_t i = first; i < last; i++)",
        "        steps[i](&memory);",
        "}",
        "",
        "#ifndef FC_LIBRARY",
        f"void {name}_run({format_parameters(program)}, void *arena)",
        "{",
        *_format_arrays(program),
        f"    FC_LEVEL({name}_steps)(0, {len(calls)}, inputs, outputs, arena);",
        "}",
        *(_format_byte_entry(writer, program, len(calls), byte_entry) if byte_entry else []),
        "#endif",
        "",
    ]
    return "\n".join(lines)


class _StepWriter:
    """Steps as functions, with the tables of their calls in front of them; those that are there already are not written again."""

    def __init__(self, name: str, offsets: Mapping[int, int]) -> None:
        self.name, self._offsets = name, offsets
        self._tables: dict[str, str] = {}

    def write(self, tag: str, call: KernelCall) -> list[str]:
        """`step_TAG`, which makes a call."""
        lines, arguments = [make_comment(f"{call.node}: {call.what}")], []
        for argument in call.arguments:
            if isinstance(argument, Struct):
                table = f"{argument.ctype} = {_format_initializer(self.name, argument.fields)}"
                if table not in self._tables:
                    label = self._tables[table] = f"{argument.ctype.removeprefix('struct fc_')}_{tag}"
                    lines.append(f"static const {table.replace(' =', f' {label} =', 1)};")
                arguments.append(f"&{self._tables[table]}")
            else:
                arguments.append(_format_expression(self.name, argument, self._offsets))
        return [
            *lines,
            f"static void step_{tag}(const struct fc_memory *at)",
            "{",
            "    (void)at;",
            f"    {call.kernel}(",
            *(f"        {line}" for line in _wrap(", ".join(arguments) + ");")),
            "}",
            "",
        ]


def _format_arrays(program: Program) -> list[str]:
    inputs, outputs = (", ".join(each.name for each in side) for side in list_parameters(program))
    return [f"    const void *const inputs[] = {{{inputs}}};", f"    void *const outputs[] = {{{outputs}}};"]


def _format_byte_entry(writer: _StepWriter, program: Program, steps: int, byte_entry: ByteEntry) -> list[str]:
    """The steps of a run, but for those that make bytes of the caller's floats, or floats of bytes for the caller."""
    name, lines, runs, begun = writer.name, [""], list[str](), 0
    for number, call in [*sorted(byte_entry.calls.items()), (steps, None)]:
        if begun < number:
            runs.append(f"    FC_LEVEL({name}_steps)({begun}, {number}, inputs, outputs, arena);")
        if call is not None:
            lines += writer.write(f"{number}_bytes", call)
            runs.append(f"    step_{number}_bytes(&memory);")
        begun = number + 1
    return [
        *lines,
        f"void {name}_run_bytes({format_parameters(program, byte_entry.inputs, byte_entry.outputs)}, void *arena)",
        "{",
        *_format_arrays(program),
        "    const struct fc_memory memory = {(uint8_t *)arena, inputs, outputs};",
        *runs,
        "}",
    ]


def _format_expression(name: str, argument: Argument, offsets: Mapping[int, int]) -> str:
    if argument is None:
        return "0"
    if isinstance(argument, WeightAddress):
        return f"(const {argument.ctype} *)({name}_weights + {argument.offset})"
    if isinstance(argument, Address):
        return _format_address(argument, offsets)
    return _format_number(argument)


def _format_address(argument: Address, offsets: Mapping[int, int]) -> str:
    where, number = argument.buffer.where, argument.buffer.number
    if where == "arena":
        return f"({argument.ctype} *)(at->arena + {offsets[number] + argument.offset})"
    bases = {"input": f"(const uint8_t *)at->inputs[{number}]", "output": f"(uint8_t *)at->outputs[{number}]"}
    base = bases[where]  # constants lie among the weights
    const = "const " if where == "input" else ""
    return f"({const}{argument.ctype} *)({base} + {argument.offset})"


def _format_initializer(name: str, fields: Mapping[str, Any]) -> str:
    parts = []
    for key, value in fields.items():
        if isinstance(value, Mapping):
            text = _format_initializer(name, value)
        elif isinstance(value, list):
            text = "{" + ", ".join(_format_number(each) for each in value) + "}"
        elif isinstance(value, WeightAddress):
            text = f"(const {value.ctype} *)({name}_weights + {value.offset})"
        elif value is None or (not isinstance(value, np.floating | float) and value == 0):
            continue  # what is not named is zero
        else:
            text = _format_number(value)
        parts.append(f".{key} = {text}")
    return "{" + (", ".join(parts) or "0") + "}"


def _format_number(value: Any) -> str:
    return _format_float(value) if isinstance(value, float | np.floating) else str(int(value))


def _format_float(value: float | np.floating[Any]) -> str:
    """A float32 to the last bit."""
    short = np.float32(value)
    if not np.isfinite(short):
        return "(-__builtin_inff())" if short < 0 else "__builtin_inff()" if short > 0 else '__builtin_nanf("")'
    text = f"{short:.9g}"
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def _wrap(text: str, width: int = 110) -> list[str]:
    lines, line = [], ""
    for part in text.split(", "):
        if line and len(line) + len(part) > width:
            lines.append(f"{line},")
            line = part
        else:
            line = f"{line}, {part}" if line else part
    return [*lines, line]


# --- weights ---


def _format_weights(name: str, weights: bytes, arranged: Mapping[str, bytes]) -> str:
    return (
        f"{INCLUDE_ORDER if arranged else ''}#include <stdint.h>\n\n"
        f"extern const uint8_t {name}_weights[];\n"
        f"_Alignas({ARENA_ALIGNMENT}) const uint8_t {name}_weights[{len(weights)}] = {{\n"
        f"{_choose_order(_format_bytes(weights), {order: _format_bytes(each) for order, each in arranged.items()})}}};\n"
    )


def _format_bytes(data: bytes) -> str:
    return ",\n".join("    " + ", ".join(map(str, data[at : at + 32])) for at in range(0, len(data), 32)) + "\n"


def _choose_order(usual: str, arranged: Mapping[str, str]) -> str:
    """Text for what order.h says of the core that is compiled for."""
    if not arranged:
        return usual
    parts = [f"defined(FC_ORDER_{order.upper()})\n{text}" for order, text in arranged.items()]
    return "#if " + "#elif ".join(parts) + f"#else\n{usual}#endif\n"


def _write_weights(name: str, arranged: Sequence[str]) -> str:
    """Weights that no C parser reads: the assembler takes the file as it is."""
    usual, *taken = (f'    .incbin "{name}_weights{part}.bin"\n' for part in ("", *(f"_{order}" for order in arranged)))
    return f"""/* The weights, from {name}_weights.bin{" and its like" if taken else ""}. */
{INCLUDE_ORDER if taken else ""}\
#if defined(__APPLE__)
    .const
    .p2align 6
    .globl _{name}_weights
_{name}_weights:
#else
    .section .rodata
    .p2align 6
    .globl {name}_weights
{name}_weights:
#endif
{_choose_order(usual, dict(zip(arranged, taken, strict=True)))}\
#if defined(__ELF__)
    .section .note.GNU-stack,"",%progbits
#endif
"""
