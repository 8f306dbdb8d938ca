"""fcdeploy inspect: what is in a model."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("inspect")
@options.model_argument
@click.option(
    "--kernels", is_flag=True, help="Load the model in onnxruntime and show which kernel runs each node here."
)
@click.option(
    "--saturation", is_flag=True, help="Prove which layers of a quantized model are exact on CPUs that add in 16 bits."
)
@options.json_option
def command(model: Path, kernels: bool, saturation: bool, as_json: bool) -> None:
    """Show the layers of an ONNX model, float or int8, with their parameters, multiplications and memory.

    Everything is counted for one sample; MACs are multiply-accumulates.

    \b
    fcdeploy inspect model.onnx
    fcdeploy inspect model.int8.onnx --kernels
    fcdeploy inspect model.int8.onnx --saturation
    """
    from fcdeploy.stations.inspect import inspect

    console.show(inspect(model, kernels=kernels, saturation=saturation), as_json=as_json)
