"""A network as a shared library: its code compiled once for each level, and the table that is found when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fcdeploy import __version__
from fcdeploy.native.calls.call import KernelCall
from fcdeploy.native.placing.memory import Memory
from fcdeploy.native.program.steps import Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.writing.text import PARAMETERS, make_identifier, make_literal
from fcdeploy.tables.native import Level

RUN = """
enum {{ INPUTS = sizeof input_bytes / sizeof *input_bytes, OUTPUTS = sizeof output_bytes / sizeof *output_bytes }};

typedef void (*some_steps)(int32_t first, int32_t last, {parameters});

static void run(some_steps some, const struct fcdeploy_run *run)
{{
    const void *in[INPUTS + 1];
    void *out[OUTPUTS + 1];
    for (size_t n = 0; n < run->count; n++) {{
        for (size_t i = 0; i < INPUTS; i++)
            in[i] = (const uint8_t *)run->inputs[i] + n * input_bytes[i];
        for (size_t i = 0; i < OUTPUTS; i++)
            out[i] = (uint8_t *)run->outputs[i] + n * output_bytes[i];
        some(0, {count}, in, out, run->arena);
    }}
}}
"""
RUN_LEVEL = """
static void run_{level}(const struct fcdeploy_run *all)
{{
    run({steps}_{level}, all);
}}
"""
CHOOSE = """
const struct fcdeploy_native *fcdeploy_native(const char *level)
{
    const int cpu = fc_cpu();
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if ((needs[i] & cpu) == needs[i] && (!level || !strcmp(level, tables[i].level)))
            return &tables[i];
    return 0;
}
"""
"""C of a library: samples one after another, and the best level that the CPU can run."""


def format_library(program: Program, calls: Sequence[KernelCall], memory: Memory, levels: Sequence[Level]) -> str:
    """The C file that offers the levels, best first."""
    steps, count = f"{make_identifier(program.name)}_steps", len(calls)
    lines = ['#include "cpu.h"', '#include "library.h"', "", "#include <string.h>", ""]
    lines += [f"void {steps}_{level.name}(int32_t first, int32_t last, {PARAMETERS});" for level in levels]
    lines += [
        "",
        f"static const size_t input_bytes[] = {{{', '.join(str(t.nbytes) for t in program.inputs)}}};",
        f"static const size_t output_bytes[] = {{{', '.join(str(t.nbytes) for t in program.outputs)}}};",
        RUN.strip("\n").format(parameters=PARAMETERS, count=count),
    ]
    lines += [RUN_LEVEL.rstrip("\n").format(level=level.name, steps=steps) for level in levels]
    description = describe(program, calls, memory)
    lines += ["", *_format_tables(steps, count, levels, json.dumps(description), description["arena_bytes"])]
    return "\n".join(lines) + CHOOSE


def _format_tables(steps: str, count: int, levels: Sequence[Level], description: str, arena_bytes: int) -> list[str]:
    """What the library says of itself, and what each level needs of the CPU."""
    return [
        "static const char description[] =",
        *(f"    {make_literal(part)}" for part in _split_pieces(description)),
        "    ;",
        "",
        "static const struct fcdeploy_native tables[] = {",
        *(
            f'    {{FC_LIBRARY_VERSION, {count}, "{level.name}", description, {arena_bytes}, '
            f"run_{level.name}, {steps}_{level.name}}},"
            for level in levels
        ),
        "};",
        f"static const int needs[] = {{{', '.join(level.constant for level in levels)}}};",
        "",
    ]


def _split_pieces(text: str, length: int = 100) -> list[str]:
    return [text[at : at + length] for at in range(0, len(text), length)]


def describe(program: Program, calls: Sequence[KernelCall], memory: Memory) -> dict[str, Any]:
    """What a library says of itself: inputs, outputs and steps."""

    def ends(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [
            {
                "name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes,
                **({"scale": float(t.coding.scale), "zero_point": t.coding.zero_point} if t.coding else {}),
            }
            for t in tensors
        ]  # fmt: skip

    steps = [{"node": call.node, "what": call.what, "kernel": call.kernel, "macs": call.macs} for call in calls]
    return {
        "schema": "fcdeploy.native/1", "name": program.name, "model": program.model, "fcdeploy": __version__,
        "inputs": ends(program.inputs),
        "outputs": ends(program.outputs), "steps": steps, "macs": sum(call.macs for call in calls),
        "arena_bytes": memory.nbytes, "arena_bound": memory.bound,
    }  # fmt: skip
