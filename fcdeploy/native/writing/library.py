"""A network as a shared library: its code compiled once for each level, and the table that is found when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fcdeploy.native.program.steps import Program
from fcdeploy.tables.native import Level


def format_library(name: str, program: Program, levels: Sequence[Level], description: str, arena_bytes: int) -> str:
    """The C file that offers the levels, best first."""
    steps = f"{name}_steps"
    count = len(json.loads(description)["steps"])
    parameters = "const void *const *inputs, void *const *outputs, void *arena"
    lines = ['#include "cpu.h"', '#include "library.h"', "", "#include <string.h>", ""]
    for level in levels:
        lines.append(f"void {steps}_{level.name}(int32_t first, int32_t last, {parameters});")
    lines += [
        "",
        f"static const size_t input_bytes[] = {{{', '.join(str(t.nbytes) for t in program.inputs)}}};",
        f"static const size_t output_bytes[] = {{{', '.join(str(t.nbytes) for t in program.outputs)}}};",
        "enum { INPUTS = sizeof input_bytes / sizeof *input_bytes, OUTPUTS = sizeof output_bytes / sizeof *output_bytes };",
        "",
        "typedef void (*some_steps)(int32_t first, int32_t last, " + parameters + ");",
        "",
        f"static void run(some_steps some, {parameters}, size_t count)",
        "{",
        "    const void *in[INPUTS + 1];",
        "    void *out[OUTPUTS + 1];",
        "    for (size_t n = 0; n < count; n++) {",
        "        for (size_t i = 0; i < INPUTS; i++)",
        "            in[i] = (const uint8_t *)inputs[i] + n * input_bytes[i];",
        "        for (size_t i = 0; i < OUTPUTS; i++)",
        "            out[i] = (uint8_t *)outputs[i] + n * output_bytes[i];",
        f"        some(0, {count}, in, out, arena);",
        "    }",
        "}",
        "",
    ]
    for level in levels:
        lines += [
            f"static void run_{level.name}({parameters}, size_t count)",
            "{",
            f"    run({steps}_{level.name}, inputs, outputs, arena, count);",
            "}",
            "",
        ]
    lines += ["static const char description[] ="]
    lines += [f"    {json.dumps(part)}" for part in _split_pieces(description)]
    lines += ["    ;", "", "static const struct fcdeploy_native tables[] = {"]
    for level in levels:
        lines.append(
            f'    {{FC_LIBRARY_VERSION, {count}, "{level.name}", description, {arena_bytes}, '
            f"run_{level.name}, {steps}_{level.name}}},"
        )
    needs = ", ".join(level.constant for level in levels)
    lines += [
        "};",
        f"static const int needs[] = {{{needs}}};",
        "",
        "const struct fcdeploy_native *fcdeploy_native(const char *level)",
        "{",
        "    const int cpu = fc_cpu();",
        "    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)",
        "        if ((needs[i] & cpu) == needs[i] && (!level || !strcmp(level, tables[i].level)))",
        "            return &tables[i];",
        "    return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _split_pieces(text: str, length: int = 100) -> list[str]:
    return [text[at : at + length] for at in range(0, len(text), length)]
