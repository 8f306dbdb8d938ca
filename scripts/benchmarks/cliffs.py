"""`scripts/bench cliffs`: networks with a planted cliff, drawn by a seed; what falls below the floor has to be said.

Every network computes what 8 bits are known to ruin somewhere: one channel far above the others, gates that saturate, heavy
tails, a logarithm, weights that cancel.  `fcdeploy quantize` takes each at its default settings.  Then float and int8 are
compared on many other samples: a result that is below the floor there, beyond chance, and came with exit code 0, is silent.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.runtime.session import Session
from fcdeploy.user_code import load_file
from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import ROOT

PAGE = Path("docs/benchmarks.md")
CALIBRATION, HELD_OUT = 256, 4000  # samples
SIDE, WIDTH, CLASSES = 12, 16, 6
CHANCE = 0.01  # a result is below the floor where the floor's own share gives so many changes with less probability
NEAR_DB = 0.5  # below a floor in decibels by less: another draw of samples may be above it
COLUMNS = ("network", "cliff", "answers", "equal", "SQNR", "left int8", "exit", "verdict", "s")
MEANING = f"""
Networks of three to five layers with random weights, in which one place computes what 8 bits ruin; kind, place and size are
drawn. {CALIBRATION} samples calibrate, and the result is compared with float on {HELD_OUT:,} others. *held*: exit 0, and at the
floor or above it there. *said*: exit 1. *silent*: exit 0, and below the floor (99 % equal classes beyond chance, else 20 dB).
"""
Draw = np.random.Generator
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Outcome:
    """One network: what was planted, and what came out; `row` says so."""

    verdict: str
    row: tuple[str, ...]


def plant_outlier(net: Any, x: str, draw: Draw) -> str:
    """One channel is made large, and the next layer's weights small: behind hard-swish, where no rescaling reaches it."""
    size = np.ones((WIDTH, 1, 1), np.float32)
    size[draw.integers(WIDTH)] = 10 ** draw.uniform(1, 3.5)
    large = net.op("Mul", net.op("HardSwish", net.conv(x, WIDTH, WIDTH)), net.constant(size))
    y = net.op("Add", net.op("Mul", large, net.constant(1 / size)), net.constant(np.float32(0.01)))
    return str(net.op("Relu", net.conv(y, WIDTH, WIDTH, (1, 1))))


def plant_gate(net: Any, x: str, draw: Draw) -> str:
    """A gate that is nearly always open or shut: what it reads is large, and only what lies near zero matters."""
    steep = net.op("Mul", net.conv(x, WIDTH, WIDTH, (1, 1)), net.constant(np.float32(10 ** draw.uniform(0, 2.5))))
    near = net.op("Sub", net.op("Sigmoid", steep), net.constant(np.float32(draw.choice([0.0, 0.5, 1.0]))))
    return str(net.op("Mul", net.conv(x, WIDTH, WIDTH), near))


def plant_tail(net: Any, x: str, draw: Draw) -> str:
    """A power of what was computed, of which the next function sees little but the small values."""
    y = net.conv(x, WIDTH, WIDTH)
    power = net.op("Mul", net.op("Mul", y, y), y)
    if draw.random() < 0.5:
        power = net.op("Mul", power, net.op("Mul", y, y))
    low = net.op("Mul", power, net.constant(np.float32(draw.uniform(1, 30))))
    return str(net.conv(net.op("Tanh", net.conv(low, WIDTH, WIDTH, (1, 1))), WIDTH, WIDTH))


def plant_logarithm(net: Any, x: str, draw: Draw) -> str:
    """The logarithm of a power: quiet channels count as much as loud ones."""
    y = net.conv(x, WIDTH, WIDTH, bias=False)
    loudness = net.constant((10 ** draw.uniform(-3, 0, (WIDTH, 1, 1))).astype(np.float32))
    y = net.op("Mul", y, loudness)
    power = net.op("Add", net.op("Mul", y, y), net.constant(np.float32(10 ** -draw.uniform(4, 9))))
    return str(net.conv(net.op("Log", power), WIDTH, WIDTH, (1, 1)))


def plant_cancelling(net: Any, x: str, draw: Draw) -> str:
    """Two large terms of which the next layer takes the difference."""
    one, two = net.conv(x, WIDTH, WIDTH), net.conv(x, WIDTH, WIDTH)
    size = np.float32(10 ** draw.uniform(0.5, 3))
    common = net.op("Mul", one, net.constant(size))
    return str(net.op("Relu", net.op("Sub", net.op("Relu", net.op("Add", common, two)), net.op("Relu", common))))


