"""The pyproject.toml of fcdeploy-runtime, on stdout: that of fcdeploy with another name and fewer requirements."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from typing import Any

from scripts.checkout import ROOT

ALWAYS, ENGINE = ("click", "numpy", "rich"), "onnxruntime"
EXTRAS = ("grpc", "images", "serve")
KEPT = ("version", "requires-python", "license", "license-files", "readme", "keywords", "classifiers")
DESCRIPTION = "Verifies and serves bundles that fcdeploy made, on NumPy and one engine"


def make_pyproject(settings: dict[str, Any]) -> str:
    """The file from the contents of the project's own; strings and lists are written alike in JSON and TOML."""
    project, tool = settings["project"], settings["tool"]["setuptools"]
    requirements = {re.split(r"[<>=\[]", each)[0]: each for each in project["dependencies"]}
    tables = {
        "build-system": settings["build-system"],
        "project": {
            "name": "fcdeploy-runtime",
            "description": DESCRIPTION,
            **{key: project[key] for key in KEPT},
            "dependencies": [requirements[name] for name in ALWAYS],
        },
        "project.optional-dependencies": {
            ENGINE: [requirements[ENGINE]],
            **{name: project["optional-dependencies"][name] for name in EXTRAS},
        },
        "project.scripts": project["scripts"],
        "tool.setuptools.packages.find": tool["packages"]["find"],
        "tool.setuptools.package-data": tool["package-data"],
    }
    return "\n".join(_format_table(name, table) for name, table in tables.items())


def _format_table(name: str, table: dict[str, Any]) -> str:
    rows = "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in table.items())
    return f"[{name}]\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(make_pyproject(tomllib.loads((ROOT / "pyproject.toml").read_text())))
