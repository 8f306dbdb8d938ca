"""`fcdeploy bench`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.errors import FcdeployError


def parse_batches(given: str | None) -> tuple[int, ...] | None:
    """`1,8,32`."""
    if given is None:
        return None
    parts = given.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise FcdeployError(f"batch {given!r} is not one or more numbers of samples", "--batch 1,8,32")
    return tuple(int(part) for part in parts)


@click.command("bench")
@options.model_argument
@click.option("--against", type=options.FILE, metavar="FLOAT", help="The float original, timed in turn with MODEL.")
@click.option("--threads", type=options.COUNT, metavar="N", default=1, show_default=True, help="Threads for a run.")
@click.option(
    "--batch",
    metavar="N[,N..]",
    help="Samples per run, or several numbers to try; by default 1, or what the model requires.",
)
@options.shape_option
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", default=5.0, show_default=True,
    help="Time to spend on timing, for each batch size.",
)  # fmt: skip
@click.option(
    "--max-ratio", type=float, metavar="R", help="Exit with 1 when the model takes more than R times FLOAT's time."
)
@click.option(
    "--interval", type=click.FloatRange(min=0, min_open=True), metavar="PCT", default=10.0, show_default=True,
    help="Conclude only if the 95 % interval of the ratio is narrower than this; may take up to 4 times as long.",
)  # fmt: skip
@click.option(
    "--per-node",
    is_flag=True,
    help="Add the time of each node, side by side with FLOAT's; of native code its steps, and their share of this CPU's peak.",
)
@options.compiled_engine_option
@options.operators_option
@options.json_option
def command(
    model: Path,
    against: Path | None,
    threads: int,
    batch: str | None,
    shapes: tuple[str, ...],
    seconds: float,
    max_ratio: float | None,
    interval: float,
    per_node: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Time a model in onnxruntime: latency, throughput, memory, loading time, size.

    With --against both models run in turn, and the ratio of their times comes with a 95 % interval.  A machine that is
    too noisy for it is said to be, and then --max-ratio is missed unless the whole interval lies below it.
    """
    from fcdeploy.commands.bench import bench

    with console.progress() as on_step:
        report = bench(
            model,
            against=against,
            threads=threads,
            batch=parse_batches(batch),
            seconds=seconds,
            shapes=options.parse_shapes(shapes),
            max_ratio=max_ratio,
            interval=interval,
            per_node=per_node,
            engine=engine,
            on_step=on_step,
        )
    console.show(report, as_json=as_json)
