"""A compiler that compiles each text once: see scripts/faults, whose commands would compile the same for hours.

Run as `CC="python kept_compiler.py FOLDER ziglang cc"`: what the compiler made of the same arguments and files is kept in FOLDER.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> int:
    folder, *command = sys.argv[1:]
    arguments = command[2:]
    target = Path(arguments[arguments.index("-o") + 1])
    read = {Path(word) for word in arguments if word != str(target)} | set(Path().glob("*.h"))
    key = hashlib.sha256("\0".join(word for word in arguments if word != str(target)).encode())
    for file in sorted(file for file in read if file.is_file()):
        key.update(f"\0{file.name}\0".encode() + file.read_bytes())
    kept = Path(folder) / key.hexdigest()
    if not kept.exists():
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(Path(folder) / "zig")}
        done = subprocess.run([sys.executable, "-m", *command], env=environment, check=False)
        if done.returncode:
            return done.returncode
        made = Path(f"{kept}.{os.getpid()}")
        shutil.copy(target, made)
        made.rename(kept)
    shutil.copy(kept, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
