"""The official tritonclient in an environment of its own, because it pins protobuf: made once, beside `.venv`.

It sees what is in `.venv` behind its own packages: numpy and grpcio are installed once.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import sysconfig
from pathlib import Path

HOME = Path(__file__).parents[2] / ".venv-tritonclient"
REQUIREMENTS = (
    "tritonclient==2.73.0", "protobuf>=6.30.2,<7",
    "brotli", "certifi", "gevent", "geventhttpclient", "greenlet<3.4", "python-rapidjson", "urllib3",
    "zope.event", "zope.interface",
)  # fmt: skip


def tritonclient_python() -> str:
    """The interpreter that can import tritonclient; some seconds the first time, with pip's own settings."""
    python, stamp = HOME / "bin" / "python", HOME / "made-from"
    made_from = f"{REQUIREMENTS} {sys.version_info[:2]}"
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != made_from:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(HOME)], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
            install = [*pip, "install", "--no-compile", "--no-deps", *REQUIREMENTS]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(install)}: {done.stderr}"
            own = sysconfig.get_path("purelib", vars={"base": str(HOME)})
            Path(own, "ours.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
            stamp.write_text(made_from)
    return str(python)
