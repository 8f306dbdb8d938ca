"""What several test files share."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fcdeploy.cli import main
from fcdeploy.errors import FcdeployError

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for torch, not yet imported: each worker of pytest has one core

# a busy machine is no fault of what is tested; and what passes today passes tomorrow: --hypothesis-profile drawn draws anew
for name, fixed in (("drawn", False), ("fixed", True)):
    settings.register_profile(name, deadline=None, derandomize=fixed, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")


HELPERS = Path(__file__).parent / "helpers"

LONG = ("test_ray", "test_docs", "test_export", "test_models", "test_families", "test_native_sanitizers", "test_bench_big",
        "test_demo", "test_spread", "test_deploy", "test_compile", "test_native_kernels")  # fmt: skip
"""Begun first, so that no worker is left alone with one of them at the end."""


NEAR = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}
asked_elsewhere: list[str] = []
"""Names that were looked up and machines that were written to, but this one, by anything in this process."""


def _watch_sockets(event: str, arguments: tuple[Any, ...]) -> None:
    host = None
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host not in NEAR:
        asked_elsewhere.append(f"{event} {host!r}")
        raise AssertionError(asked_elsewhere[-1])


sys.addaudithook(_watch_sockets)


@pytest.fixture(autouse=True, scope="module")
def _nothing_leaves_this_machine() -> Iterator[None]:
    """What a library swallowed of the refusal is said all the same."""
    yield
    assert asked_elsewhere == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported is there to stay: no garbage collection looks through it again


@pytest.fixture(autouse=True, scope="session")
def _hasty_and_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache folder, and choices of kernels are hardly timed: none is asserted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCDEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        own = tmp_path_factory.getbasetemp()
        patch.setenv("SHARED_BY_WORKERS", str(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own))
        patch.setenv("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))  # it takes a minute to fill
        patch.setattr("fcdeploy.int8.timing.measure.SECONDS", 0.02)
        patch.setattr("fcdeploy.int8.timing.measure.CONFIRMED_SECONDS", 0.04)
        patch.setattr("fcdeploy.sensitivity.groups.TURNS", 0.01)
        yield


@pytest.fixture(autouse=True, scope="session")
def _operators_of_torch_read_once() -> Iterator[None]:
    """Every torch.onnx.export parses the source of some 500 operators again, half of its time for a small network."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            registry = import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
            patch.setattr(registry, "from_torchlib", staticmethod(cache(registry.from_torchlib)))
        yield


@contextmanager
def fails(message: str, hint: str = "") -> Iterator[None]:
    """The block raises an FcdeployError with this in its message, one line long, and this in its hint."""
    with pytest.raises(FcdeployError, match=re.escape(message)) as caught:
        yield
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.message


def run_command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """A command line in this process: its exit code, and what it alone printed to stdout and stderr."""
    capsys.readouterr()
    return main(list(words)), *capsys.readouterr()


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small networks, and what onnxruntime's own tool makes of them in int8."""
    from small_models import family  # imports a quantizer, which few tests need

    return family(tmp_path_factory.mktemp("nets"))


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.fcd`, a folder bundle that nobody changes, beside its `net.int8.onnx`."""
    from bundles import int8_model

    from fcdeploy.commands.bundle import bundle

    out = tmp_path_factory.mktemp("bundle") / "net.fcd"
    bundle(int8_model(out.parent), output=out, data=out.parent / "data.npz")
    return out


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    """Writes arrays to a file of samples."""

    def write(**arrays: np.ndarray[Any, Any]) -> Path:
        np.savez(tmp_path / "eval.npz", **arrays)
        return tmp_path / "eval.npz"

    return write
