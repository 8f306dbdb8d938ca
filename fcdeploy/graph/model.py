"""Reading and writing ONNX files: everything that comes from outside is checked here, once."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.files import hash_file, refuse_unread
from fcdeploy.graph import external_data
from fcdeploy.graph.functions import inline_functions
from fcdeploy.graph.missing_numbers import find_missing
from fcdeploy.graph.nodes import make_unique, name_of, tensors_of
from fcdeploy.graph.protobuf import load_model
from fcdeploy.graph.stored_once import fold_copies, store_once
from fcdeploy.graph.weights import initializer_bytes
from fcdeploy.records import origin, sample_layout
from fcdeploy.records.sample_layout import SampleLayout
from fcdeploy.records.signature import TensorSpec as TensorSpec
from fcdeploy.user_code import operator_libraries
from fcdeploy.wording import quote_path

KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
"""Domains whose operators onnxruntime brings along."""

logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what it would say of a damaged file is said here, once

NAME_OF_AXIS = re.compile(r"[A-Za-z_][\w.-]{0,31}")
ONE_FILE = 1 << 28  # bytes of weights; of more, one message would have to be in memory as a whole, twice
QUANTIZED_OPS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm", "QAttention",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4",
    "QMoE", "GatherBlockQuantized", "QEmbedLayerNormalization",
}  # fmt: skip


def read_model(path: Path | str) -> ir.Model:
    """Read an ONNX file. Every node gets a name; weights kept outside the file must lie in its own folder.

    Raises FcdeployError when the path is not a readable ONNX model.
    """
    # what the path names, before protobuf is asked to read it
    path = Path(path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FcdeployError(f"model {str(path)!r} does not exist", "give the path of an .onnx file") from error
    except OSError as error:
        raise FcdeployError(f"model {str(path)[:100]!r}: {error.strerror}", "give the path of an .onnx file") from error
    if path.is_dir():
        raise FcdeployError(f"model {str(path)!r} is a folder, expected an .onnx file", f"ls {quote_path(path)}")
    if not path.is_file():
        raise FcdeployError(
            f"model {str(path)!r} is a device or a pipe, expected an .onnx file", f"ls -l {quote_path(path)}"
        )

    hint = "fcdeploy export FILE.py:FUNCTION -o model.onnx writes one from a PyTorch module"
    if not path.stat().st_size:
        raise FcdeployError(f"{str(path)!r} is empty, expected an ONNX model", hint)
    try:
        model = load_model(path)
    except FcdeployError:
        raise
    except Exception as error:  # protobuf and onnx-ir raise unrelated types for bytes that are no model
        refuse_unread(str(path), error)
        raise FcdeployError(f"{str(path)!r} is not an ONNX model, or is damaged", hint) from error
    if not len(model.graph) or not model.graph.outputs:
        raise FcdeployError(f"{str(path)!r} holds no network: its graph has no nodes or no outputs", hint)

    if "ai.onnx" in model.opset_imports:  # the long name of the standard domain
        model.opset_imports[""] = model.opset_imports.pop("ai.onnx")
    _check_whole(model, str(path))
    _sort_nodes(model, str(path))
    _check_external_data(model, path)
    inline_functions(model, str(path))
    name_everything(model.graph)
    fold_copies(model.graph)
    _free_negative_lengths(model)
    return model


def write_model(model: ir.Model, path: Path | str, *, force: bool = False, largest: int | None = None) -> int:
    """Write the model aside, then move it into place; return its size in bytes."""
    with replace_file(Path(path), force=force) as aside:
        return save_model(model, aside, largest=largest)


def save_model(model: ir.Model, path: Path, *, largest: int | None = None) -> int:
    """Write the model to `path` as it comes; return its size in bytes.

    More than `largest` bytes of weights (ONE_FILE unless given) go into a file beside it, PATH.data, one by one.
    """
    model = store_once(model)
    largest = ONE_FILE if largest is None else largest
    outside = initializer_bytes(model) > largest
    external_data.save_model(model, path, outside=outside)
    return sum(file.stat().st_size for file in (path, *([external_data.weights_path(path)] if outside else [])))


def files_of(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """The file of a model as it was read, and the files of its weights."""
    locations = {tensor.location for _, tensor in _iterate_tensors(model) if isinstance(tensor, ir.ExternalTensor)}
    return (path, *(path.parent / location for location in sorted(map(str, locations))))


def hash_model(files: tuple[Path, ...]) -> str:
    """sha256 of a model's content, by `files_of`: that of its file, or of a list of the hashes of several."""
    if len(files) == 1:
        return hash_file(files[0])
    hashes = [hash_file(files[0]), *(f"{hash_file(file)} {file.relative_to(files[0].parent)}" for file in files[1:])]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def measure_size(files: tuple[Path, ...]) -> int:
    """Bytes of all files of a model, by `files_of`."""
    return sum(file.stat().st_size for file in files)


