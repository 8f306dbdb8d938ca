"""What the installed onnxruntime does with tiny models: asked once for a version and a CPU, kept in the cache folder.

`answer` gives that of a fact (tables/facts.py), `holds` compares it with what is expected.  A file of answers belongs to
a version, the CPU's instructions and the probes themselves, so it is never stale.
"""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path

from fcdeploy.atomic_files import clear_abandoned, replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.cache import cache_folder
from fcdeploy.runtime.cpu import detect_target, read_cpu_flags
from fcdeploy.runtime.probes.ask import ask_apart
from fcdeploy.runtime.session import read_versions
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.observations import VERSIONS, find_observed
from fcdeploy.wording import list_some

HARMS = {"wrong", "fails", "crashes", "rounded"}
SHOWN = 4  # differences in a sentence
LARGEST = 1 << 20  # bytes of a file of answers that is read at all


def find_answer(name: str) -> str:
    """What the installed runtime answers, see tables/facts.py."""
    return collect_answers()[name]


def holds(name: str) -> bool:
    """Whether the installed runtime answers as expected."""
    return find_answer(name) == FACTS[name].expected


def collect_answers() -> dict[str, str]:
    """Every fact -> the answer; what cannot be asked is taken to be as expected."""
    return _collect_answers(_name_file(cache_folder(), _make_key()))


def harms(kind: str) -> bool:
    """Whether any fact whose name begins so is answered by a result that is not right."""
    return any(answer in HARMS for name, answer in collect_answers().items() if name.startswith(kind))


def list_differences(version: str) -> dict[str, tuple[str, str]]:
    """Fact -> what that version answered on such a CPU and what the installed one does, where they differ."""
    cpu = detect_target().name
    before = {name: find_observed(name, version, cpu) for name in FACTS}
    return {name: (before[name], now) for name, now in collect_answers().items() if before[name] not in ("", now)}


def describe_version() -> str:
    """A sentence on an onnxruntime that the table has nothing of; empty where it has."""
    version = read_versions()["onnxruntime"]
    if version in VERSIONS:
        return ""
    latest = VERSIONS[-1]
    changed = list_differences(latest)
    listed = list_some([f"{name}: {now}, was {before}" for name, (before, now) in changed.items()], SHOWN, "; ")
    what = f"{len(changed)} otherwise than {latest} ({listed})" if changed else f"all as {latest} does"
    return (
        f"onnxruntime {version} is none of those looked at ({VERSIONS[0]} to {latest}): asked {len(FACTS)} questions, it "
        f"answers {what}"
    )


@cache
def _collect_answers(file: Path) -> dict[str, str]:
    clear_abandoned(file)
    known = _read(file)
    missing = [name for name in FACTS if name not in known]
    if missing:
        known |= ask_apart(missing)
        _write(file, known)
    return {name: known.get(name, fact.expected) for name, fact in FACTS.items()}


@cache
def _name_file(folder: Path, key: str) -> Path:
    """Where answers are kept."""
    return folder / "probes" / f"{key}.json"


@cache
def _make_key() -> str:
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    facts = [read_versions()["onnxruntime"], platform.machine(), sorted(read_cpu_flags())]
    return hashlib.sha256(json.dumps(facts).encode() + b"".join(sources)).hexdigest()


def _read(file: Path) -> dict[str, str]:
    """Answers in the file; none where it is missing or damaged."""
    try:
        text = file.read_text(errors="replace") if file.stat().st_size <= LARGEST else ""
        stored = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {name: value for name, value in stored.items() if name in FACTS and isinstance(value, str)}


def _write(file: Path, known: dict[str, str]) -> None:
    """For the next time; where that cannot be, the next time asks again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file, force=True) as aside:
            aside.write_text(json.dumps(known, indent=0, sort_keys=True))
    except (OSError, FcdeployError):
        pass
