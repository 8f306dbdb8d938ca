"""Weights outside the model file: written beside it tensor by tensor, or referred to where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.graph.protobuf import proto_of

OUTSIDE_FROM = 1 << 12  # bytes of a tensor; a smaller one stays in the model file
PAGE = 4096  # weights begin at a multiple of it, so that they can be mapped
MESSAGE = 1 << 27  # bytes of weights that go into one message; of more there would be four copies until it is read


def weights_path(path: Path) -> Path:
    """The file of a model's weights when they are too large for the model file."""
    return path.with_name(f"{path.name}.data")


def save_model(model: ir.Model, path: Path, *, outside: bool) -> None:
    """Write the model to `path`, and with `outside` its weights to the file beside it; weights are read one by one."""
    if not outside:
        path.write_bytes(proto_of(_copy_with_tensors(model, _load_external)).SerializeToString())
        return
    data = weights_path(path)
    with data.open("wb") as file:
        small = _copy_with_tensors(
            model, lambda tensor: append_tensor(tensor, file, data.name) or _load_external(tensor)
        )
    path.write_bytes(proto_of(small).SerializeToString())


@contextmanager
def serialize(model: ir.Model) -> Iterator[tuple[bytes, str | None]]:
    """The model as one message, and the folder that the locations in it are relative to, None for a model without any.

    Weights in files are referred to; more than MESSAGE bytes of others lie in a temporary file until the block ends.
    """
    tensors = list_tensors(model)
    external = [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]

    # few bytes in memory: they go into the message, and files are told from the root where they lie in many folders
    if sum(tensor.nbytes for tensor in tensors) - sum(tensor.nbytes for tensor in external) < MESSAGE:
        folders = {str(tensor.base_dir or ".") for tensor in external}
        if len(folders) < 2:
            yield proto_of(model).SerializeToString(), next(iter(folders), None)
        else:
            small = _copy_with_tensors(model, _refer_from_root)
            yield proto_of(small).SerializeToString(), _root_of(external[0])
        return

    # many: a temporary file beside the others
    with temporary_folder() as folder:
        data = folder / "weights"
        with data.open("wb") as file:
            # onnxruntime knows one folder of weights and nothing outside it: that is the root, then
            small = _copy_with_tensors(
                model, lambda tensor: _refer_from_root(tensor) or append_tensor(tensor, file, _path_from_root(data))
            )
        yield proto_of(small).SerializeToString(), data.anchor


def list_tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """The stored constants of the model, those in the bodies of If, Loop and Scan among them."""
    graphs = (model.graph, *model.graph.subgraphs())
    held = (value.const_value for graph in graphs for value in graph.initializers.values())
    return [tensor for tensor in held if tensor is not None]


def _copy_with_tensors(model: ir.Model, place: Callable[[ir.TensorProtocol], ir.TensorProtocol | None]) -> ir.Model:
    """A copy of the model with each initializer where `place` puts it; None leaves it as it is."""
    copy = model.clone()
    for graph in (copy.graph, *copy.graph.subgraphs()):
        for name, value in graph.initializers.items():
            placed = None if value.const_value is None else place(value.const_value)
            if placed is not None:
                placed.name = name
                value.const_value = placed
    return copy


def _load_external(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """Into the model file, out of the files of the model that it comes from."""
    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype) if isinstance(tensor, ir.ExternalTensor) else None


def append_tensor(
    tensor: ir.TensorProtocol, file: BinaryIO, location: str, *, base_dir: str = ""
) -> ir.ExternalTensor | None:
    """The tensor at the end of `file`, which is `location` seen from `base_dir`; None where it is small."""
    if tensor.nbytes < OUTSIDE_FROM or tensor.dtype == ir.DataType.STRING:
        return None
    file.write(bytes(-file.tell() % PAGE))
    begin = file.tell()
    tensor.tofile(file)  # type: ignore[attr-defined]  # the protocol is behind: every tensor has it
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(
        location, begin, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or "", base_dir=base_dir
    )


def _refer_from_root(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """Where it lies, from the root."""
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    place = _path_from_root(Path(tensor.path).resolve())
    return ir.ExternalTensor(
        place, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name or ""
    )


def _root_of(tensor: ir.ExternalTensor) -> str:
    return Path(tensor.path).resolve().anchor


def _path_from_root(path: Path) -> str:
    return path.relative_to(path.anchor).as_posix()