def works_on_integers(node: ir.Node) -> bool:
    """Does the node read or write integers that stand for real numbers?"""
    return node.op_type in QUANTIZED_OPS or node.op_type.startswith(("QLinear", "QOrdered"))


def is_quantized(model: ir.Model) -> bool:
    """Does any node?"""
    return any(works_on_integers(node) for node in model.graph.all_nodes())


def make_no_inputs_error() -> FcdeployError:
    return FcdeployError(
        "the model has no inputs: it gives the same answer every time, and no samples are of use to it",
        "fcdeploy inspect MODEL shows what it writes",
    )


def refuse_unsupported(model: ir.Model, name: str) -> None:
    """Raise when the model is quantized already, has no inputs, or uses operators that nothing here could run."""
    if not input_specs(model):
        raise make_no_inputs_error()
    if origin.KEY in model.metadata_props and not is_quantized(model):
        raise FcdeployError(
            f"model {name!r} came out of quantize, with its layers in float, expected the model that went in",
            "give the float model it was made from",
        )
    for node in model.graph.all_nodes():
        where = f"model {name!r}: node {node.name!r}"
        if works_on_integers(node):
            raise FcdeployError(
                f"{where} is a {node.op_type}: the model is quantized already, expected a float model",
                "give the float model it was made from",
            )
        own = node.op_identifier() in model.functions
        if node.domain not in KNOWN_DOMAINS and not own and not operator_libraries():
            raise FcdeployError(
                f"{where} is a {node.op_type} of the domain {node.domain!r}, which onnxruntime does not know",
                "--ops LIB loads the library of operators that has it",
            )


def specs(values: ir.Value | list[ir.Value]) -> list[TensorSpec]:
    """Name, dtype and shape of graph inputs or outputs."""
    result = []
    for value in [values] if isinstance(values, ir.Value) else values:
        shape = tuple(n if isinstance(n, int) and n >= 0 else None for n in value.shape) if value.shape else ()
        dtype = value.dtype.numpy() if value.dtype else np.dtype(np.float32)
        result.append(TensorSpec(name_of(value), dtype, shape))
    return result


def name_axes(value: ir.Value) -> tuple[int | str | None, ...]:
    """The axes of a graph input or output: a length, or what the file calls it; None where it is a formula, or nothing."""
    lengths = [n if isinstance(n, int) else n.value for n in value.shape or ()]
    return tuple(
        (n if n >= 0 else None) if isinstance(n, int) else n if n and NAME_OF_AXIS.fullmatch(n) else None
        for n in lengths
    )


def input_specs(model: ir.Model) -> list[TensorSpec]:
    """The inputs a caller must feed: initializers listed as inputs (IR version 3) are weights, not inputs."""
    fed = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    missing = find_missing(model.graph)
    declared = [
        replace(spec, missing=value in missing and spec.dtype.kind == "f")
        for spec, value in zip(specs(fed), fed, strict=True)
    ]
    layout = SampleLayout.from_text(model.metadata_props.get(sample_layout.KEY, ""))
    return [layout.apply(spec) for spec in declared]


def output_specs(model: ir.Model) -> list[TensorSpec]:
    """The outputs of a model, in its order."""
    return specs(list(model.graph.outputs))


def name_everything(graph: ir.Graph) -> None:
    """Give every node without a name, or with a name that is taken, one made from what it computes."""
    taken: set[str] = set()
    for node in graph.all_nodes():
        first = next((value.name for value in node.outputs if value.name), "")
        name = node.name or f"{node.op_type}:{first}"
        if name in taken:
            name = f"{name}:{first}"
        node.name = make_unique(name, taken)
        taken.add(node.name)


