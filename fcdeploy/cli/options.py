"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
"""A path as it was given; whether it can be read is for the function that reads it to say."""

COUNT = click.IntRange(min=1)

model_argument = click.argument("model", type=FILE)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")

force_option = click.option("--force", is_flag=True, help="Replace the output when it exists.")

samples_option = click.option("--samples", type=COUNT, metavar="N", help="Take the first N samples; all by default.")

seed_option = click.option(
    "--seed", type=int, metavar="S", help="With --samples N: N drawn from all of them by seed S."
)

preprocess_option = click.option(
    "--preprocess", type=FILE, metavar="TOML", help="How images become arrays: size, layout, colour, scale, mean, std."
)


def output_option(help_text: str, *, required: bool = False) -> Callable[[Function], Function]:
    """`-o OUT`, `--output OUT`."""
    return click.option("-o", "--output", type=FILE, metavar="OUT", required=required, help=help_text)


def data_option(*, required: bool) -> Callable[[Function], Function]:
    """`--data DATA`."""
    return click.option(
        "--data",
        metavar="DATA",
        required=required,
        help="Samples: .npz, folder of .npy, folder of images, .csv, MNIST or CIFAR-10 files, or FILE.py:FUNCTION.",
    )


def data_options(*, required: bool = True) -> Callable[[Function], Function]:
    """`--data DATA --samples N --seed S --preprocess TOML`, given to the function as data, samples, seed, preprocess."""

    def decorate(function: Function) -> Function:
        return data_option(required=required)(samples_option(seed_option(preprocess_option(function))))

    return decorate
