"""The files around the package say what the package is: names, versions, options that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from servers import RUN
from small_models import outputs, samples

import fcdeploy
from fcdeploy import cli
from fcdeploy.cli.demo import NETWORKS
from scripts.release.container import pin, read_lock
from scripts.release.runtime_wheel import make_pyproject

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == fcdeploy.__version__ == read("CITATION.cff")["version"]
    recipe = (ROOT / "conda" / "meta.yaml").read_text()
    assert f'version = "{fcdeploy.__version__}"' in recipe


def test_the_conda_recipe_has_the_requirements() -> None:
    text = (ROOT / "conda" / "meta.yaml").read_text().split("run:")[1].split("test:")[0]
    listed = {name.replace("_", "-") + bound for name, bound in re.findall(r"- ([\w-]+) (>=[\d.]+)", text)}
    wanted = {requirement.replace(" ", "") for requirement in PROJECT["dependencies"]}
    assert wanted <= listed
    assert listed - wanted == {f"python{PROJECT['requires-python']}", *PROJECT["optional-dependencies"]["report"]}


def commands_in(text: str) -> list[list[str]]:
    lines = re.findall(r"fcdeploy [a-z]+ .*?(?=$|;| > )", text, re.MULTILINE)
    return [shlex.split(re.sub(r'"\$\w+"', "1", line))[1:] for line in lines]


def test_the_action_s_commands_exist() -> None:
    action = read("action.yml")
    script = "\n".join(step["run"] for step in action["runs"]["steps"])
    assert "${{" not in script, "an input in a script is run as a part of it"
    found = commands_in(script)
    assert [words[0] for words in found] == ["quantize", "validate", "report"]
    for name, *words in found:
        command = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), name)
        assert command is not None
        command.make_context(name, words)


def run_action(folder: Path, **inputs: str) -> int:
    """The action's last step as a runner does it: bash, inputs through the environment, and `fcdeploy` on the PATH."""
    action, bin = read("action.yml"), folder / "bin"
    bin.mkdir(exist_ok=True)
    (bin / "fcdeploy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{RUN}" "$@"\n')
    (bin / "fcdeploy").chmod(0o755)
    step = action["runs"]["steps"][-1]
    values = {name: row.get("default", "") for name, row in action["inputs"].items()} | inputs
    environment = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: values[match[1]], text)
        for name, text in step["env"].items()
    }
    (folder / "step.sh").write_text(step["run"])
    shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "step.sh"]  # as GitHub calls it
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(shell, cwd=folder, env={**os.environ, **environment, "PATH": path}, check=False).returncode


def test_the_action_s_gate_fails_and_passes(nets: dict[str, Path], tmp_path: Path) -> None:
    """On labels that are the float model's answers int8 loses a little: more than nothing, and less than ten points."""
    x = samples(2000, 3, 8, 8, seed=1)
    model, data = nets["residual"], tmp_path / "my data.npz"
    np.savez(data, x=samples(64, 3, 8, 8, seed=2))
    np.savez(tmp_path / "eval.npz", x=x, label=outputs(model, x).argmax(1))
    given = {"model": str(model), "data": str(data), "evaluation": "eval.npz"}

    assert run_action(tmp_path, **given, **{"max-drop": "0"}) == 1
    said = json.loads((tmp_path / "validate.json").read_text())
    assert (said["passed"], said["max_drop"], said["float"]) == (False, 0.0, 1.0)
    assert 0 < said["drop"] < 10
    assert "int8" in (tmp_path / "report.html").read_text()  # a failure is shown, too

    (tmp_path / "report.html").unlink()
    assert run_action(tmp_path, **given, **{"max-drop": "10"}) == 0
    assert json.loads((tmp_path / "validate.json").read_text())["passed"]
    assert (tmp_path / "report.html").exists()

    (tmp_path / "report.html").unlink()
    assert run_action(tmp_path, **{**given, "evaluation": "$(touch ran)"}) == 2  # no input is read as a command
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "ran").exists()


