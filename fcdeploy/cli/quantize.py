"""`fcdeploy quantize`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("quantize")
@options.model_argument
@click.option("--int8", is_flag=True, required=True, help="8-bit weights and activations.")
@click.option("--calibration", type=options.FILE, metavar="C", help="A file of fcdeploy calibrate, in place of --data.")
@options.data_options(required=False)
@options.output_option("The int8 model.")
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="T",
    help="host, portable, x86-avx2, x86-vnni or arm64: which CPUs the integers are for.",
)
@click.option(
    "--ranges",
    default="mse",
    show_default=True,
    metavar="R",
    help="mse, minmax, percentile or entropy, from histograms.",
)
@click.option(
    "--effort", default="balanced", show_default=True, metavar="E", help="fast, or balanced: corrects biases."
)
@click.option(
    "--keep-float", multiple=True, metavar="NODE", help="Leave a node in float: its name, a glob, or op:TYPE."
)
@click.option(
    "--plan", type=options.FILE, metavar="FILE", help="Take this plan, as --dry-run --json printed it, edited or not."
)
@click.option(
    "--costs",
    metavar="C",
    help="What nodes cost, to leave slow ones in float: a file (measured and written if new), table (never measure), "
    "measure (anew), or none (take every integer kernel). By default measured once and kept, but for --effort fast "
    "and other CPUs.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@options.force_option
@options.json_option
def command(int8: bool, model: Path, as_json: bool, **arguments: object) -> None:  # noqa: ARG001 - int8 is the only kind
    """Write the int8 form of a float ONNX MODEL, and say which kernel runs each node.

    Ranges come from a calibration, or from samples in the same run.
    """
    from fcdeploy.stations.quantize import quantize

    with console.progress() as on_step:
        report = quantize(model, on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)
