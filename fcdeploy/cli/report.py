"""`fcdeploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options


@click.command("report")
@click.argument("models", nargs=-1, required=True, type=options.FILE, metavar="MODEL|BUNDLE...")
@options.output_option("The page; MODEL.html by default, or MODEL.md, or the folder MODEL.overlay.")
@click.option(
    "--add", multiple=True, type=options.FILE, metavar="FILE",
    help="What validate, bench or quantize printed with --json, a plan or a calibration; repeatable.",
)  # fmt: skip
@click.option(
    "--format", type=click.Choice(["html", "markdown", "model-explorer"]), default="html", show_default=True,
    help="A page, a model card, or a folder of node data to open beside the model in Model Explorer.",
)  # fmt: skip
@click.option("--title", metavar="TEXT", help="The page's title; the model's name by default.")
@click.option(
    "--pictures", type=click.IntRange(min=0), metavar="N", default=0,
    help="Show N samples that a calibration in --add kept as the model sees them; they are in the page then.",
)  # fmt: skip
@options.force_option
@options.operators_option
@options.json_option
def command(
    models: tuple[Path, ...],
    output: Path | None,
    add: tuple[Path, ...],
    format: str,
    title: str | None,
    pictures: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write what is known of int8 models as one HTML file to show, or as a model card.

    A bundle brings its reports and its plan; --add gives more.  Nothing is measured, and the page loads nothing.  Needs the
    extra `report`.
    """
    from fcdeploy.commands.report import report

    with console.progress() as on_step:
        made = report(
            models, output=output, add=add, format=format, title=title, pictures=pictures, force=force, on_step=on_step
        )
    console.show(made, as_json=as_json)
