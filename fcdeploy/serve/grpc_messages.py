"""The messages of the Open Inference Protocol v2 over gRPC, made when they are first needed.

Field numbers and types are the protocol's.  Generated code would be bound to one release of protobuf, and styles and types
would have to look away from it; a table is neither.  On the wire a map is a list of entries, so here it is one.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fcdeploy.graph.wire import walk_fields
from fcdeploy.serve.refusal import RefusedError

PACKAGE = "inference"
SERVICE = "GRPCInferenceService"
TYPES = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13,
}  # fmt: skip
"""Scalar type -> its number in descriptor.proto; every other word is a message."""

MESSAGE, OPTIONAL, REPEATED = 11, 1, 3
TENSOR = "string name 1, string datatype 2, repeated int64 shape 3"
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1, string version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, repeated string extensions 3",
    "ModelMetadataRequest": "string name 1, string version 2",
    "TensorMetadata": TENSOR,
    "ModelMetadataResponse": "string name 1, repeated string versions 2, string platform 3, "
    "repeated TensorMetadata inputs 4, repeated TensorMetadata outputs 5",
    "RepositoryIndexRequest": "string repository_name 1, bool ready 2",
    "ModelIndex": "string name 1, string version 2, string state 3, string reason 4",
    "RepositoryIndexResponse": "repeated ModelIndex models 1",
    "Value": "bool bool_param 1, int64 int64_param 2, string string_param 3",
    "Parameter": "string key 1, Value value 2",
    "Contents": "repeated bool bool_contents 1, repeated int32 int_contents 2, repeated int64 int64_contents 3, "
    "repeated uint32 uint_contents 4, repeated uint64 uint64_contents 5, repeated float fp32_contents 6, "
    "repeated double fp64_contents 7, repeated bytes bytes_contents 8",
    "Tensor": f"{TENSOR}, repeated Parameter parameters 4, Contents contents 5",
    "RequestedOutput": "string name 1, repeated Parameter parameters 2",
    "ModelInferRequest": "string model_name 1, string model_version 2, string id 3, repeated Parameter parameters 4, "
    "repeated Tensor inputs 5, repeated RequestedOutput outputs 6, repeated bytes raw_input_contents 7",
    "ModelInferResponse": "string model_name 1, string model_version 2, string id 3, repeated Parameter parameters 4, "
    "repeated Tensor outputs 5, repeated bytes raw_output_contents 6",
}
"""Message -> its fields: type, name, number."""

METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "RepositoryIndex",
)


def build_messages() -> dict[str, Any]:
    """Message name -> its class, in a pool of their own: another definition in the same process does no harm."""
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for row in filter(None, fields.split(", ")):
            kind, field, number = row.removeprefix("repeated ").split()
            label = REPEATED if row.startswith("repeated ") else OPTIONAL
            added = message.field.add(name=field, number=int(number), label=label, type=TYPES.get(kind, MESSAGE))
            if kind not in TYPES:
                added.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


MOST_FIELDS = 10_000  # of a request, those of its tensors among them
MOST_AXES = 640  # bytes of a shape
SHAPE, TYPED = 3, 5  # fields of a tensor
INPUT: dict[int, Any] = {4: {}, TYPED: {}}
REQUEST: dict[int, Any] = {4: {}, 5: INPUT, 6: {2: {}}}
"""Of a ModelInferRequest, the fields that are messages, and those of theirs."""


def check_request(content: bytes, most_typed: int) -> None:
    """Look through a ModelInferRequest before it is parsed, which makes 80 bytes of a part that may have two.

    Raises RefusedError where it has more parts than any model takes, or more than `most_typed` bytes of typed contents,
    of which numbers take eight times as much; and where it cannot be looked through, which a parser may do all the same.
    """
    typed = 0
    try:
        for count, (inside, number, value) in enumerate(walk_fields(content, (0, len(content)), REQUEST), 1):
            if count > MOST_FIELDS:
                raise RefusedError(413, f"a message of more than {MOST_FIELDS} fields, expected packed ones, or fewer")
            if inside is not INPUT or not isinstance(value, tuple):
                continue
            size = value[1] - value[0]
            if number == SHAPE and size > MOST_AXES:
                raise RefusedError(400, f"a shape of {size} bytes, expected at most {MOST_AXES}")
            typed += size if number == TYPED else 0
            if typed > most_typed:
                raise RefusedError(
                    413, f"{typed} bytes of typed contents, expected at most {most_typed}: send raw_input_contents"
                )
    except (ValueError, IndexError) as error:
        raise RefusedError(400, f"{len(content)} bytes are not the message of this call") from error
