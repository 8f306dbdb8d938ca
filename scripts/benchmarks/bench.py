"""`scripts/bench SECTION`: every benchmark by its name, and two parts that they run in processes of their own."""

from __future__ import annotations

import click

from scripts.benchmarks.big import big
from scripts.benchmarks.calibration import calibration, observed
from scripts.benchmarks.cliffs import cliffs
from scripts.benchmarks.efforts import efforts
from scripts.benchmarks.fragile import fragile
from scripts.benchmarks.kernels import kernels
from scripts.benchmarks.light import light
from scripts.benchmarks.native import native
from scripts.benchmarks.native_costs import native_costs
from scripts.benchmarks.native_memory import native_memory
from scripts.benchmarks.native_versions import native_versions
from scripts.benchmarks.networks import networks
from scripts.benchmarks.rates import rates
from scripts.benchmarks.real import peer, real
from scripts.benchmarks.recipes import recipes
from scripts.benchmarks.serve import serve
from scripts.benchmarks.served_native import served_native
from scripts.benchmarks.simpler import simpler
from scripts.benchmarks.spread import spread
from scripts.benchmarks.start import start


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Benchmarks of fcdeploy against its peers."""


for each in (
    recipes, calibration, kernels, big, serve, light, served_native, native, networks, fragile, spread, cliffs, real, simpler,
    efforts, start, rates, native_costs, native_memory, native_versions,
):  # fmt: skip
    cli.add_command(each)
for part in (observed, peer):
    cli.add_command(part)

if __name__ == "__main__":
    cli(prog_name="scripts/bench")
