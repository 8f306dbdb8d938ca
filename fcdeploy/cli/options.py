"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fcdeploy.cli.completion import complete
from fcdeploy.errors import FcdeployError
from fcdeploy.tables.devices import DEVICES
from fcdeploy.user_code import use_operators

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
"""A path as it was given; whether it can be read is for the function that reads it to say."""

COUNT = click.IntRange(min=1)

model_argument = click.argument("model", type=FILE)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")

batch_axis_option = click.option(
    "--batch-axis",
    "batch_axes",
    multiple=True,
    metavar="NAME=AXIS",
    help="Axis of an input along which samples are stacked, or none for one sample a run; detected by default. Repeatable.",
)

state_option = click.option(
    "--state",
    "states",
    multiple=True,
    metavar="OUT=IN",
    help="State of a streaming model: what output OUT gave is input IN of the next sample, or of the next step of a sequence; "
    "it starts with zeros. Data hold the other inputs, in order. Repeatable.",
)

all_option = click.option(
    "--all",
    "all_rows",
    is_flag=True,
    help="Show every row, also of shape arithmetic and repeats, and long names in full.",
)

force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")

samples_option = click.option("--samples", type=COUNT, metavar="N", help="Take the first N samples; all by default.")

seed_option = click.option(
    "--seed", type=int, metavar="S", help="With --samples N: draw N from all of them, by seed S."
)

preprocess_option = click.option(
    "--preprocess",
    metavar="HOW",
    help="How pictures become inputs: torchvision-imagenet, timm, yolo-letterbox, paddle-ocr, scale-0-1, a FILE.toml, or "
    "FILE.py:NAME of a torchvision Compose. By default as recorded.",
)

classes_option = click.option(
    "--classes",
    type=FILE,
    metavar="FILE",
    help="Names of the classes, one on each line; by default those of class folders.",
)

label_option = click.option(
    "--label", metavar="COLUMN", help="Column of a table that holds the labels; by default label."
)


class SizeType(click.ParamType[int]):
    """500MB, 2GB, 1.5G, 800000: a number of bytes, of which an M is a million times 1.048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; usage error for what is none."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(value).strip(), re.IGNORECASE)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is no amount of memory, expected one such as 500MB or 2GB", param, ctx)
        return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


max_memory_option = click.option(
    "--max-memory",
    type=SizeType(),
    metavar="M",
    help="Memory limit of each process, such as 500MB; data are read in several passes if necessary.",
)

workers_option = click.option("--workers", type=COUNT, metavar="N", help="Share the work among N processes.")

cluster_option = click.option(
    "--cluster",
    metavar="ray[:ADDRESS]",
    help="Share the work on a Ray cluster, started for this run or running at ADDRESS.",
)


shape_option = click.option(
    "--shape", "shapes", multiple=True, metavar="NAME:1,3,..", help="Shape of an input that has free axes; repeatable."
)

engine_option = click.option(
    "--engine", type=click.Choice(("onnxruntime", "native")), default="onnxruntime", show_default=True,
    help="What runs the model; native is the library that a bundle has for this machine.",
)  # fmt: skip

compiled_engine_option = click.option(
    "--engine", type=click.Choice(("onnxruntime", "native")), default="onnxruntime", show_default=True,
    help="What runs the int8 model; native compiles it for this run (see fcdeploy compile).",
)  # fmt: skip

operators_option = click.option(
    "--ops", multiple=True, type=FILE, metavar="LIB", expose_value=False, is_eager=True,
    callback=lambda _context, _option, given: use_operators(*given),
    help="Shared library of custom operators for onnxruntime; its code is run. Repeatable.",
)  # fmt: skip


def device_options(help: str) -> Callable[[Function], Function]:
    """`--device --max-ram --max-flash --max-ms`: a device and what there is on it; `help` is that of the first."""
    options: tuple[Callable[[Function], Function], ...] = (
        click.option(
            "--max-ms", type=float, metavar="MS", help="The longest that a run may take on --device, in milliseconds."
        ),
        click.option(
            "--max-flash", type=SizeType(), metavar="M", help="Flash there is for it on --device, such as 512KB."
        ),
        click.option(
            "--max-ram", type=SizeType(), metavar="M", help="Memory there is for it on --device, such as 96KB."
        ),
        click.option("--device", shell_complete=complete(tuple(DEVICES)), metavar="D", help=help),
    )

    def add(function: Function) -> Function:
        for option in options:
            function = option(function)
        return function

    return add


def parse_shapes(given: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`NAME:1,3,224,224` each; a name may hold colons."""
    shapes = {}
    for text in given:
        name, _, lengths = text.rpartition(":")
        parts = lengths.split(",")
        if not name or not all(part.strip().isdecimal() for part in parts):
            raise FcdeployError(f"shape {text!r} is not of the form NAME:1,3,224,224", "--shape input:1,3,224,224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def output_option(help_text: str, *, required: bool = False) -> Callable[[Function], Function]:
    """`-o OUT`, `--output OUT`."""
    return click.option("-o", "--output", type=FILE, metavar="OUT", required=required, help=help_text)


def data_option(*, required: bool) -> Callable[[Function], Function]:
    """`--data DATA`."""
    return click.option(
        "--data",
        metavar="DATA",
        required=required,
        help="Samples: .npz, folder of .npz, .npy or images, .csv, .parquet, MNIST or CIFAR-10 files, or FILE.py:FUNCTION.",
    )


def format_options(function: Function) -> Function:
    """`--preprocess HOW --classes FILE --label COLUMN`."""
    return preprocess_option(classes_option(label_option(function)))


def data_options(*, required: bool = True) -> Callable[[Function], Function]:
    """`--data DATA --samples N --seed S`, and how data are read, given to the function as parameters of these names."""

    def decorate(function: Function) -> Function:
        return data_option(required=required)(samples_option(seed_option(format_options(function))))

    return decorate
