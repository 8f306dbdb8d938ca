"""C files that were compiled before, here or by another worker, are not compiled again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fcdeploy.native.toolchain import Compiler, compile_c

READ = {".c", ".h", ".S", ".bin"}  # by suffix; objects are named in the arguments


@contextmanager
def compiled_once() -> Iterator[None]:
    """Inside, `fcdeploy.native.build` takes what the same compiler made of the same files with the same arguments."""
    place = Path(os.environ["SHARED_BY_WORKERS"]) / "compiled"
    place.mkdir(exist_ok=True)

    def find_or_compile(compiler: Compiler, arguments: Sequence[str | Path], folder: Path) -> None:
        *words, out = map(str, arguments)
        digest = hashlib.sha256(repr((compiler.command, words)).encode())
        for file in sorted(folder.iterdir()):
            if file.suffix in READ or file.name in words:
                digest.update(repr(file.name).encode() + file.read_bytes())
        kept = place / digest.hexdigest()
        if kept.exists():
            shutil.copy(kept, folder / out)
            return
        compile_c(compiler, arguments, folder)
        made = kept.with_suffix(f".{os.getpid()}.{Path(out).stem}")
        shutil.copy(folder / out, made)
        made.replace(kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcdeploy.native.build.compile_c", find_or_compile)
        yield
