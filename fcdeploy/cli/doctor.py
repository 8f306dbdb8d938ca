"""`fcdeploy doctor`."""

from __future__ import annotations

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("doctor")
@options.json_option
def command(as_json: bool) -> None:
    """Show this CPU, the installed runtime and extras, and what follows for int8 models.

    Exit code 1 when onnxruntime does not load.
    """
    from fcdeploy.commands.doctor import doctor

    console.show(doctor(), as_json=as_json)
