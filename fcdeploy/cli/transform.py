"""`fcdeploy transform`: dense-to-conv, conv-to-dense, split and repair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.group("transform")
def command() -> None:
    """A model in another shape that computes the same, proven by a run before it is written."""


def comparison_options(function: options.Function) -> options.Function:
    """`--shape --data --samples --preprocess --batch-axis --state --force --json`: on what answers are compared."""
    shared: tuple[Callable[[options.Function], options.Function], ...] = (
        options.json_option,
        options.force_option,
        options.state_option,
        options.batch_axis_option,
        options.preprocess_option,
        click.option("--samples", type=options.COUNT, metavar="N", help="Compare on the first N samples of DATA."),
        options.data_option(required=False),
        options.shape_option,
    )
    for option in shared:
        function = option(function)
    return function


@command.command(
    "dense-to-conv", short_help="A classifier's dense head as convolutions, which slide over larger images."
)
@options.model_argument
@options.output_option("The model with convolutions.", required=True)
@comparison_options
def dense_to_conv(model: Path, output: Path, shapes: tuple[str, ...], as_json: bool, **arguments: object) -> None:
    """Turn a classifier's dense head into convolutions, so that it slides over larger images.

    The kernel of the first is as large as the feature map, those of the others are 1x1. Outputs (N, K) become maps
    (N, K, h, w), 1x1 at the original size. Of a network of convolutions alone the sizes become free.
    """
    from fcdeploy.commands.transform import dense_to_conv as run

    with console.progress() as on_step:
        report = run(model, output=output, shapes=options.parse_shapes(shapes), on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)


@command.command("conv-to-dense", short_help="Convolutions that cover their whole input as dense layers.")
@options.model_argument
@options.output_option("The model with dense layers.", required=True)
@comparison_options
def conv_to_dense(model: Path, output: Path, shapes: tuple[str, ...], as_json: bool, **arguments: object) -> None:
    """Turn convolutions that cover their whole input into dense layers.

    Outputs (N, K, 1, 1) become (N, K); except for the batch, sizes of inputs are fixed.
    """
    from fcdeploy.commands.transform import conv_to_dense as run

    with console.progress() as on_step:
        report = run(model, output=output, shapes=options.parse_shapes(shapes), on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)


@command.command("split", short_help="One model as two: the first half for a small device, the second for a server.")
@options.model_argument
@options.output_option("NAME.onnx writes NAME.first.onnx and NAME.second.onnx.")
@click.option("--at", metavar="NODE", help="Cut behind this node.")
@click.option(
    "--memory",
    type=options.SizeType(),
    metavar="M",
    help="Cut as late as weights and activations fit into M, such as 256KB.",
)
@click.option("--macs", type=options.COUNT, metavar="N", help="Cut as late as N multiply-accumulates allow.")
@options.device_options("Cut an int8 model as late as native code of the first half fits on D, such as stm32f4.")
@comparison_options
def split(model: Path, shapes: tuple[str, ...], as_json: bool, **arguments: object) -> None:
    """Cut a model in two: the first half for a small device, the second for a server.

    One tensor goes from the first to the second; in an int8 model it is bytes, and both files hold its scale and zero
    point. Without --at, --memory, --macs or --device the possible cuts are listed.
    """
    from fcdeploy.commands.split import split as run

    with console.progress() as on_step:
        report = run(model, shapes=options.parse_shapes(shapes), on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)


@command.command("repair", short_help="A quantized model of another tool as one that onnxruntime runs.")
@options.model_argument
@options.output_option("The model that onnxruntime runs.", required=True)
@comparison_options
def repair(model: Path, output: Path, shapes: tuple[str, ...], as_json: bool, **arguments: object) -> None:
    """Rewrite a quantized model of another tool so that onnxruntime runs it.

    Replaced are activations with a scale for each channel, weights that share zero points or integers, and missing
    zero points; `fcdeploy inspect` warns of them.  By the ONNX specification both files compute the same.
    """
    from fcdeploy.commands.repair import repair as run

    with console.progress() as on_step:
        report = run(model, output=output, shapes=options.parse_shapes(shapes), on_step=on_step, **arguments)  # type: ignore[arg-type]
    console.show(report, as_json=as_json)
