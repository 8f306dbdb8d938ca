"""`scripts/compat --dependencies`: does fcdeploy do the same with other Pythons, and at both ends of what it declares?

For each Python that is found, an environment has the lowest versions that pyproject.toml allows, another the newest that pip
brings.  Networks in float are calibrated and quantized in each; the files must be those that are written here, byte for
byte, and so must their answers.  The table goes into docs/runtimes.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import click

from scripts.checkout import ROOT
from scripts.compatibility.compat import PIP, PLACE, write_part
from scripts.compatibility.files import FOLDER, export_networks

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NETWORKS = ("dense", "lenet5", "resnet", "lstm_tagger")
SHOWN = ("numpy", "onnx", "onnx-ir", "onnxruntime")
CHILD = """
import hashlib, importlib.metadata, json, sys, tempfile
from pathlib import Path
import numpy as np
import fcdeploy
from fcdeploy.runtime.session import Session
networks, shown = json.loads(sys.argv[1]), json.loads(sys.argv[2])
found = {"versions": {name: importlib.metadata.version(name) for name in shown}, "files": {}, "answers": {}}
for name, (model, data, samples) in networks.items():
    with tempfile.TemporaryDirectory() as folder:
        calibration, out = Path(folder, "a.calib"), Path(folder, "a.onnx")
        fcdeploy.calibrate(model, data=data, output=calibration)
        fcdeploy.quantize(model, output=out, calibration=calibration, costs="table", effort="fast", floor="none")
        session, stored = Session(out, threads=1), np.load(samples)
        answers = session.run({spec.name: stored[spec.name][:1] for spec in session.input_specs})
        found["files"][name] = hashlib.sha256(out.read_bytes()).hexdigest()
        found["answers"][name] = hashlib.sha256(b"".join(each.tobytes() for each in answers)).hexdigest()
print(json.dumps(found))
"""
HEAD = """{made}: {networks},
calibrated and quantized with other Pythons and at both ends of the versions that
`pyproject.toml` allows, beside those of the committed list. torch is one version (2.13.0). Not found here: {missing}.

| Python | {shown} | files | answers |
|---|{columns}---|---|
"""


@click.command()
def compat_dependencies() -> None:
    """Exit with 1 where a file or an answer is another."""
    for _ in export_networks():
        pass
    wanted = run_in(Path(sys.executable))
    rows, missing, broken = [], [], False
    for version in PYTHONS:
        python = find_python(version)
        if python is None:
            missing.append(version)
            continue
        for end in ("lowest", "newest"):
            click.echo(f"Python {version}, {end}", err=True)
            try:
                environment = make_environment(python, version, end)
            except subprocess.CalledProcessError:  # older packages than the Python: nobody built them for it
                rows.append(f"| {version} |{' - |' * len(SHOWN)} no wheels | no wheels |\n")
                continue
            found = run_in(environment)
            cells = [found["versions"][name] for name in SHOWN]
            for part in ("files", "answers"):
                other = [name for name in NETWORKS if found[part][name] != wanted[part][name]]
                broken = broken or (part == "answers" and bool(other))
                cells.append(f"other: {', '.join(other)}" if other else "the same bytes")
            rows.append(f"| {version} | {' | '.join(cells)} |\n")
    head = HEAD.format(
        made=f"scripts/compat --dependencies, {date.today()}", networks=", ".join(NETWORKS),
        missing=", ".join(missing) or "none", shown=" | ".join(SHOWN), columns="---|" * len(SHOWN),
    )  # fmt: skip
    write_part("dependencies", head + "".join(rows))
    sys.exit(1 if broken else 0)


def find_python(version: str) -> Path | None:
    """An interpreter of that version that runs."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for each in (shutil.which(f"python{version}"), *map(str, kept)):
        if each and subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(each)
    return None


def make_environment(python: Path, version: str, end: str) -> Path:
    """An environment with what fcdeploy depends on, at one end; its interpreter."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    packages = [each.replace(">=", "==") if end == "lowest" else each for each in listed]
    digest = hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:8]
    folder = PLACE / f"python{version}-{end}-{digest}"
    if not (folder / "made").exists():
        subprocess.run([str(python), "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), *PIP, *packages], check=True)
        (folder / "made").touch()
    return folder / "bin" / "python"


def run_in(python: Path) -> dict[str, dict[str, str]]:
    """Hashes of files and answers, and the versions that made them."""
    networks = {name: [str(FOLDER / f"{name}{end}") for end in (".onnx", ".data.npz", ".npz")] for name in NETWORKS}
    done = subprocess.run(
        [str(python), "-c", CHILD, json.dumps(networks), json.dumps(SHOWN)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    compat_dependencies(prog_name="scripts/compat --dependencies")
