"""`scripts/lock`: the lists in requirements/, from what pip resolved.

One set of versions serves every Python and platform, so that what is tested on one is what runs on the others; a list
differs from the next by markers and by the wheels that exist.  Hashes are those that the package index gives, of wheels
for Linux on x86-64 and aarch64 and for macOS on arm64.

torch has a list of its own.  Its builds for CPUs are on an index of their own, under the version 2.13.0+cpu; those of the
general index are for CUDA on Linux and need gigabytes of libraries, so they are never listed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pip._internal.commands import create_command
from pip._internal.index.collector import parse_links
from pip._internal.models.link import Link
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.tags import Tag
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {  # pattern of a wheel's platform tag -> what markers see there
    r"(many)?linux.*_x86_64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    r"(many)?linux.*_aarch64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    r"macosx.*_(arm64|universal2)": {
        "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64",
    },
}  # fmt: skip
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_ONLY = re.compile(r"nvidia-.*|cuda-.*|triton")
HEAD = "# Written by scripts/lock. Installed by scripts/_environment, without dependencies: this is all of them.\n"
TORCH_HEAD = f"""\
# Written by scripts/lock. The builds for CPUs, from {CPU_INDEX}; of macOS there is no other.
"""


def main(report: Path, folder: Path) -> None:
    """Write a list for each Python, and torch's."""
    resolved = {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in _install(report)}
    torch = resolved["torch"]["version"].split("+")[0]
    wheels: dict[str, dict[str, str]] = {}
    for python in PYTHONS:
        needed: set[str] = set()
        for platform in PLATFORMS.values():
            needed |= closure(resolved, python, platform)
        lines = [HEAD]
        for name in sorted(needed - {"torch", "fcdeploy"}):
            version = resolved[name]["version"]
            wheels[name] = wheels.get(name) or dict(_files(name, version))
            hashes = [digest for file, digest in wheels[name].items() if fits(file, python)]
            if not hashes:
                sys.stderr.write(f"note: {name} {version} has no wheel for Python {python}: built from source\n")
                hashes = dict(_files(name, version, wheels=False)).values()
            lines.append(_entry(f"{name}=={version}", hashes))
        (folder / f"python{python}.txt").write_text("".join(lines))
    _write_torch(folder / "torch.txt", torch)


def _install(report: Path) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads(report.read_text())["install"]
    return found


def closure(resolved: dict[str, dict[str, object]], python: str, platform: dict[str, str]) -> set[str]:
    """Names of everything that the tests need there, and of what builds fcdeploy itself."""
    environment = platform | {"python_version": python, "python_full_version": f"{python}.1", "os_name": "posix"}
    seen: set[tuple[str, str]] = set()
    left = [("fcdeploy", ""), ("fcdeploy", "test"), ("setuptools", "")]
    while left:
        name, extra = left.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in resolved:
            sys.exit(f"error: Python {python} on {platform['sys_platform']} needs {name}, which was not resolved here")
        for text in resolved[name].get("requires_dist", []):  # type: ignore[attr-defined]
            requirement = Requirement(text)
            wanted = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate(environment | {"extra": extra})
            if applies and not CUDA_ONLY.fullmatch(wanted):
                left += [(wanted, each) for each in ("", *requirement.extras)]
    return {name for name, _ in seen}


def fits(file: str, python: str) -> bool:
    """Whether a wheel is for this Python, on one of the platforms."""
    tags = parse_wheel_filename(file)[3]
    return any(_runs(tag, python) and _listed(tag.platform) for tag in tags)


def _runs(tag: Tag, python: str) -> bool:
    minor = int(python.split(".")[1])
    if tag.interpreter.startswith("py3"):
        return tag.abi == "none" and int(tag.interpreter[3:] or 0) <= minor
    built = re.fullmatch(r"cp3(\d+)", tag.interpreter)
    if built is None:
        return False
    return int(built[1]) <= minor if tag.abi == "abi3" else tag.interpreter == tag.abi == f"cp3{minor}"


def _listed(platform: str) -> bool:
    return platform == "any" or any(re.fullmatch(pattern, platform) for pattern in PLATFORMS)


def _files(name: str, version: str, index: str | None = None, *, wheels: bool = True) -> Iterator[tuple[str, str]]:
    """Name and sha256 of every wheel of that version, or of its source, from the index that pip is set to or another."""
    for link in _links(name, index):
        found, _, rest = link.filename.partition("-")
        wanted = f"{version}-" if wheels else f"{version}.tar.gz"
        named = canonicalize_name(found) == name and rest.startswith(wanted)
        if named and link.is_wheel == wheels and link.hash and link.hash_name == "sha256":
            yield link.filename, link.hash


def _links(name: str, index: str | None) -> Iterator[Link]:
    command = create_command("download")
    options, _ = command.parse_args(["--index-url", index, "--retries", "1"] if index else [])
    with command.main_context():
        finder = command._build_package_finder(options, command.get_default_session(options))  # type: ignore[attr-defined]
        for source in finder._link_collector.collect_sources(name, candidates_from_page=lambda _: []).index_urls:
            page = finder._link_collector.fetch_response(source.link) if source and source.link else None
            if page is not None:
                yield from parse_links(page)


def _write_torch(path: Path, version: str) -> None:
    """torch's list; kept as it is where it is for this version already and its index cannot be reached."""
    found = dict(_files("torch", f"{version}+cpu", CPU_INDEX)) | dict(_files("torch", version, CPU_INDEX))
    if not found:
        if path.exists() and f"torch=={version} " in path.read_text():
            sys.stderr.write(f"note: {CPU_INDEX} cannot be reached: {path} stays as it is\n")
            return
        sys.exit(f"error: {CPU_INDEX} cannot be reached, and {path} is not for torch {version}")
    listed = {file: digest for file, digest in found.items() if any(fits(file, python) for python in PYTHONS)}
    linux = {digest for file, digest in listed.items() if "macosx" not in file}
    macos = {digest for file, digest in listed.items() if "macosx" in file}
    path.write_text(
        TORCH_HEAD
        + _entry(f'torch=={version}+cpu ; sys_platform != "darwin"', linux)
        + _entry(f'torch=={version} ; sys_platform == "darwin"', macos)
    )


def _entry(requirement: str, hashes: Iterable[str]) -> str:
    return "".join([requirement, *(f" \\\n    --hash=sha256:{digest}" for digest in sorted(hashes)), "\n"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
