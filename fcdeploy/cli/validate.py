"""`fcdeploy validate`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("validate")
@click.argument("int8", type=options.FILE)
@click.option("--against", type=options.FILE, metavar="FLOAT", required=True, help="The float model it was made from.")
@options.data_option(required=True)
@click.option(
    "--metric",
    metavar="M",
    help="top1, top5, regression, iou (boxes x1, y1, x2, y2), tokens, miou, text; with the float model's answers in place of "
    "labels agreement, boxes, cosine, miou, text; or FILE.py:FUNCTION, a function of two dicts of arrays (samples first), "
    "outputs and labels, to one score a sample, higher is better. Default: what fits the labels and the outputs.",
)
@click.option(
    "--max-drop",
    type=float,
    metavar="PP",
    help="Largest drop that passes; beyond it, exit with 1. Percentage points; for regression the rise of the RMSE, in the "
    "labels' unit; for a function that does not score 0 or 1, its unit.",
)
@click.option(
    "--layers", is_flag=True, help="Also show which roundings cause the loss; the first line says what to do."
)
@click.option("--same-data", is_flag=True, help="Also use samples that the int8 model was calibrated on.")
@click.option("--limit", "--samples", "limit", type=options.COUNT, metavar="N", help="Take the first N samples.")
@options.seed_option
@options.format_options
@options.workers_option
@options.cluster_option
@options.compiled_engine_option
@options.operators_option
@options.batch_axis_option
@options.state_option
@options.json_option
def command(int8: Path, as_json: bool, **arguments: object) -> None:
    """Compare an int8 model with the float model it was made from, on the same samples.

    Labelled samples (an array `label`) give accuracy, its drop with a 95 % interval and a paired p-value; without
    labels it is the share of unchanged decisions. SQNR compares the outputs; kernel SQNR compares the int8 model with
    itself, computed without the runtime's shortcuts.
    """
    from fcdeploy.commands.validate import validate

    with console.progress() as on_step:
        report = validate(int8, on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)
