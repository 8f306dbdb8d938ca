"""`scripts/compat`: what each onnxruntime answers to the facts of fcdeploy/tables/facts.py, and a page on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from fcdeploy.runtime.cpu import detect_target
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.observations import VERSIONS, observed

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "fcdeploy" / "tables" / "observations.py"
PAGE = ROOT / "docs" / "runtimes.md"
LIST = (
    "1.16.3", "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.22.1", "1.24.4", "1.26.0", "1.28.0", "1.30.0", "1.31.1", "1.32.0",
)  # fmt: skip
OLD_NUMPY = "numpy==1.26.4"  # for wheels built before NumPy 2
CHILD = """
import json, sys
from fcdeploy.runtime.probes.ask import ask_apart
json.dump(ask_apart(sys.argv[1:]), sys.stdout)
"""
TABLE_HEAD = '''"""What each onnxruntime answered to each fact of tables/facts.py, on an x86-64 CPU with AVX2 and without VNNI.

Written by scripts/compat, not by hand.
"""
'''
TABLE_TAIL = '''

def observed(fact: str, version: str) -> str:
    """What that version answered; empty for one that was not asked."""
    if version not in VERSIONS:
        return ""
    upto = VERSIONS[: VERSIONS.index(version) + 1]
    return next((CHANGES[fact][each] for each in reversed(upto) if each in CHANGES[fact]), "")
'''
PAGE_HEAD = """# Runtimes

What fcdeploy is built on about onnxruntime's CPU provider is a list of facts (`fcdeploy/tables/facts.py`), each with a
tiny model that asks (`fcdeploy/runtime/probes/`). The installed runtime is asked once, in a process beside, and the
answers are kept in the cache folder for its version and CPU; they decide what becomes an integer kernel and what is
refused. `fcdeploy doctor` says where they differ from this page.

## Versions

Written by `scripts/compat` on an x86-64 CPU with AVX2 and without VNNI. {count} facts were asked of onnxruntime {versions}.
{same} were answered alike by all of them. Of these the answers differ, each from the version on that is named:

| fact | answers | what follows from the last |
|---|---|---|
"""


@click.command()
@click.argument("versions", nargs=-1)
def compat(versions: tuple[str, ...]) -> None:
    """Ask these versions, or all of the list."""
    if detect_target().name != "x86-avx2":
        raise click.ClickException("the table is of CPUs with AVX2 and without VNNI, which this one is not")
    table = {version: {fact: observed(fact, version) for fact in FACTS} for version in VERSIONS}
    for version in versions or LIST:
        table[version] = answers_of(version)
        click.echo(f"onnxruntime {version}: {len(table[version])} answers", err=True)
    ordered = dict(sorted(table.items(), key=lambda row: release(row[0])))
    TABLE.write_text(as_module(ordered))
    PAGE.write_text(as_page(ordered))


def release(version: str) -> tuple[int, ...]:
    """To be ordered by."""
    return tuple(map(int, version.split(".")))


def answers_of(version: str) -> dict[str, str]:
    """Ask one version, put in front of the modules of this environment."""
    environment = {**os.environ, "PYTHONPATH": str(installed(version))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *FACTS], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def installed(version: str) -> Path:
    """The folder of that version, made where it is missing."""
    folder = ROOT / ".compat" / f"onnxruntime-{version}"
    if not (folder / "onnxruntime").exists():
        packages = [f"onnxruntime=={version}", *([OLD_NUMPY] if release(version) < (1, 19) else [])]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--target", str(folder), *packages], check=True)
    return folder


def changes(table: dict[str, dict[str, str]], fact: str) -> dict[str, str]:
    """Its answers, each by the first version that gives it."""
    found: dict[str, str] = {}
    for version, row in table.items():
        if not found or row[fact] != [*found.values()][-1]:
            found[version] = row[fact]
    return found


def as_module(table: dict[str, dict[str, str]]) -> str:
    """The table as Python."""
    rows = "".join(f"    {json.dumps(fact)}: {json.dumps(changes(table, fact))},\n" for fact in FACTS)
    listed = ", ".join(map(json.dumps, table))
    return (
        f'{TABLE_HEAD}\nVERSIONS = (\n    {listed},\n)  # fmt: skip\n"""The versions that were asked, oldest first."""\n\n'
        f"CHANGES: dict[str, dict[str, str]] = {{\n{rows}}}  # fmt: skip\n"
        f'"""Fact -> its answers, each by the first of the versions that gives it."""\n{TABLE_TAIL}'
    )


def as_page(table: dict[str, dict[str, str]]) -> str:
    """The page on runtimes."""
    differing = {fact: found for fact in FACTS if len(found := changes(table, fact)) > 1}
    head = PAGE_HEAD.format(count=len(FACTS), versions=", ".join(table), same=len(FACTS) - len(differing))
    rows = [
        f"| {fact} | {'; '.join(f'{version} {found}' for version, found in each.items())} | {FACTS[fact].why} |\n"
        for fact, each in differing.items()
    ]
    return head + "".join(rows)


if __name__ == "__main__":
    compat()
