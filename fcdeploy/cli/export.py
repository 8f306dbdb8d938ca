"""`fcdeploy export`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("export")
@click.argument("module", metavar="FILE.py:FUNCTION")
@options.output_option("The ONNX file to write.", required=True)
@click.option(
    "--state", type=options.FILE, metavar="FILE[:KEY]", help="Weights: .safetensors, or a torch.save of a state dict."
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME:]SHAPE[:DTYPE]",
    help="Shape of an input, as in 1,3,32,32 or tokens:1,16:int64; once for each. The first axis is the batch, and "
    "free. An axis of any length is LETTERS=LENGTH: 1,time=50,8. Without it, example_inputs() of FILE.py is called.",
)
@options.data_option(required=False)
@click.option(
    "--opset", type=int, metavar="N", help="ONNX operator set; by default the lowest that can express the network."
)
@options.force_option
@options.json_option
def command(
    module: str,
    output: Path,
    state: Path | None,
    inputs: tuple[str, ...],
    data: str | None,
    opset: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a PyTorch network as a float ONNX model and prove it the same.

    FUNCTION takes no arguments and returns the torch.nn.Module. The model is run against torch on its example, on
    random inputs at two batch sizes, and on DATA; where an output differs by more than 1e-4 of its largest value,
    nothing is written.

    \b
    fcdeploy export models/lenet5.py:lenet5 --state models/lenet5.safetensors -o lenet5.onnx
    """
    from fcdeploy.commands.export import export

    with console.progress() as on_step:
        report = export(
            module, output=output, state=state, inputs=inputs, data=data, opset=opset, force=force, on_step=on_step
        )
    console.show(report, as_json=as_json)
