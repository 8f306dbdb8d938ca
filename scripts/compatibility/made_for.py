"""The second part of `scripts/compat --runtimes`, once the table is written: is a file for a runtime right in it?

Every trained network is quantized with `--for` each runtime, and run there.  Networks of the caller's own (--also) are run in
the other forms, too, and what is not right must be what `inspect --runtimes` says beforehand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fcdeploy.graph.model import read_model
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.other_runtimes import find_untaken
from scripts.compatibility import tables
from scripts.compatibility.answers import ask
from scripts.compatibility.compat import RUNTIMES, find_runtime, run_version, title_of, write_part
from scripts.compatibility.files import export_networks, make_for, make_forms, take_network

HEAD = """
Files made with `--for` the runtime and every integer kernel that it takes (`--costs none`):

| runtime | right in it | least | refused when they are made |
|---|---|---|---|
"""


@click.command()
@click.argument("names", nargs=-1)
@click.option("--also", multiple=True, metavar="MODEL=CALIB.npz,EVAL.npz")
def compat_for(names: tuple[str, ...], also: tuple[str, ...]) -> None:
    """Exit with 1 where a file is wrong and nobody said so."""
    networks, own = [*export_networks()], [take_network(each) for each in also]
    rows, unsaid = [], []
    for name in names or [each for each in RUNTIMES if each != "node"]:  # which takes what the web's does
        row, wrong = run_kept(name, networks)
        rows.append(row)
        unsaid += wrong
        if own:
            unsaid += [*run_kept(name, own)[1], *run_forms(name, own)]
    if not names:
        write_part("kept", HEAD + "".join(rows))
    for line in unsaid:
        click.echo(f"not said: {line}", err=True)
    sys.exit(1 if unsaid else 0)


def run_kept(name: str, networks: list[str]) -> tuple[str, list[str]]:
    """A row of the table on a runtime, and the files that are wrong in it."""
    made = {network: make_for(network, name.rstrip("45")) for network in networks}
    refused = [network for network, file in made.items() if isinstance(file, str)]
    verdicts = judge_files(name, [file for file in made.values() if isinstance(file, Path)])
    right = [verdict.decibels for verdict in verdicts.values() if tables.is_right(verdict)]
    least = f"{min(right):.0f} dB" if right else "-"
    row = f"| {title_of(name)} | {len(right)} of {len(verdicts)} | {least} | {', '.join(refused) or 'none'} |\n"
    return row, [describe(name, file, verdict) for file, verdict in verdicts.items() if not tables.is_right(verdict)]


def run_forms(name: str, networks: list[str]) -> list[str]:
    """The files that are wrong in a runtime, and of which `inspect --runtimes` does not say so."""
    files = {file.name: file for network in networks for file in make_forms(network)}
    wrong = []
    for file, verdict in judge_files(name, [*files.values()]).items():
        if not tables.is_quantized(file):
            continue
        model = read_model(files[file])
        infer_shapes(model)
        said = [row.describe() for row in find_untaken(model, [name])]
        click.echo(f"{describe(name, file, verdict)}; said: {'; '.join(said) or 'nothing'}")
        wrong += [] if said or tables.is_right(verdict) else [describe(name, file, verdict)]
    return wrong


def judge_files(name: str, files: list[Path]) -> dict[str, tables.Verdict]:
    floats = [file.with_name(f"{file.name.split('.')[0]}.onnx") for file in files]
    reference = run_version("reference", [*dict.fromkeys([*files, *floats])])
    return tables.judge(ask(find_runtime(name), files), reference)


def describe(name: str, file: str, verdict: tables.Verdict) -> str:
    said = verdict if isinstance(verdict, str) else f"{verdict.decibels:.1f} dB"
    return f"{title_of(name)}: {file}: {said}"


if __name__ == "__main__":
    compat_for()
