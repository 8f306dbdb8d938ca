"""`fcdeploy quantize`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.cli.completion import EFFORTS, RANGES, complete, complete_nodes
from fcdeploy.errors import FcdeployError
from fcdeploy.tables.targets import TARGETS


@click.command("quantize")
@options.model_argument
@click.option("--int8", is_flag=True, help="The default: --weights int8 --activations int8.")
@click.option("--weights", metavar="W", help="int8 (default), int16, or int4 (in blocks, for dense layers).")
@click.option(
    "--activations",
    metavar="A",
    help="int8 (default), int16, none (they stay float), or dynamic (scaled in every run, for dense and LSTM layers).",
)
@click.option(
    "--calibration", type=options.FILE, metavar="C", help="Calibration file of fcdeploy calibrate, in place of --data."
)
@options.data_options(required=False)
@options.output_option("The int8 model.")
@click.option(
    "--target",
    shell_complete=complete(("host", *TARGETS)),
    default="host",
    show_default=True,
    metavar="T",
    help=f"host, {', '.join(TARGETS)}: which CPUs the integers are for.",
)
@click.option(
    "--ranges",
    shell_complete=complete(RANGES),
    metavar="R",
    help="mse (default), mse-unweighted, minmax, percentile, percentile-99.9 or entropy.",
)
@click.option(
    "--effort",
    shell_complete=complete(EFFORTS),
    metavar="E",
    help="fast, balanced (default; also corrects biases) or best (also rounds every weight by what its layer reads).",
)
@click.option(
    "--keep-float",
    multiple=True,
    shell_complete=complete_nodes,
    metavar="NODE",
    help="Keep a node in float: its name, a pattern such as 'stage1*', or op:TYPE. Repeatable.",
)
@click.option(
    "--for",
    "runtimes",
    metavar="NAMES",
    help="Other runtimes that must run the file, such as openvino,web,opencv,tract: what one of them refuses or computes wrongly "
    "as integers stays in float.",
)
@click.option(
    "--engine",
    metavar="E",
    default="onnxruntime",
    show_default=True,
    help="What will run the model: onnxruntime, or native (code from fcdeploy compile; every integer kernel is used, and a node "
    "without one is refused).",
)
@options.device_options(
    "Quantize for native code on D, such as stm32f4 (fcdeploy inspect --help lists them): whether it fits is said, and where "
    "the model would have to be cut; exit with 1 when it does not."
)
@click.option(
    "--plan", type=options.FILE, metavar="FILE", help="Use this plan, as --dry-run --json printed it, edited or not."
)
@click.option(
    "--costs",
    metavar="C",
    help="What nodes cost, to leave slow ones in float: a file (measured and written if new), table (never measure), "
    "measure (anew), or none (take every integer kernel). By default measured once and cached, except with --effort fast "
    "and for other CPUs; with --engine native only where they are asked for.",
)
@click.option(
    "--save-plan", type=options.FILE, metavar="FILE", help="Also write the plan that was carried out, for a bundle."
)
@click.option(
    "--max-drop",
    type=float,
    metavar="PP",
    help="Move layers to float until the drop on --eval is at most this: percentage points, or as in fcdeploy validate.",
)
@click.option("--eval", metavar="DATA", help="Samples to measure the drop on; not those used for calibration.")
@click.option("--metric", metavar="M", help="As in fcdeploy validate; by default what fits the labels.")
@click.option("--minutes", type=float, metavar="N", help="How long to search at most; by default 10.")
@click.option("--same-data", is_flag=True, help="Allow samples in --eval that were calibrated on.")
@click.option(
    "--floor",
    metavar="PERCENT[,DB]",
    help="What the result must reach on samples held back: percent of equal decisions, and SQNR in dB where an output is no "
    "decision; by default 99,20. Or none.",
)
@click.option("--accept", is_flag=True, help="Write the result even if it is below the floor.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@options.force_option
@options.operators_option
@options.all_option
@options.batch_axis_option
@options.state_option
@options.json_option
def command(
    int8: bool,
    weights: str | None,
    activations: str | None,
    model: Path,
    as_json: bool,
    all_rows: bool,
    **arguments: object,
) -> None:
    """Write the quantized form of a float ONNX MODEL, and say which kernel runs each node.

    Ranges come from a calibration, or from samples in the same run.
    """
    types = _read_types(int8, weights, activations)
    from fcdeploy.commands.quantize import quantize

    with console.progress() as on_step:
        report = quantize(model, on_step=on_step, **types, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json, everything=all_rows)


def _read_types(int8: bool, weights: str | None, activations: str | None) -> dict[str, str]:
    """What the three options ask for: `--int8` or nothing, or `--weights` with or without `--activations`."""
    given = [f"--{name} {value}" for name, value in (("weights", weights), ("activations", activations)) if value]
    if int8 and given:
        raise FcdeployError(f"--int8 is --weights int8 --activations int8, and {given[0]} is there too", given[0])
    if given and not weights:
        raise FcdeployError(f"{given[0]} says nothing of the weights", f"--weights int8 {given[0]}")
    return {"weights": weights or "int8", "activations": activations or "int8"}
