"""`fcdeploy calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("calibrate")
@options.model_argument
@options.data_options()
@options.output_option("Calibration file; MODEL.calib unless given.")
@click.option("--csv", "csv_file", type=options.FILE, metavar="FILE", help="Also write the table of ranges as CSV.")
@click.option("--batch", type=options.COUNT, metavar="N", help="Samples per run; chosen from the model unless given.")
@click.option(
    "--all-tensors",
    "everything",
    is_flag=True,
    help="Also record tensors that no int8 model has, because a clip is fused into the layer.",
)
@click.option(
    "--keep-samples/--no-keep-samples",
    default=True,
    help="Store a few samples, for bias correction and rounding, or none, for private data.",
)
@options.max_memory_option
@options.workers_option
@options.cluster_option
@click.option("--skip-bad", is_flag=True, help="Skip samples that cannot be used, and name them, instead of stopping.")
@options.force_option
@options.operators_option
@options.batch_axis_option
@options.state_option
@options.all_option
@options.json_option
def command(model: Path, as_json: bool, all_rows: bool, **arguments: object) -> None:
    """Run MODEL on samples once and record the dynamic range of every weight, bias and activation.

    The file holds exact ends, histograms and per-channel moments, so any range method can be chosen later, without
    running the model again.  Stopped or crashed, the same command goes on where it was.
    """
    from fcdeploy.commands.calibrate import calibrate

    with console.progress() as on_step:
        report = calibrate(model, on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json, everything=all_rows)
