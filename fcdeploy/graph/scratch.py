"""Weights that are made on the way, in a file instead of in memory: each is made once, whoever asks for it again."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import make_temporary_folder
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.external_data import append_tensor
from fcdeploy.graph.weights import is_heavy

Tensors = tuple[ir.TensorProtocol, ...]


class Scratch:
    """A file to which weights are appended, in a hidden folder inside `folder`; both go with the object."""

    def __init__(self, folder: Path | None = None) -> None:
        try:
            stack = ExitStack()
            own = make_temporary_folder(folder, ".fcdeploy-", stack)
        except OSError as error:
            raise FcdeployError(f"cannot write to {str(folder)!r}: {error.strerror}", "give another, -o OUT") from error
        weakref.finalize(self, stack.close)
        self.file = own / "weights"
        self.tensors: dict[bytes, Tensors] = {}
        self.sources: list[ir.TensorProtocol] = []  # alive as long as keys are made of their identity

    def keep(
        self, source: ir.TensorProtocol, key: tuple[object, ...], make: Callable[[], tuple[Array, ...]]
    ) -> Tensors:
        """What `make` makes of `source`, from the file; `key`, its arrays by content, is all else that it depends on."""
        digest = hashlib.sha256(str(id(source)).encode())
        for part in key:
            digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
            digest.update(b"\0")
        name = digest.digest()
        if name not in self.tensors:
            self.sources.append(source)
            self.tensors[name] = tuple(self._write(ir.Tensor(array)) for array in make())
        return tuple(map(_rename_copy, self.tensors[name]))

    def settle(self, model: ir.Model) -> None:
        """Move a model's weights out of memory, in place; those that lie in files stay where they are."""
        for graph in (model.graph, *model.graph.subgraphs()):
            for name, value in graph.initializers.items():
                if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = self._write(value.const_value)
                    value.const_value.name = name

    def _write(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """The tensor at the end of the file, or as it is where it is small."""
        try:
            with self.file.open("ab") as file:
                placed = append_tensor(tensor, file, self.file.name, base_dir=str(self.file.parent))
        except OSError as error:
            raise FcdeployError(
                f"cannot write weights to the temporary folder {str(self.file.parent)!r}: {error.strerror}",
                "give an output where there is room, -o OUT",
            ) from error
        return tensor if placed is None else placed


def make_scratch(model: ir.Model, folder: Path | None) -> Scratch | None:
    """A scratch inside `folder` for a heavy model, whose weights have moved there; None for any other."""
    if not is_heavy(model):
        return None
    scratch = Scratch(folder)
    scratch.settle(model)
    return scratch


def keep_tensors(
    scratch: Scratch | None,
    source: ir.TensorProtocol,
    key: tuple[object, ...],
    make: Callable[[], tuple[Array, ...]],
) -> Tensors:
    """As `Scratch.keep`, or made in memory where there is no scratch."""
    return tuple(map(ir.Tensor, make())) if scratch is None else scratch.keep(source, key, make)


def _rename_copy(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor under a name that is yet to be given."""
    if not isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(tensor.numpy())
    where = (tensor.location, tensor.offset, tensor.length, tensor.dtype)
    return ir.ExternalTensor(*where, shape=tensor.shape, name="", base_dir=tensor.base_dir)
