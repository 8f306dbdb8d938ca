"""Costs that were measured before, in the user's cache folder: the same model quantized again is not timed again.

A file holds the whole costs of one model, because what a node costs depends on its neighbours, and the choices that were
run are worth more than any sum of nodes.  Its name is the hash of everything that the times and the choice depend on:
the float model, the plan with every integer kernel, the sample's shapes, the CPU and its instructions, onnxruntime,
fcdeploy.  Nothing is ever updated in place, so files need no lock, and a folder may be copied or deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fcdeploy import __version__
from fcdeploy.arrays import Array
from fcdeploy.atomic_files import clear_abandoned, replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.records import costs as costing
from fcdeploy.records import plan as plans
from fcdeploy.records.costs import Costs
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.cache import VARIABLE, cache_folder
from fcdeploy.runtime.cpu import read_cpu_flags, read_cpu_name
from fcdeploy.runtime.session import read_versions

LARGEST = 1 << 26  # bytes of a file that is read at all


def file_of(model: str, everything: Plan, feeds: Mapping[str, Array]) -> Path:
    """Where the costs of a model are kept; `model` is its hash, `everything` the plan with every integer kernel."""
    parts = {
        "schema": costing.SCHEMA,
        "fcdeploy": __version__,
        "model": model,
        "plan": plans.to_json(everything),
        "inputs": {name: [str(array.dtype), *array.shape] for name, array in sorted(feeds.items())},
        "cpu": [read_cpu_name(), *sorted(read_cpu_flags())],
        "onnxruntime": read_versions()["onnxruntime"],
        "threads": 1,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "costs" / f"{key}.json"


def read(file: Path, model: str) -> tuple[Costs | None, str]:
    """The costs that a file holds, None where there are none; and a warning where it is damaged."""
    clear_abandoned(file)
    try:
        if not file.exists():
            return None, ""
        text = file.read_text(errors="replace") if file.stat().st_size <= LARGEST else ""
        costs = costing.from_text(text, f"cached costs {str(file)!r}")
    except OSError as error:
        return None, f"cached costs {str(file)!r} cannot be read ({error.strerror}), so times are measured"
    except FcdeployError as error:
        return None, f"{error.message}; it is replaced"
    if costs.model != model:
        return None, f"cached costs {str(file)!r} are those of another model; they are replaced"
    return costs, ""


def write(file: Path, costs: Costs) -> str:
    """Keep costs; a warning where that cannot be done, which is no reason to fail."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file, force=True) as aside:
            aside.write_text(costing.to_text(costs))
    except (OSError, FcdeployError) as error:
        return f"costs are not kept for the next time: {error}; {VARIABLE}=FOLDER keeps them elsewhere"
    return ""
