"""`fcdeploy calibration`: merge, show and convert."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.group("calibration")
def command() -> None:
    """Calibration files: add them up, look into them, take them to other tools and back."""


@command.command("merge")
@click.argument("files", type=options.FILE, nargs=-1, required=True, metavar="A B...")
@options.output_option("The calibration of all their samples.", required=True)
@options.force_option
@options.json_option
def merge(files: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Add up calibrations of one model.

    They were made on different samples, on this machine or others.  The result is the file that one run over all the
    samples would have written, whatever the order and the cut.
    """
    from fcdeploy.commands.calibration import merge_calibrations

    with console.progress() as on_step:
        report = merge_calibrations(files, output=output, force=force, on_step=on_step)
    console.show(report, as_json=as_json)


@command.command("show")
@click.argument("calibration", type=options.FILE)
@click.option(
    "--tensor", metavar="NAME", help="Only this tensor, or those that match a glob; one alone is drawn large."
)
@options.json_option
def show(calibration: Path, tensor: str | None, as_json: bool) -> None:
    """Ends, percentiles and a histogram of every tensor."""
    from fcdeploy.commands.calibration import show_calibration

    console.show(show_calibration(calibration, tensor=tensor), as_json=as_json)


@command.command("convert")
@click.argument("calibration", type=options.FILE, metavar="FILE")
@options.output_option("NAME.calib, NAME.json (onnxruntime) or NAME.cache (TensorRT).", required=True)
@click.option("--model", type=options.FILE, metavar="MODEL", help="The float model that the ranges are of.")
@click.option("--header", metavar="TEXT", default="TRT-8601-EntropyCalibration2", help="First line of a NAME.cache.")
@options.force_option
@options.json_option
def convert(calibration: Path, output: Path, model: Path | None, header: str, force: bool, as_json: bool) -> None:
    """Convert ranges from one tool's file to another's.

    Reads calibrations of fcdeploy, onnxruntime (JSON, cache, flatbuffers) and TensorRT (cache), recognized by
    their content.
    """
    from fcdeploy.commands.convert import convert as run

    console.show(run(calibration, output=output, model=model, header=header, force=force), as_json=as_json)
