"""`scripts/bench native-memory`: the most memory that a C program takes which runs an int8 model, as the system counts it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import click

import fcdeploy
from fcdeploy.graph.model import read_model
from fcdeploy.native.build import build
from fcdeploy.native.reading.operators import read_program
from scripts.shipped import make_model

MAIN = """
#include <stdio.h>
#include <string.h>
#include "net.h"
static @IN@ in[@IN_SIZE@];
static @OUT@ out[@OUT_SIZE@];
static _Alignas(64) unsigned char arena[NET_ARENA_BYTES];
int main(void)
{
    char line[256];
    for (int run = 0; run < 100; run++)
        net_run(in, out, arena);
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "VmHWM:", 6))
            fputs(line, stdout);
    return 0;
}
"""
HOW = ("-std=c11", "-O2", "-march=native")


@click.command("native-memory")
@click.argument(
    "model", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="[MODEL.int8.onnx]"
)
def native_memory(model: Path | None) -> None:
    """Peak memory of a C program of gcc's with the model's folder of C; models/resnet.py without one. One input, one output."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = model or make_model("resnet", {}, folder)[0]
        program = read_program(read_model(model), "net")
        fcdeploy.compile(model, output=folder / "c", emit="c", name="net", allow_float=True)
        (x,), (y,) = program.inputs, program.outputs
        words = {"IN": x.dtype, "IN_SIZE": x.size, "OUT": y.dtype, "OUT_SIZE": y.size}
        text = MAIN
        for word, value in words.items():
            text = text.replace(f"@{word}@", {"float32": "float", "uint8": "unsigned char"}.get(str(value), str(value)))
        (folder / "main.c").write_text(text)
        sources = sorted(map(str, [*(folder / "c").glob("net*.c"), *(folder / "c").glob("net*.S")]))
        for linked in ((), ("-static",)):
            command = ["gcc", *HOW, *linked, f"-I{folder / 'c'}", "main.c", *sources, "-o", "program"]
            subprocess.run(command, cwd=folder, check=True)
            done = subprocess.run(["./program"], cwd=folder, check=True, capture_output=True, text=True)
            kilobytes = int(done.stdout.split()[1])
            said = "linked statically" if linked else "linked dynamically"
            click.echo(
                f"{program.macs:,} multiplications, arena {build(program).arena_bytes:,} bytes, {said}: {kilobytes:,} kB"
            )