def test_the_hooks_are_commands() -> None:
    for hook in read(".pre-commit-hooks.yaml"):
        program, command = hook["entry"].split()
        assert (program, hook["id"]) == ("fcdeploy", f"fcdeploy-{command}")
        assert command in cli.COMMANDS


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_templates(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    assert all(row["type"] in ("markdown", "textarea", "input") for row in form["body"])
    for command in re.findall(r"`fcdeploy (\w+)", path.read_text()):
        assert command in cli.COMMANDS


def test_the_container_takes_what_is_locked_and_nothing_else() -> None:
    lock = read_lock((ROOT / "requirements" / "python3.12.txt").read_text())
    assert {"numpy", "onnxruntime", "click", "uvloop"} <= set(lock)
    version, hashes = lock["numpy"]

    def found(name: str, version: str, digest: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "version": version},
            "download_info": {"archive_info": {"hashes": {"sha256": digest}}},
        }

    own = found("fcdeploy", "0.1.0", "00")
    assert pin([found("NumPy", version, hashes[-1]), own], lock).splitlines() == [
        "fcdeploy==0.1.0 --hash=sha256:00", f"numpy=={version} --hash=sha256:{hashes[-1]}",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"numpy .* is not the file that requirements/ lists"):
        pin([found("numpy", version, "11")], lock)


def test_the_image_copies_what_the_script_makes() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "docs" / "Dockerfile").read_text(), re.MULTILINE)
    made = {"wheels", "requirements.txt", "sbom.json"}
    assert {name for line in copied for name in line.split()} == made | {"model.fcd"}
    script = (ROOT / "scripts" / "release" / "container.py").read_text()
    assert all(f'"{name}"' in script for name in made)


def test_the_runtime_has_a_part_of_the_requirements() -> None:
    text = make_pyproject(tomllib.loads((ROOT / "pyproject.toml").read_text()))
    made = tomllib.loads(text)["project"]
    assert made["version"] == PROJECT["version"] and made["scripts"] == PROJECT["scripts"]
    assert set(made["dependencies"]) < set(PROJECT["dependencies"])
    extras = made["optional-dependencies"]
    assert set(extras.pop("onnxruntime")) < set(PROJECT["dependencies"])
    assert extras.items() <= PROJECT["optional-dependencies"].items()


def test_the_demo_s_networks_are_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    files = {name for names in listed.values() for name in names}
    wanted = {f"models/{network}.{kind}" for network, _ in NETWORKS for kind in ("py", "safetensors")}
    assert files == wanted | {f"calib_data/{data}.{part}.npz" for _, data in NETWORKS for part in ("calib", "eval")}
    assert all((ROOT / name).is_file() for name in files)


@pytest.mark.parametrize(
    ("script", "given"), [("runtime-wheel", "wheels"), ("runtime-wheel", "/elsewhere/wheels"), ("container", "image")]
)
def test_scripts_write_where_they_are_called(script: str, given: str, tmp_path: Path) -> None:
    """A checkout with a Python that only says what it is asked for."""
    checkout, caller = tmp_path / "checkout", tmp_path / "caller"
    for folder in ("scripts", "requirements", ".venv/bin", "fcdeploy", "docs"):
        (checkout / folder).mkdir(parents=True)
    caller.mkdir()
    for name in (
        "scripts/_environment",
        f"scripts/{script}",
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "docs/Dockerfile",
    ):
        shutil.copy(ROOT / name, checkout / name)
    (checkout / "requirements" / "a.txt").touch()
    made_from = f'echo "$(cat pyproject.toml requirements/*.txt | cksum) {checkout}" > .venv/made-from'
    subprocess.run(["bash", "-c", made_from], cwd=checkout, check=True)
    python = checkout / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    subprocess.run([checkout / "scripts" / script, given], cwd=caller, capture_output=True, check=True)
    asked = (tmp_path / "asked").read_text()
    assert f" {caller / given}" in asked
    assert not (checkout / given).exists()
