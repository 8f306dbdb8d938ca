"""The files around the package say what the package is: names, versions, options that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import fcdeploy
from fcdeploy import cli

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