def _iterate_tensors(model: ir.Model) -> Iterator[tuple[str, object]]:
    """Every tensor the file holds or points to: weights of all graphs, and constants inside nodes, of functions too."""
    wholes = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in (*wholes, *(inner for whole in wholes for inner in whole.subgraphs())):
        yield from ((str(name), value.const_value) for name, value in graph.initializers.items())
    for node in (node for whole in wholes for node in whole.all_nodes()):
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield node.name or node.op_type, attribute.value
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from ((node.name or node.op_type, tensor) for tensor in attribute.value)


def _check_external_data(model: ir.Model, path: Path) -> None:
    """Weights outside the file: relative, inside the model's folder, there, and long enough."""
    folder = path.parent.resolve()
    for name, tensor in _iterate_tensors(model):
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        target = (folder / tensor.location).resolve()
        if Path(tensor.location).is_absolute() or not target.is_relative_to(folder):
            raise FcdeployError(
                f"model {str(path)!r}: weight {name!r} points to {str(tensor.location)!r}, outside the model's folder",
                "keep weight files beside the model",
            )

        # the bytes that it is said to be, against its shape and against the file
        offset, length, shape = tensor.offset or 0, tensor.length, tensor.shape.numpy()
        if offset < 0 or length not in (None, tensor.nbytes) or min(shape, default=0) < 0:
            where = f"bytes {offset} to {offset + (length or tensor.nbytes)} of {target.name!r}"
            raise FcdeployError(
                f"model {str(path)!r}: weight {name!r} is said to be {where}, its shape {list(shape)} is not",
                "write the model again where it came from",
            )
        needed = offset + tensor.nbytes
        if not target.is_file() or target.stat().st_size < needed:
            raise FcdeployError(
                f"model {str(path)!r}: weight {name!r} wants {needed} bytes of {target.name!r}, which has fewer",
                "copy the weight file beside the model, whole",
            )

        if target.stat().st_nlink > 1:  # onnx-ir refuses it: a link could smuggle another user's file in
            copy = f"{target}.copy"
            raise FcdeployError(
                f"model {str(path)!r}: weight file {target.name!r} has another name elsewhere, a hard link",
                f"cp {quote_path(target)} {quote_path(copy)} && mv {quote_path(copy)} {quote_path(target)}",
            )


def _free_negative_lengths(model: ir.Model) -> None:
    """A length of -1, which some exporters store for any length, as onnxruntime reads it: a free axis."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in tensors_of(graph):
            if value.shape is not None and any(isinstance(length, int) and length < 0 for length in value.shape):
                value.shape = ir.Shape(
                    None if isinstance(length, int) and length < 0 else length for length in value.shape
                )


def _check_whole(model: ir.Model, name: str) -> None:
    """Raise FcdeployError where an end of the graph is connected to nothing: damaged files can still be protobuf."""
    outputs = [(value, "an output of the graph") for value in model.graph.outputs]
    inputs = [(v, f"an input of node {n.name!r}") for n in model.graph.all_nodes() for v in n.inputs if v is not None]
    faults = [
        f"{value.name!r}, {what}, comes from nowhere"
        for value, what in inputs + outputs
        if value.producer() is None and not value.is_graph_input() and not value.is_initializer()
    ]
    faults += [f"node {node.name!r} has no output" for node in model.graph.all_nodes() if not node.outputs]
    faults += [
        f"weight {key!r} has no data type"
        for graph in (model.graph, *model.graph.subgraphs())
        for key, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.UNDEFINED
    ]
    if faults:
        raise FcdeployError(
            f"model {name!r} is broken: {faults[0]}", "write it again: fcdeploy export FILE.py:FUNCTION -o model.onnx"
        )


def _sort_nodes(model: ir.Model, name: str) -> None:
    """Put every node behind those it reads, as ONNX wants it and not every tool writes it. Raises FcdeployError."""
    for graph in (model.graph, *model.graph.subgraphs()):
        seen: set[ir.Node] = set()
        for node in graph:
            before = (value.producer() for value in node.inputs if value is not None)
            if any(other is not None and other.graph is graph and other not in seen for other in before):
                break
            seen.add(node)
        else:
            continue
        try:
            model.graph.sort()
        except ValueError as error:
            raise FcdeployError(
                f"model {name!r} is broken: node {node.name or node.op_type!r} reads what is computed from its own output",
                "write it again: fcdeploy export FILE.py:FUNCTION -o model.onnx",
            ) from error
        return
