"""`fcdeploy compile`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.cli.completion import complete
from fcdeploy.tables.native import CORES, MACHINES


@click.command("compile")
@options.model_argument
@options.output_option("The library, with --emit c the folder, with --emit object the object file.")
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="T",
    shell_complete=complete(("host", *MACHINES, *CORES)),
    help=f"host, a machine: {', '.join(MACHINES)}; or a core, for --emit object and c: {', '.join(CORES)}.",
)
@click.option(
    "--emit",
    default="library",
    show_default=True,
    metavar="E",
    help="library: shared, with every level of instructions, for fcdeploy.load_native or C. c: a folder of C files. "
    "object: one file to link, for a core, and its header.",
)
@click.option(
    "--kernels",
    default="own",
    show_default=True,
    metavar="K",
    help="own, or cmsis-nn=FOLDER: with --emit c, layers call your copy of CMSIS-NN where it gives the same bytes.",
)
@click.option("--name", metavar="NAME", help="What its functions are called; the file's name up to its first dot.")
@options.shape_option
@options.data_option(required=False)
@click.option("--calibration", type=options.FILE, metavar="C", help="Prove it on the samples in a calibration file.")
@click.option("--samples", type=options.COUNT, metavar="N", help="Prove it on N samples; 4 by default.")
@options.preprocess_option
@click.option("--allow-float", is_flag=True, help="Also compile steps that compute in float, and name them.")
@click.option(
    "--allow-ties", is_flag=True, help="With cmsis-nn: also where it rounds some sums one level off, which is counted."
)
@click.option("--dry-run", is_flag=True, help="Show the program and write nothing.")
@options.force_option
@options.json_option
def command(model: Path, shapes: tuple[str, ...], as_json: bool, **arguments: object) -> None:
    """Compile an int8 MODEL to native code that needs no runtime: the same integers on every CPU.

    Before anything is put in place, every step is compared with exact arithmetic and the outputs with onnxruntime.

    \b
    fcdeploy compile resnet.int8.onnx -o resnet.so
    fcdeploy compile resnet.int8.onnx -o resnet_c --emit c
    fcdeploy compile resnet.int8.onnx -o resnet.o --emit object --target cortex-m4
    fcdeploy compile resnet.int8.onnx --dry-run
    """
    given = options.parse_shapes(shapes)
    from fcdeploy.commands.compile import compile as run

    with console.progress() as on_step:
        report = run(model, shapes=given, on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)
