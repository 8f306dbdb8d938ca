"""The lists of exact versions hold all that pyproject.toml asks for, in its ranges, every wheel with its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LISTS = sorted((ROOT / "requirements").glob("python*.txt"))


def listed(path: Path) -> dict[str, Requirement]:
    """Name -> requirement of each entry; each has at least one hash."""
    entries = [entry for entry in path.read_text().replace("\\\n", " ").splitlines() if not entry.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    found = [Requirement(entry.split(" --hash")[0]) for entry in entries]
    return {canonicalize_name(each.name): each for each in found}


def test_every_supported_python_has_a_list() -> None:
    assert [path.stem for path in LISTS] == [f"python3.{minor}" for minor in (11, 12, 13, 14)]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_hold_what_is_declared(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["test"])]
    pinned = listed(path) | listed(ROOT / "requirements" / "torch.txt")
    for requirement in wanted:
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), requirement


def test_versions_are_the_same_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for path in LISTS:
        for name, requirement in listed(path).items():
            versions.setdefault(name, set()).add(str(requirement.specifier))
    assert {name for name, found in versions.items() if len(found) > 1} == set()
