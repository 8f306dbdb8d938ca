"""Models between files and onnx-ir, which has no word for maps: their types are kept aside and written back.

Classifiers of scikit-learn end in a ZipMap, whose output is a sequence of maps from class to probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from fcdeploy.graph.check_sizes import check_sizes
from fcdeploy.graph.check_tensors import check_tensors
from fcdeploy.graph.nodes import tensors_of
from fcdeploy.graph.wire import FileBytes, check_parts

MAP = "type of a map"
"""Under this key a value's `meta` holds the serialized type that onnx-ir cannot."""


def load_model(path: Path | str) -> ir.Model:
    """The model in a file, its weights still in theirs.

    Raises FcdeployError at a tensor that is not what its shape says, or too large, and whatever protobuf and onnx-ir raise.
    """
    with Path(path).open("rb") as file:
        check_parts(FileBytes(file), str(path))
    proto = onnx.load(path, load_external_data=False)
    check_tensors(proto, str(path))
    check_sizes(proto, str(path))
    model = model_of(proto)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        ir.external_data.set_base_dir(graph, Path(path).parent)
    return model


def model_of(proto: onnx.ModelProto) -> ir.Model:
    """The model of a message; types of maps are taken out of the message."""
    maps = {}
    for info in _values(proto.graph):
        if _holds_map(info.type):
            maps[info.name] = info.type.SerializeToString()
            info.type.Clear()
    model = ir.from_proto(proto)
    if maps:
        for value in tensors_of(model.graph):
            if value.name in maps:
                value.meta[MAP] = maps[value.name]
    return model


def proto_of(model: ir.Model) -> onnx.ModelProto:
    """The message of a model."""
    proto: onnx.ModelProto = ir.to_proto(model)
    _write_maps(model.graph, proto)
    return proto


def proto_of_view(model: ir.Model, view: ir.GraphView) -> onnx.ModelProto:
    """The message of a model with a view of its graph in the place of the graph."""
    versions = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    proto = onnx.ModelProto(ir_version=model.ir_version, opset_import=versions)
    # onnx-ir says that a view's meta can be set, and its own class does not let it
    ir.serde.serialize_graph_into(proto.graph, view, model_ir_version=model.ir_version)  # type: ignore[arg-type]
    for function in model.functions.values():
        ir.serde.serialize_function_into(proto.functions.add(), function)
    _write_maps(view, proto)
    return proto


def read_type(kind: onnx.TypeProto) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    """Type and shape of a value's message; neither where maps are in it."""
    if _holds_map(kind):
        return None, None
    return ir.serde.deserialize_type_proto_for_type(kind), ir.serde.deserialize_type_proto_for_shape(kind)


def _write_maps(graph: ir.Graph | ir.GraphView, proto: onnx.ModelProto) -> None:
    maps = {value.name: value.meta[MAP] for value in tensors_of(graph) if MAP in value.meta}
    for info in _values(proto.graph) if maps else ():
        if info.name in maps and not info.HasField("type"):
            info.type.ParseFromString(maps[info.name])


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)


def _holds_map(kind: onnx.TypeProto) -> bool:
    if kind.HasField("sequence_type"):
        return _holds_map(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _holds_map(kind.optional_type.elem_type)
    return bool(kind.HasField("map_type"))
