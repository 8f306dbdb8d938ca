"""`fcdeploy bundle`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("bundle")
@click.argument("int8", type=options.FILE)
@options.output_option("The bundle: a folder, or a zip when the name ends in .zip.")
@click.option("--triton", type=options.FILE, metavar="DIR", help="Put the model into a Triton model repository.")
@click.option("--name", metavar="NAME", help="What it is served as; the file's name up to its first dot by default.")
@click.option("--version", default="1", show_default=True, metavar="N", help="The version it is served as.")
@click.option("--calibration", type=options.FILE, metavar="C", help="Include the calibration.")
@click.option("--plan", type=options.FILE, metavar="FILE", help="Include the plan, from quantize --save-plan.")
@click.option("--validation", type=options.FILE, metavar="FILE", help="Include the report of validate --json.")
@click.option("--bench", type=options.FILE, metavar="FILE", help="Include the report of bench --json.")
@click.option(
    "--library", "libraries", type=options.FILE, multiple=True, metavar="FILE",
    help="Include native code from fcdeploy compile; once for each machine.",
)  # fmt: skip
@click.option(
    "--samples",
    type=options.COUNT,
    metavar="N",
    help="How many golden samples; by default 4, or as many as take no more bytes than the model.",
)
@options.data_option(required=False)
@options.preprocess_option
@options.classes_option
@options.force_option
@options.operators_option
@options.json_option
def command(int8: Path, as_json: bool, **arguments: object) -> None:
    """Put a model and all that is known of it into one folder or zip that is deployed whole.

    Golden samples, with the outputs of this CPU, are taken from DATA, else from the calibration, else made up.
    """
    from fcdeploy.commands.bundle import bundle

    with console.progress() as on_step:
        report = bundle(int8, on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)
