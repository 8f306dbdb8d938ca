"""What a machine is told about itself; other machines are played by their flags."""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib import metadata
from typing import Any

import pytest

from fcdeploy import cli
from fcdeploy.commands import doctor as doctor_module
from fcdeploy.commands.doctor import doctor
from fcdeploy.runtime import cpu
from fcdeploy.tables.targets import TARGETS


def played(monkeypatch: pytest.MonkeyPatch, machine: str, *flags: str) -> Any:
    """The report of a machine with these flags."""
    monkeypatch.setattr(cpu, "read_cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(doctor_module, "read_cpu_flags", cpu.read_cpu_flags)
    monkeypatch.setattr(doctor_module.platform, "machine", lambda: machine)
    return doctor()


@pytest.mark.parametrize(
    ("machine", "flags", "has", "target", "saturates"),
    [
        ("x86_64", ("avx2",), {"AVX2"}, "x86-avx2", True),
        ("x86_64", ("avx2", "avx512f"), {"AVX2", "AVX512"}, "x86-avx2", True),
        ("x86_64", ("avx2", "avx_vnni"), {"AVX2", "AVX-VNNI"}, "x86-vnni", False),
        (
            "x86_64",
            ("avx2", "avx512f", "avx512_vnni", "amx_int8"),
            {"AVX2", "AVX512", "AVX512-VNNI", "AMX"},
            "x86-vnni",
            False,
        ),
        ("aarch64", ("asimd", "asimddp", "i8mm"), {"NEON", "dotprod", "i8mm"}, "arm64-i8mm", False),
        ("aarch64", ("asimd",), {"NEON"}, "arm64", False),
        ("riscv64", (), set(), "portable", True),
    ],
)
def test_machines(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    flags: tuple[str, ...],
    has: set[str],
    target: str,
    saturates: bool,
) -> None:
    report = played(monkeypatch, machine, *flags)
    values = report.values
    assert {name for name, found in values["instructions"].items() if found} == has
    assert values["target"]["name"] == target
    assert values["target"]["saturates"] == saturates
    assert any(line.startswith(f"This CPU is {target}: ") for line in report.lines)
    host = values["host"]
    assert host == cpu.find_target("host").name
    assert report.lines[-1] == f"fcdeploy quantize makes files for {host} here."
    assert any(f"--target host takes the {host} row instead" in line for line in report.lines) == (host != target)
    shown = dict(report.tables[0].rows)
    assert set(shown["has"].split(", ")) == (has or {"-"})
    assert ("NEON" in shown["lacks"] or "NEON" in shown["has"]) == (machine == "aarch64")
    assert any("bench it" in line for line in report.lines) == (not has)
    assert not any(line.endswith("(from source, not run).") for line in report.lines)
    assert report.passed


def test_every_target_says_its_kernels_and_whether_it_was_run() -> None:
    report = doctor()
    rows = {row[0]: row for row in report.tables[-1].rows}
    assert set(rows) == set(TARGETS) == {row["name"] for row in report.values["targets"]}
    instruction = {
        "x86-avx2": "vpmaddubsw + vpmaddwd",
        "x86-vnni": "vpdpbusd",
        "arm64": "smlal2",
        "arm64-dotprod": "udot",
        "arm64-i8mm": "smmla",
        "portable": "whatever",
    }
    for name, row in rows.items():
        assert instruction[name] in row[3]
        assert row[1] == (" or ".join(TARGETS[name].cpu) or "any")
        assert row[4] == ("run" if TARGETS[name].verified else "from source, not run")
    assert {row[4] for row in rows.values()} == {"run"}
    assert {row["name"] for row in report.values["targets"] if row["saturates"]} == {"portable", "x86-avx2"}
    assert report.values["target"] in report.values["targets"]


@pytest.mark.parametrize("flags", [("avx2",), ("avx2", "avx512f", "avx512_vnni"), ("asimd", "i8mm")])
def test_every_instruction_set_says_what_it_adds_and_whether_it_was_run(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    report = played(monkeypatch, "x86_64", *flags)
    rows = {row[0]: row for row in next(table for table in report.tables if table.title == "Byte kernels").rows}
    assert {name for name, row in rows.items() if row[3] == "pairs in 16 bits: saturates"} == {"AVX2", "AVX512"}
    assert [name for name, row in rows.items() if row[3] == "pairs in 16 bits: -128 wraps around"] == ["NEON"]
    assert {name for name, row in rows.items() if row[5] == "run"} == {
        "AVX2",
        "AVX512",
        "AVX512-VNNI",
        "NEON",
        "dotprod",
        "i8mm",
    }
    for row in report.values["byte_kernels"]:
        assert rows[row["name"]][1] == ("yes" if set(row["flags"]) & set(flags) else "-")
        assert (TARGETS[row["target"]].pair_limit is not None) == (row["saturates"] and row["name"] != "NEON")


def test_portable_is_described() -> None:
    (line,) = [line for line in doctor().lines if "--target portable" in line]
    for promise in ("no sum comes near a half", "one level", "1e-5", "inspect --exact"):
        assert promise in line


def test_versions_and_cores_are_this_machine_s() -> None:
    values = doctor().values
    assert values["versions"]["onnxruntime"] == importlib.import_module("onnxruntime").__version__
    assert values["versions"]["numpy"] == importlib.import_module("numpy").__version__
    assert 1 <= values["cores"] <= (os.cpu_count() or 1)
    assert values["memory_bytes"] > 2**28
    assert values["cpu"]


def test_extras_that_are_missing_come_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [
        "numpy>=2.2",
        'torch==2.13.0; extra == "export"',
        'uvloop>=0.21; extra == "serve"',
        "httptools>=0.6 ; sys_platform != 'win32' and extra == 'serve'",
    ]
    installed = {"torch": "2.13.0", "httptools": "0.7"}

    def version(package: str) -> str:
        if package not in installed:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(doctor_module.metadata, "requires", lambda _: declared)
    monkeypatch.setattr(doctor_module.metadata, "version", version)
    report = doctor()
    assert report.values["extras"] == {
        "export": {
            "needs": ["torch==2.13.0"],
            "missing": [],
            "installed": True,
            "install": "pip install 'fcdeploy[export]'",
        },
        "serve": {
            "needs": ["uvloop>=0.21", "httptools>=0.6"],
            "missing": ["uvloop"],
            "installed": False,
            "install": "pip install 'fcdeploy[serve]'",
        },
    }
    rows = {row[0]: row[1:] for row in report.tables[2].rows}
    assert rows == {"export": ("yes", ""), "serve": ("no: uvloop", "pip install 'fcdeploy[serve]'")}
    assert report.values["versions"]["onnx"] is None


def test_a_runtime_that_does_not_load_is_the_answer_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def foreign(name: str) -> Any:
        raise ImportError(f"{name}.so:\n wrong ELF class")

    monkeypatch.setattr(doctor_module, "importlib", type("Broken", (), {"import_module": staticmethod(foreign)}))
    assert not doctor().passed
    assert cli.main(["doctor"]) == 1
    assert "onnxruntime does not load: ImportError: onnxruntime.so: wrong ELF class" in capsys.readouterr().out


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert next(iter(values.items())) == ("schema", "fcdeploy.doctor/1")
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert values["cpu"] in text
    assert values["host"] in text.splitlines()[-1]


def test_without_onnx_it_says_what_is_there_and_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where fcdeploy-runtime is installed."""
    monkeypatch.setitem(sys.modules, "onnx", None)

    def require(package: str) -> list[str]:
        if package == "fcdeploy":
            raise metadata.PackageNotFoundError(package)
        return ['uvloop>=1; extra == "serve"']

    monkeypatch.setattr(doctor_module.metadata, "requires", require)
    report = doctor()
    assert report.passed
    assert report.values["facts"] == {}
    assert report.values["extras"]["serve"]["install"] == "pip install 'fcdeploy-runtime[serve]'"
    assert report.lines[-1].startswith("This is what verifies and serves, without onnx")
