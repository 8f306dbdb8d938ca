"""The official tritonclient in an environment of its own, because it pins protobuf: made once, beside `.venv`."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent / ".venv-tritonclient"
REQUIREMENT = "tritonclient[grpc,http]==2.73.0"


def tritonclient_python() -> str:
    """The interpreter that can import tritonclient; half a minute the first time, with pip's own settings."""
    python, stamp = HOME / "bin" / "python", HOME / "made-from"
    made_from = f"{REQUIREMENT} {sys.version_info[:2]}"
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != made_from:
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
            done = subprocess.run([str(python), *install], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"pip install {REQUIREMENT}: {done.stderr}"
            stamp.write_text(made_from)
    return str(python)
