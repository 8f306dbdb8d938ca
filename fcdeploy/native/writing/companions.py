"""What lies beside the C of a network for whoever tries it: a program that runs one sample, and a file for CMake."""

from __future__ import annotations

from fcdeploy.native.program.steps import Program
from fcdeploy.native.writing.parameters import list_parameters

CMSIS_NN = "cmsis_nn.h"  # the kernel that calls a copy of CMSIS-NN
SHOWN = 10  # numbers of an output


def write_example(name: str, program: Program) -> str:
    """A program that reads a sample from a file, or takes zeros, and prints the beginning of each output."""
    upper, (inputs, outputs) = name.upper(), list_parameters(program)
    lines = [
        "/* Runs one sample: zeros, or what a file holds, one input behind the other as they lie in memory. */",
        f'#include "{name}.h"',
        "#include <stdio.h>",
        "",
        f"static _Alignas(64) unsigned char arena[{upper}_ARENA_BYTES];",
        *(f"static {each.ctype} {each.name}[{upper}_{each.label}_SIZE];" for each in (*inputs, *outputs)),
        "",
        "int main(int count, char **words)",
        "{",
        '    FILE *file = count > 1 ? fopen(words[1], "rb") : NULL;',
        *(
            f"    if (count > 1 && (!file || fread({each.name}, sizeof {each.name}, 1, file) != 1))\n        return 1;"
            for each in inputs
        ),
        "    if (file)",
        "        fclose(file);",
        f"    {name}_run({', '.join(each.name for each in (*inputs, *outputs))}, arena);",
    ]
    for each in outputs:
        lines += [
            f"    for (int i = 0; i < {upper}_{each.label}_SIZE && i < {SHOWN}; i++)",
            f'        printf("{each.name}[%d] = %.9g\\n", i, (double){each.name}[i]);',
        ]
    return "\n".join([*lines, "    return 0;", "}", ""])


def write_cmake(name: str, sources: list[str], *, cmsis_nn: bool) -> str:
    """A static library of the network, and the example where this folder is all that is built."""
    languages = "C ASM" if any(source.endswith(".S") for source in sources) else "C"
    lines = [
        "cmake_minimum_required(VERSION 3.13)",
        f"project({name} LANGUAGES {languages})",
        "set(alone OFF)",
        "if(CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)",
        "  set(alone ON)",
        "endif()",
        "if(alone AND NOT CMAKE_BUILD_TYPE)",
        "  set(CMAKE_BUILD_TYPE Release)",
        "endif()",
        "",
        f"add_library({name} STATIC {' '.join(sources)})",
        f"target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})",
        f"set_target_properties({name} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)",
        "if(NOT MSVC)",
        f"  target_compile_options({name} PRIVATE $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off>)",
        "endif()",
        *(
            [
                'set(CMSIS_NN "" CACHE PATH "The folder of CMSIS-NN")',
                'file(GLOB cmsis_nn "${CMSIS_NN}/Source/ConvolutionFunctions/*.c" "${CMSIS_NN}/Source/NNSupportFunctions/*.c")',
                'list(FILTER cmsis_nn EXCLUDE REGEX "_f(16|32)")',
                f"target_sources({name} PRIVATE ${{cmsis_nn}})",
                f'target_include_directories({name} PRIVATE "${{CMSIS_NN}}/Include")',
                f"target_compile_definitions({name} PRIVATE CMSIS_NN_USE_SINGLE_ROUNDING)",
            ]
            if cmsis_nn
            else []
        ),
        "",
        "if(alone)",
        f"  add_executable({name}_example example.c)",
        f"  target_link_libraries({name}_example {name})",
        f"  set_target_properties({name}_example PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)",
        "endif()",
        "",
    ]
    return "\n".join(lines)
