"""`fcdeploy verify`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("verify")
@click.argument("bundle", type=options.FILE)
@options.json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check the hashes of a BUNDLE, and whether this CPU answers its golden samples as the CPU it was made on did."""
    from fcdeploy.stations.verify import verify

    console.show(verify(bundle), as_json=as_json)
