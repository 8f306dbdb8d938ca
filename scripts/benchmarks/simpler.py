"""`scripts/bench simpler`: is the default ever worse than --effort fast?  On networks of models/, or on float models of a folder.

Both quantize the same calibration; both int8 models are held against the float one on other samples, as `quantize` judges
itself: by equal decisions where something is decided, and by decibels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

import fcdeploy
from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.graph.model import read_model
from fcdeploy.int8.judging.judge import Judge
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.prepare.shape_inference import infer_shapes
from scripts.benchmarks.efforts import exported
from scripts.benchmarks.networks import prepared
from scripts.benchmarks.page import made_by, table, write_section
from scripts.benchmarks.real import arrange, find_cases, read_samples
from scripts.checkout import list_families

PAGE = Path("docs/benchmarks.md")
WORSE_DB, WORSE_SAMPLES = 0.3, 1.0  # by more the default must not be worse
ROUNDING = 1e-6  # 1000 (1 - .995) is a little more than 5
FINE_DB = 60.0  # from there on nobody sees a difference
COLUMNS = ("network", "fast", "default", "decisions changed", "left int8", "worse")
MEANING = """
SQNR of the worst output and the samples' worth of decisions that changed, fast then default, on samples that neither has seen.
Worse is the default where it has 0.3 dB less, below 60 dB, or one decision more changed, unless the other figure is better.
"""


@click.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Models as for `real`, instead.")
@click.option("--costs", default="none", show_default=True, help="As in quantize.")
@click.option("--output", type=Path, help="The page to write; docs/benchmarks.md unless NETWORK or --folder is given.")
def simpler(names: tuple[str, ...], folder: Path | None, costs: str, output: Path | None) -> None:
    """Compare the default with --effort fast, and say where it is worse."""
    if folder is not None:
        cases = [
            (c.name, c.model, c.calibration, c.evaluation) for c in find_cases(folder) if not names or c.name in names
        ]
    else:
        families = list_families()
        found = [exported(prepared(name, families)) for name in names or families]
        cases = [(network.name, file, network.calib, network.evaluation) for file, network in found]
    rows = []
    for name, model, calibration, evaluation in cases:
        rows.append(compare(name, model, calibration, evaluation, costs))
        click.echo(" | ".join(rows[-1]), err=True)
    broken = [row[0] for row in rows if row[-1] == "yes"]
    verdict = f"The default is worse on {', '.join(broken)}." if broken else "The default is nowhere worse."
    made = made_by(" ".join(["scripts/bench simpler", *names, *([f"--folder {folder}"] if folder else [])]))
    text = "\n".join(["## The default beside fast", "", made, MEANING, table(COLUMNS, rows, 1), "", verdict])
    click.echo(text)
    if page := output or (None if names or folder else PAGE):
        write_section(page, "simpler", text)
    sys.exit(1 if broken else 0)


def compare(name: str, model: Path, calibration: Path, evaluation: Path, costs: str) -> tuple[str, ...]:
    """A row of the table."""
    prepared_model = read_model(model)
    infer_shapes(prepared_model)
    samples = arrange(model, read_samples(model, evaluation))
    judge = Judge(model, prepared_model, samples, find_ends(prepared_model))
    judged: list[Judgement] = []
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder) / "model.calib"
        fcdeploy.calibrate(model, data=calibration, output=calib)
        for effort in ("fast", "balanced"):
            int8 = Path(folder) / f"{effort}.onnx"
            report = fcdeploy.quantize(model, calibration=calib, output=int8, effort=effort, costs=costs, accept=True)
            judged.append(judge.measure(read_model(int8)))
            left = len((report.values["floor"] or {}).get("left_out", ()))
    fast, default = judged
    cells = [f"{each.worst_db:.2f} dB" for each in judged]
    changed = f"{fast.changed:.1f} {default.changed:.1f} of {default.samples}" if default.equal else "-"
    return (name, *cells, changed, str(left), "yes" if is_worse(default, fast) else "no")


def is_worse(default: Judgement, fast: Judgement) -> bool:
    """Whether the default is worse in one figure and no better in the other."""
    db, changed = default.worst_db - fast.worst_db, default.changed - fast.changed
    fewer_db = db < -WORSE_DB and default.worst_db < FINE_DB
    return (fewer_db and changed >= 0) or (changed > WORSE_SAMPLES + ROUNDING and db <= 0)
