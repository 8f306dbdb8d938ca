"""`fcdeploy verify`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("verify")
@click.argument("bundle", type=options.FILE)
@options.engine_option
@options.operators_option
@options.json_option
def command(bundle: Path, engine: str, as_json: bool) -> None:
    """Check the hashes of a BUNDLE, and whether this CPU answers its golden samples as the CPU it was made on did."""
    from fcdeploy.commands.verify import verify

    with console.progress() as on_step:
        report = verify(bundle, engine=engine, on_step=on_step)
    console.show(report, as_json=as_json)
