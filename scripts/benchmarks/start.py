"""`scripts/bench start`: how long the command line takes to answer, beside Python doing nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import FCDEPLOY

COMMANDS = {
    "Python alone": [sys.executable, "-c", "pass"],
    "fcdeploy --help": [FCDEPLOY, "--help"],
    "fcdeploy quantize --help": [FCDEPLOY, "quantize", "--help"],
    "fcdeploy doctor": [FCDEPLOY, "doctor"],
}
MEANING = """
Seconds from start to end of a process, all in turn. Help is to take less than 0.2 s; what it may import is tested.
"""


@click.command()
@click.option("--rounds", type=int, default=15, show_default=True, help="How often each command is run.")
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def start(rounds: int, output: Path) -> None:
    """Time `fcdeploy --help` and its like, and write a table of it."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            taken[name].append(time.perf_counter() - begun)
    rows = [(name, f"{min(each):.3f}", f"{statistics.median(each):.3f}") for name, each in taken.items()]
    text = table(("command", "fastest", "median"), rows)
    write_section(
        output,
        "start",
        "\n".join(["## Starting", "", made_by(f"scripts/bench start --rounds {rounds}"), MEANING, text]),
    )
    click.echo(text)
