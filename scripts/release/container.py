"""Wheels, pinned hashes and a bill of materials for the container: see scripts/container.

The versions and hashes are those of requirements/, for what the server needs of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from scripts.checkout import ROOT

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EXTRAS = "serve,images"
BILL = "cyclonedx-bom==7.*"  # writes the bill; runs in an environment of its own


def read_lock(text: str) -> dict[str, tuple[str, list[str]]]:
    """Name -> version and sha256 of every file, from a list of requirements/."""
    entries = re.findall(r"^([\w.-]+)==(\S+?)(?: ;[^\\\n]*)?((?: \\\n\s+--hash=sha256:\w+)+)", text, re.MULTILINE)
    return {_normalize(name): (version, re.findall(r"sha256:(\w+)", hashes)) for name, version, hashes in entries}


def pin(installed: Sequence[dict[str, object]], lock: dict[str, tuple[str, list[str]]]) -> str:
    """A list of requirements with one hash each, of what pip would install. Raises SystemExit for what is not locked."""
    lines = []
    for item in sorted(installed, key=lambda each: _normalize(each["metadata"]["name"])):  # type: ignore[index]
        name, version = _normalize(item["metadata"]["name"]), item["metadata"]["version"]  # type: ignore[index]
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]  # type: ignore[index]
        if name != "fcdeploy" and digest not in lock.get(name, ("", []))[1]:
            raise SystemExit(f"error: {name} {version} is not the file that requirements/ lists\nhint: scripts/lock")
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return "".join(lines)


def _normalize(name: object) -> str:
    return re.sub(r"[-_.]+", "-", str(name)).lower()


def _pip(*words: object) -> str:
    command = [sys.executable, "-m", "pip", *map(str, words), "--quiet", "--disable-pip-version-check"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(folder: Path) -> None:
    """Fill `folder`, in which the wheel of fcdeploy lies in wheels/ already."""
    wheels, listed = folder / "wheels", folder / "requirements.txt"
    lock = read_lock((ROOT / "requirements" / f"python{PYTHON}.txt").read_text())
    (own,) = wheels.glob("fcdeploy-*.whl")
    with tempfile.TemporaryDirectory() as name:
        versions = Path(name) / "versions.txt"
        versions.write_text("".join(f"{package}=={version}\n" for package, (version, _) in lock.items()))
        asked = f"fcdeploy[{EXTRAS}] @ {own.resolve().as_uri()}"
        report = _pip("install", "--dry-run", "--ignore-installed", "--report", "-", "-c", versions, asked)
        listed.write_text(pin(json.loads(report)["install"], lock))
        _pip("download", "--no-deps", "--require-hashes", "--find-links", wheels, "-r", listed, "--dest", wheels)
        venv.create(Path(name) / "bill", with_pip=True)
        bill = Path(name) / "bill" / "bin"
        subprocess.run([bill / "pip", "install", "--quiet", "--disable-pip-version-check", BILL], check=True)
        subprocess.run(
            [bill / "cyclonedx-py", "requirements", listed, "--output-reproducible", "-o", folder / "sbom.json"],
            check=True,
        )
    sys.stdout.write(f"{folder}: {len(listed.read_text().splitlines())} packages, requirements.txt and sbom.json\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
