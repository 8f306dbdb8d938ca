"""`fcdeploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.tables.devices import DEVICES


@click.command("inspect")
@options.model_argument
@click.option(
    "--kernels", is_flag=True, help="Load the model in onnxruntime and show which kernel runs each node here."
)
@click.option(
    "--saturation", is_flag=True, help="Prove which layers of a quantized model are exact on CPUs that add in 16 bits."
)
@click.option(
    "--exact",
    is_flag=True,
    help="Run an int8 model on --data and compare what each kernel writes with exact arithmetic; exit with 1 when they "
    "differ by more than rounding ties.",
)
@options.shape_option
@click.option(
    "--runtimes", is_flag=True, help="Say which other runtimes would refuse the model, or compute it otherwise."
)
@options.device_options(
    f"What native code takes on D, and whether it fits: {', '.join(DEVICES)}; exit with 1 when it does not."
)
@options.data_option(required=False)
@click.option("--samples", type=options.COUNT, metavar="N", help="Take the first N samples; 4 by default.")
@options.preprocess_option
@options.operators_option
@options.all_option
@options.json_option
def command(model: Path, shapes: tuple[str, ...], as_json: bool, all_rows: bool, **arguments: object) -> None:
    """Show the layers of an ONNX model, float or int8, with their parameters, multiplications and memory.

    Everything is counted for one sample, free axes at --shape; MACs are multiply-accumulates.

    \b
    fcdeploy inspect model.onnx
    fcdeploy inspect detector.onnx --shape x:1,3,640,480
    fcdeploy inspect model.int8.onnx --kernels
    fcdeploy inspect model.int8.onnx --saturation
    fcdeploy inspect model.int8.onnx --exact --data samples.npz
    fcdeploy inspect model.int8.onnx --runtimes
    fcdeploy inspect model.int8.onnx --device stm32f4 --max-ram 96KB --max-ms 50
    """
    from fcdeploy.commands.inspect import inspect

    with console.progress() as on_step:
        report = inspect(model, shapes=options.parse_shapes(shapes), on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json, everything=all_rows)
