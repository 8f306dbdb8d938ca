"""`scripts/bench spread`: a trained MobileNetV2 whose channel ranges were spread by factors that cancel (models/spread.py).

The float network computes the same as before, bit for bit; 8 bits do not hold its weights and activations any more,
unless the factors are found and taken back.  Recipes that do not, onnxruntime's and fcdeploy's own without the passes that
do, are measured beside fcdeploy.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.prepare import pipeline
from scripts.benchmarks.page import decibels, made_by, table, write_section
from scripts.checkout import BENCH, list_families, load_model_file

RECIPES: dict[str, dict[str, Any]] = {
    "onnxruntime per tensor": {"activation_type": "QUInt8", "weight_type": "QUInt8"},
    "onnxruntime per channel": {"activation_type": "QUInt8", "per_channel": True},
}
OFF, OURS = "fcdeploy, factors left", "fcdeploy"
KINDS = {
    None: "as trained",
    "relu": "ReLU in place of every ReLU6, all channels spread",
    "bounds": "all channels spread, ReLU6 with a bound for each",
    "relu6": "ReLU6 kept, channels between the blocks spread",
}
COLUMNS = ("network", "seed", "float", *RECIPES, OFF, OURS, "its drop (95 %)")
MEANING = """
models/mobilenet_v2_small.py, trained, with factors of 2^-4 to 2^4 on its channels, drawn by the seed, that change no
output of the float network by a bit (checked on all evaluation samples in torch). A ReLU6 lets no factor through: so either
it becomes a ReLU, in the network before and after; or it gets a bound for each channel, 6 times the factor, which is the
same function; or only the channels that no ReLU6 reads are spread. Given is the share of 500 held-out pictures that are
right, and the SQNR at the output; every recipe calibrates on the same 200. *Factors left* is fcdeploy without the passes
that take factors back (equalize, level_bounds). The drop is fcdeploy's, against its float network, in points.
"""


@click.command()
@click.argument("seeds", nargs=-1, type=int)
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def spread(seeds: tuple[int, ...], output: Path) -> None:
    """Quantize a network whose channel ranges were spread, with every recipe, for SEEDS (0 1 2)."""
    seeds = seeds or (0, 1, 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        family = list_families()["mobilenet_v2_small"]
        np.savez(folder / "calib.npz", **family.calibration())
        np.savez(folder / "eval.npz", **family.evaluation())
        rows = []
        for kind in KINDS:
            for seed in seeds if kind else (None,):
                click.echo(f"{KINDS[kind]}, seed {seed}", err=True)
                rows.append(_row(folder, kind, seed))
    text = table(COLUMNS, rows)
    command = " ".join(["scripts/bench spread", *map(str, seeds)])
    write_section(output, "spread", "\n".join(["## Spread channels", "", made_by(command), MEANING, text]))
    click.echo(text)


def _row(folder: Path, kind: str | None, seed: int | None) -> tuple[str, ...]:
    """A row of the table: one network, all recipes."""
    model, int8 = folder / "float.onnx", folder / "int8.onnx"
    network(folder, model, kind, seed)
    found = []
    for settings in RECIPES.values():
        files = [str(file) for file in (model, folder / "calib.npz", int8)]
        subprocess.run([*BENCH, "peer", json.dumps(settings), *files], stdout=subprocess.DEVNULL, check=True)
        found.append(_validated(model, int8, folder))
    for taken_back in (False, True):
        with factors_taken_back(taken_back):
            fcdeploy.quantize(model, data=folder / "calib.npz", output=int8, costs="none", floor="none", force=True)
        found.append(_validated(model, int8, folder))
    last = found[-1]
    drop = f"{last['drop']:.1f} ({last['drop_low']:.1f} .. {last['drop_high']:.1f})"
    figures = [f"{100 * v['int8']:.1f} %, {decibels(v['sqnr_db'])}" for v in found]
    return KINDS[kind], "-" if seed is None else str(seed), f"{100 * last['float']:.1f} %", *figures, drop


def network(folder: Path, model: Path, kind: str | None, seed: int | None) -> None:
    """Write the trained network, spread, as a float ONNX model; it is asserted that spreading changes no output."""
    import torch

    module = load_model_file("spread")
    trained = module.trained(replace_clips=kind == "relu")
    images = torch.from_numpy(np.load(folder / "eval.npz")["image"])
    with torch.no_grad():
        before = trained(images)
        made = trained if kind is None else module.spread(trained, seed, kind).eval()
        assert torch.equal(before, made(images)), "factors of powers of two cancel exactly"
    fcdeploy.export(made, inputs=["1,3,64,64"], output=model, force=True)


@contextmanager
def factors_taken_back(yes: bool) -> Iterator[None]:
    """The passes that rescale channels, or not."""
    passes = pipeline.PASSES
    without = tuple(p for p in passes if p.__name__ not in ("equalize", "level_bounds"))
    assert len(without) == len(passes) - 2
    pipeline.PASSES = passes if yes else without
    try:
        yield
    finally:
        pipeline.PASSES = passes


def _validated(model: Path, int8: Path, folder: Path) -> dict[str, Any]:
    return dict(fcdeploy.validate(int8, against=model, data=folder / "eval.npz").values)
