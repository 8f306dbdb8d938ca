"""`scripts/bench fragile`: trained networks with one fragile place each, which `quantize --max-drop` is to find.

The place is drawn by a seed (models/fragile.py).  The search is told neither name nor position; what it leaves out of int8
is compared with the true place.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.graph.model import read_model
from fcdeploy.runtime.session import Session
from scripts.benchmarks.networks import DIGITS, inputs_and_labels
from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import list_families, load_model_file

NAMES = (
    "lenet5", "dense", "resnet", "dropout_dense", "tiny_dense", "cnn", "cnn10", "inception", "mobilenet_v2_small", "detector",
)  # fmt: skip
PAGE = Path("docs/benchmarks.md")
BOUND = 0.1  # points
SAMPLES = 2000  # drawn to judge on; of the digits there are 800
COLUMNS = (
    "network", "fragile", "between", "float differs", "int8 drop", "left out of int8", "of MACs", "drop (95 %)", "steps", "s",
)  # fmt: skip
LAYERS = ("Conv", "Gemm", "MatMul")
MEANING = f"""
Every network is widened so that it computes the same in float and 8 bits ruin it in one place (models/fragile.py says how),
drawn by the seed. *outlier* is in the tensor between two layers, which both have to leave int8; *cancel* in the weights of
the second. `fcdeploy quantize --int8 --costs none --max-drop {BOUND} --eval EVAL` is told neither. Drops are points of
top-1 on samples that were not calibrated on, with their 95 % interval; *of MACs* is the share of multiplications that left
int8; *steps* are what was changed on the way, those taken back included. *rounded*: rounding the weights by what the layer
reads was enough, and nothing left int8.
"""


@dataclass(frozen=True)
class Found:
    """One network: where it was fragile, what the search left out, and the row that says so."""

    name: str
    right: bool
    row: tuple[str, ...]


@click.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the place in every network.")
@click.option("--output", type=Path, help="The page to write; docs/benchmarks.md unless networks are named.")
def fragile(names: tuple[str, ...], seed: int, output: Path | None) -> None:
    """Find the one fragile place of each of ten trained networks, and write a table."""
    if unknown := [name for name in names if name not in NAMES]:
        raise click.UsageError(f"unknown network {unknown[0]!r}, expected {', '.join(NAMES)}")
    maker = load_model_file("fragile")
    families = list_families()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for number, name in enumerate(names or NAMES):
            click.echo(name, err=True)
            found.append(one(name, Path(folder), maker, families, seed + 100 * number))
    command = " ".join(["scripts/bench fragile", *names, f"--seed {seed}"])
    count = sum(each.right for each in found)
    verdict = f"{count} of {len(found)}: the place found, nothing else left out of int8, the bound held."
    text = "\n".join(
        ["## Fragile places", "", made_by(command), MEANING, table(COLUMNS, [f.row for f in found], 3), "", verdict]
    )
    click.echo(text)
    if page := output or (None if names else PAGE):
        write_section(page, "fragile", text)
    sys.exit(0 if count == len(found) else 1)


def one(name: str, folder: Path, maker: Any, families: Mapping[str, Any], seed: int) -> Found:
    """One network made fragile and quantized; right where only the true place left int8 and the bound is held."""
    trained, model, int8 = (folder / f"{name}{suffix}" for suffix in (".onnx", ".fragile.onnx", ".int8.onnx"))
    calib, held_out = data_of(name, folder, families)
    source = f"models/{name}.py:{name}" if name in DIGITS else families[name].function
    fcdeploy.export(source, state=f"models/{name}.safetensors", output=trained)
    place = maker.fragile(trained, model, seed)
    feeds = {key: array[:64] for key, array in np.load(held_out).items() if not key.startswith("label")}
    outputs = [Session(file).run(feeds) for file in (trained, model)]
    differs = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(*outputs, strict=True))
    begin = time.perf_counter()
    found = fcdeploy.quantize(model, data=calib, output=int8, costs="none", max_drop=BOUND, eval=held_out).values
    seconds = time.perf_counter() - begin
    operators = {node.name: node.op_type for node in read_model(model).graph}
    out = {row["node"] for row in found["left_out"]["nodes"] if operators[row["node"]] in LAYERS}
    healed = not out and found["path"][0]["drop"] > BOUND
    right = found["held"] and (out == place.layers or healed)
    row = (
        name, place.kind, f"{place.writer}, {place.reader}", f"{differs:.1e}", f"{found['path'][0]['drop']:.2f}",
        "rounded" if healed else ", ".join(sorted(out)), f"{100 * found['left_out']['macs_share']:.1f} %",
        f"{found['drop']:.2f} ({found['drop_low']:.2f} .. {found['drop_high']:.2f})", str(len(found["path"]) - 1),
        f"{seconds:.0f}",
    )  # fmt: skip
    return Found(name, bool(right), row)


def data_of(name: str, folder: Path, families: Mapping[str, Any]) -> tuple[Path, Path]:
    """The samples to calibrate on, and more than usual to judge on."""
    if name in DIGITS:
        return tuple(Path(f"calib_data/{DIGITS[name]}.{part}.npz") for part in ("calib", "eval"))  # type: ignore[return-value]
    family, seed = families[name], load_model_file("families").EVALUATION
    calib, held_out = (folder / f"{name}.{part}.npz" for part in ("calib", "eval"))
    np.savez(calib, **inputs_and_labels(family.calibration()))
    np.savez(held_out, **inputs_and_labels(family.draw(SAMPLES, seed)))
    return calib, held_out