CLIFFS: tuple[Callable[[Any, str, Draw], str], ...] = (
    plant_outlier, plant_gate, plant_tail, plant_logarithm, plant_cancelling,
)  # fmt: skip


def draw_network(number: int, seed: int, folder: Path) -> tuple[Path, str, Arrays, Arrays]:
    """A network's file, the cliff in it, the samples that calibrate, and the others."""
    networks, draw = load_file(ROOT / "tests" / "helpers" / "networks.py"), np.random.default_rng([seed, number])
    net, cliff = networks.Net(int(draw.integers(1 << 31))), CLIFFS[number % len(CLIFFS)]
    x = net.op("Relu", net.conv(net.input("x", 3, SIDE, SIDE), 3, WIDTH))
    place = int(draw.integers(3))
    for layer in range(3):
        x = cliff(net, x, draw) if layer == place else net.op("Relu", net.conv(x, WIDTH, WIDTH))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    scores = net.dense(pooled, WIDTH, CLASSES)
    net.output(scores if draw.random() < 0.5 else net.op("Tanh", scores))
    path = net.save(folder / f"net{number}.onnx")
    gain = draw.uniform(0.3, 3, (CALIBRATION + HELD_OUT, 1, 1, 1)) * draw.uniform(0.5, 2, (1, 3, 1, 1))
    mean = draw.normal(size=(CALIBRATION + HELD_OUT, 3, 1, 1)) + draw.normal(
        size=(CALIBRATION + HELD_OUT, 3, SIDE, SIDE)
    )
    data = (gain * mean).astype(np.float32)
    return path, cliff.__name__.removeprefix("plant_"), {"x": data[:CALIBRATION]}, {"x": data[CALIBRATION:]}


def try_network(number: int, seed: int, folder: Path, **options: Any) -> Outcome:
    """One drawn network quantized and compared on other samples."""
    path, cliff, calibration, others = draw_network(number, seed, folder)
    int8, floor, begin = folder / f"net{number}.int8.onnx", Floor(), time.perf_counter()
    report = fcdeploy.quantize(path, data=calibration, output=int8, **options)
    seconds, told = time.perf_counter() - begin, report.values["floor"]
    decides = bool(told["equal_decisions"])
    left = f"{len(told['left_out'])}"
    if not report.passed:
        row = (str(number), cliff, "classes" if decides else "numbers", "-", "-", left, "1", "said", f"{seconds:.0f}")
        return Outcome("said", row)
    one, other = (Session(file).run(others)[0] for file in (path, int8))
    db, changed = measure_fidelity(one, other).sqnr_db, int((one.argmax(axis=1) != other.argmax(axis=1)).sum())
    unlikely = decides and tail_of_binomial(changed, len(one), 1 - floor.decisions) < CHANCE
    below = unlikely if decides else db < floor.sqnr_db - NEAR_DB
    verdict = "silent" if below else "held"
    equal = f"{100 * (1 - changed / len(one)):.2f} %" if decides else "-"
    row = (
        str(number), cliff, "classes" if decides else "numbers", equal, f"{db:.1f} dB", left, "0", verdict,
        f"{seconds:.0f}",
    )  # fmt: skip
    return Outcome(verdict, row)


@click.command()
@click.option("--count", type=int, default=50, show_default=True, help="Networks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws all of them.")
@click.option("--output", type=Path, help="The page to write; docs/benchmarks.md unless --count or --seed are given.")
def cliffs(count: int, seed: int, output: Path | None) -> None:
    """Quantize networks with a planted cliff, and write a table of what was held, said, or silent."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            outcomes.append(try_network(number, seed, Path(folder), costs="none"))
            click.echo(" ".join(outcomes[-1].row), err=True)
    counts = {kind: sum(each.verdict == kind for each in outcomes) for kind in ("held", "said", "silent")}
    verdict = f"{counts['held']} held, {counts['said']} said, {counts['silent']} silent."
    rows = table(COLUMNS, [each.row for each in outcomes], 3)
    made = made_by(f"scripts/bench cliffs --count {count} --seed {seed}")
    text = "\n".join(["## Cliffs", "", made, MEANING, rows, "", verdict])
    click.echo(text)
    if page := output or (PAGE if (count, seed) == (50, 0) else None):
        write_section(page, "cliffs", text)
    sys.exit(1 if counts["silent"] else 0)
