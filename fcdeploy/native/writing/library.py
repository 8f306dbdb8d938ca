"""A network as a shared library: its code compiled once for each level, and the table that is found when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fcdeploy.native.program.steps import Program
from fcdeploy.native.writing.text import make_literal
from fcdeploy.tables.native import Level

PARAMETERS = "const void *const *inputs, void *const *outputs, void *arena"
RUN = """
enum {{ INPUTS = sizeof input_bytes / sizeof *input_bytes, OUTPUTS = sizeof output_bytes / sizeof *output_bytes }};

typedef void (*some_steps)(int32_t first, int32_t last, {parameters});

static void run(some_steps some, {parameters}, size_t count)
{{
    const void *in[INPUTS + 1];
    void *out[OUTPUTS + 1];
    for (size_t n = 0; n < count; n++) {{
        for (size_t i = 0; i < INPUTS; i++)
            in[i] = (const uint8_t *)inputs[i] + n * input_bytes[i];
        for (size_t i = 0; i < OUTPUTS; i++)
            out[i] = (uint8_t *)outputs[i] + n * output_bytes[i];
        some(0, {count}, in, out, arena);
    }}
}}
"""
RUN_LEVEL = """
static void run_{level}({parameters}, size_t count)
{{
    run({steps}_{level}, inputs, outputs, arena, count);
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


def format_library(name: str, program: Program, levels: Sequence[Level], description: str, arena_bytes: int) -> str:
    """The C file that offers the levels, best first."""
    steps, count = f"{name}_steps", len(json.loads(description)["steps"])
    lines = ['#include "cpu.h"', '#include "library.h"', "", "#include <string.h>", ""]
    lines += [f"void {steps}_{level.name}(int32_t first, int32_t last, {PARAMETERS});" for level in levels]
    lines += [
        "",
        f"static const size_t input_bytes[] = {{{', '.join(str(t.nbytes) for t in program.inputs)}}};",
        f"static const size_t output_bytes[] = {{{', '.join(str(t.nbytes) for t in program.outputs)}}};",
        RUN.strip("\n").format(parameters=PARAMETERS, count=count),
    ]
    lines += [RUN_LEVEL.rstrip("\n").format(level=level.name, parameters=PARAMETERS, steps=steps) for level in levels]
    lines += ["", *_format_tables(steps, count, levels, description, arena_bytes)]
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
