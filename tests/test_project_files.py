"""The files around the package say what the package is: names, versions, options that exist."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import fcdeploy
from fcdeploy import cli
from fcdeploy.cli.demo import NETWORKS

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
from container import pin, read_lock
from runtime_wheel import make_pyproject

ROOT = Path(__file__).parent.parent
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
    script = (ROOT / "scripts" / "container.py").read_text()
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
