"""The Open Inference Protocol v2 over gRPC, on the same engine as HTTP.

grpcio costs a third of a millisecond a call: this is for clients that speak nothing else.  Tensors come as raw bytes or as
typed contents, and leave in the same form.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from fcdeploy import __version__
from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.records.signature import TensorSpec, format_axes
from fcdeploy.serve.grpc_messages import METHODS, PACKAGE, SERVICE, build_messages, check_request
from fcdeploy.serve.model_metadata import EXTENSIONS, describe_model
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.request import (
    DATATYPES,
    MOST_AXES,
    check_texts,
    decode_texts,
    encode_texts,
    pack_texts,
    unpack_texts,
)
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.tensors import to_little_endian
from fcdeploy.wording import say_count

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE, 504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip
"""HTTP status of a refusal -> gRPC's word for it; any other is INTERNAL."""

CONTENTS = {
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents",
    "UINT64": "uint64_contents", **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}  # fmt: skip
"""Datatype -> the field of its typed contents; FP16 has none, and is raw."""

WIDE = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}
"""Kind of a dtype -> what its typed contents are read as."""

STREAMS = 32  # calls of one connection at a time: each may bring a message of the largest size
OPEN = ("ServerLive", "ServerReady")  # without a token, as over HTTP


class Calls:
    """One method for each of the protocol's: a request's message in, an answer's out, or RefusedError."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.messages = build_messages()

    def parse(self, method: str, content: bytes) -> Any:
        """A call's message. Raises RefusedError, or DecodeError where it is none."""
        if method == "ModelInfer":
            check_request(content, self.state.max_json)
        return self.messages[f"{method}Request"].FromString(content)

    async def server_live(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        return self.messages["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        return self.messages["ServerReadyResponse"](ready=self.state.ready)

    async def model_ready(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        """A model that is not there is not ready, which is an answer and no error: so it is in Triton."""
        with suppress(RefusedError):
            self.state.engine.models.find(request.name, request.version)
            return self.messages["ModelReadyResponse"](ready=self.state.ready)
        return self.messages["ModelReadyResponse"](ready=False)

    async def server_metadata(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        return self.messages["ServerMetadataResponse"](name="fcdeploy", version=__version__, extensions=EXTENSIONS)

    async def model_metadata(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        model = self.state.engine.models.find(request.name, request.version).model
        return self.messages["ModelMetadataResponse"](**describe_model(self.state.engine, model))

    async def repository_index(self, request: Any, seconds: float | None) -> Any:  # noqa: ARG002
        rows = [
            {"name": m.name, "version": m.version, "state": "READY"} for m in self.state.engine.models.list_models()
        ]
        return self.messages["RepositoryIndexResponse"](models=rows)

    async def model_infer(self, request: Any, seconds: float | None) -> Any:
        engine = self.state.engine
        key, code = ("", ""), 500  # of no model, until one is found
        try:
            if self.state.full():
                raise RefusedError(503, "too many bytes of requests are under way, expected fewer", retry_after=1)
            model = engine.models.find(request.model_name, request.model_version).model
            key = model.key
            feeds = read_inputs(model, request)
            wanted = [output.name for output in request.outputs] or None
            _check_outputs(request.outputs)
            outputs = await engine.infer(
                model.name, feeds, version=model.version, outputs=wanted, timeout=_find_timeout(request, seconds)
            )
            code = 200
        except RefusedError as refusal:
            code = refusal.status
            raise
        finally:
            self.state.metrics.count(key, code)
        answer = self.messages["ModelInferResponse"](model_name=model.name, model_version=model.version, id=request.id)
        write_outputs(answer, outputs, raw=bool(request.raw_input_contents))
        return answer


def read_inputs(model: Model, request: Any) -> Arrays:
    """The inputs as arrays. Raises RefusedError 400, which names the input, what came and what was expected."""
    feeds: Arrays = {}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RefusedError(
            400, f"{len(raw)} raw_input_contents for {say_count(len(request.inputs), 'input')}, expected one for each"
        )
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        spec = model.inputs.get(name)
        if spec is None:
            raise RefusedError(400, f"input {name[:100]!r} is unknown, expected {quote_names(model.inputs)}")
        if name in feeds:
            raise RefusedError(400, f"input {name!r} is given twice, expected once")
        if any(parameter.key == "shared_memory_region" for parameter in tensor.parameters):
            raise RefusedError(400, f"input {name!r}: shared memory is not served, expected data")
        shape = _check_shape(spec, tensor)
        check_texts(model, spec, shape)
        feeds[name] = _decode_raw(spec, raw[index], shape) if raw else _decode_typed(spec, tensor.contents, shape)
    return feeds


def write_outputs(answer: Any, outputs: Mapping[str, Array], *, raw: bool) -> None:
    """All outputs raw, or all as typed contents where their types have such."""
    raw = raw or any(DATATYPES[array.dtype.name] not in CONTENTS for array in outputs.values())
    for name, array in outputs.items():
        datatype = DATATYPES[array.dtype.name]
        tensor = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(
                pack_texts(array) if datatype == "BYTES" else to_little_endian(array).tobytes()
            )
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(encode_texts(array))
        else:
            _write_typed(tensor.contents, CONTENTS[datatype], array)


def _write_typed(contents: Any, field: str, array: Array) -> None:
    """Floats and truths in one piece, as protobuf packs them: a megabyte number by number would hold the loop for long."""
    if array.dtype.kind not in "fb":
        getattr(contents, field).extend(array.reshape(-1).tolist())
        return
    tag = contents.DESCRIPTOR.fields_by_name[field].number << 3 | 2  # of a length and so many bytes
    length, size = [], array.nbytes
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    contents.MergeFromString(bytes([tag, *length, size]) + to_little_endian(array).tobytes())


def _check_shape(spec: TensorSpec, tensor: Any) -> tuple[int, ...]:
    datatype, shape = DATATYPES[spec.dtype.name], tuple(tensor.shape)
    if tensor.datatype != datatype:
        raise RefusedError(400, f"input {spec.name!r}: datatype {tensor.datatype[:20] or 'none'}, expected {datatype}")
    if len(shape) > MOST_AXES or not spec.accepts(shape):
        raise RefusedError(
            400, f"input {spec.name!r}: shape {str(list(shape))[:100]}, expected {format_axes(spec.shape)}"
        )
    return shape


def _decode_raw(spec: TensorSpec, content: bytes, shape: Sequence[int]) -> Array:
    if spec.dtype.kind == "O":
        return unpack_texts(content, spec.name, math.prod(shape), shape)
    expected = math.prod(shape) * spec.dtype.itemsize
    if len(content) != expected:
        raise RefusedError(
            400, f"input {spec.name!r}: {len(content)} bytes, expected {expected} for shape {list(shape)}"
        )
    if spec.dtype == np.bool_:
        return np.asarray(np.frombuffer(content, np.uint8) != 0).reshape(shape)
    return np.frombuffer(content, spec.dtype.newbyteorder("<")).astype(spec.dtype, copy=False).reshape(shape)


def _decode_typed(spec: TensorSpec, contents: Any, shape: Sequence[int]) -> Array:
    datatype, count = DATATYPES[spec.dtype.name], math.prod(shape)
    field = CONTENTS.get(datatype)
    if field is None:
        raise RefusedError(400, f"input {spec.name!r}: {datatype} has no typed contents, expected raw_input_contents")
    given = getattr(contents, field)
    if len(given) != count:
        raise RefusedError(400, f"input {spec.name!r}: {len(given)} {field}, expected {count} for shape {list(shape)}")
    if datatype == "BYTES":
        return decode_texts(given, spec.name, shape)
    values: Array = np.fromiter(given, WIDE[spec.dtype.kind], count)
    if spec.dtype.kind in "iu":
        limits: Any = np.iinfo(spec.dtype.name)
        if values.min() < limits.min or values.max() > limits.max:
            raise RefusedError(
                400, f"input {spec.name!r}: a value outside {datatype}, expected {limits.min} to {limits.max}"
            )
    return values.astype(spec.dtype).reshape(shape)


def _check_outputs(outputs: Sequence[Any]) -> None:
    if len({output.name for output in outputs}) < len(outputs):
        raise RefusedError(400, "an output is asked for twice, expected once")
    for output in outputs:
        for parameter in output.parameters:
            if parameter.key in ("classification", "shared_memory_region"):
                raise RefusedError(400, f"output {output.name!r}: {parameter.key} is not served, expected nothing")


def _find_timeout(request: Any, seconds: float | None) -> float | None:
    """The call's deadline, or the parameter `timeout` in microseconds: what ends first."""
    given = [p.value.int64_param / 1e6 for p in request.parameters if p.key == "timeout" and p.value.int64_param > 0]
    return min([*given, *([] if seconds is None else [seconds])], default=None)


async def start_grpc(
    state: ServerState,
    host: str,
    port: int,
    *,
    token: bytes | None = None,
    tls: tuple[Path, Path] | None = None,
    shared: bool = False,
) -> tuple[grpc.aio.Server, int]:
    """A gRPC server that runs on this loop, and its port; `tls` is a certificate chain and its key, both PEM.

    `shared` lets several processes have the port.  Raises FcdeployError when it cannot listen there.
    """
    limits = {"grpc.max_receive_message_length": state.max_body, "grpc.max_send_message_length": -1}
    limits["grpc.max_concurrent_streams"] = STREAMS
    server = grpc.aio.server(options=[*limits.items(), ("grpc.so_reuseport", int(shared))])
    calls = Calls(state)
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            _make_handler(
                getattr(calls, _to_snake_case(method)),
                partial(calls.parse, method),
                None if method in OPEN else token,
            ),
            response_serializer=calls.messages[f"{method}Response"].SerializeToString,
        )
        for method in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers),))

    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            chain, key = (path.read_bytes() for path in tls)
            bound = server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    except RuntimeError as error:
        raise FcdeployError(
            f"cannot listen on {address}: gRPC finds it in use or unknown", "--grpc-port PORT"
        ) from error
    await server.start()
    return server, bound


def _make_handler(
    call: Callable[[Any, float | None], Awaitable[Any]], parse: Callable[[bytes], Any], token: bytes | None
) -> Callable[[bytes, Any], Awaitable[Any]]:
    """The call behind a token, its refusals as status codes."""

    async def answer(content: bytes, context: Any) -> Any:
        try:
            if token is not None and not _is_authorized(context, token):
                raise RefusedError(401, "this server wants a token, expected metadata 'authorization: Bearer TOKEN'")
            try:
                request = parse(content)
            except DecodeError:
                raise RefusedError(400, f"{len(content)} bytes are not the message of this call") from None
            return await call(request, context.time_remaining())
        except RefusedError as refusal:
            await context.abort(CODES.get(refusal.status, grpc.StatusCode.INTERNAL), refusal.message)
        except Exception as defect:  # a mistake of ours is told as one, without a traceback
            await context.abort(grpc.StatusCode.INTERNAL, f"internal {type(defect).__name__}: {defect}")

    return answer


def _is_authorized(context: Any, token: bytes) -> bool:
    fields = dict(context.invocation_metadata() or ())
    scheme, _, given = str(fields.get("authorization", "")).partition(" ")
    return hmac.compare_digest(given.strip().encode(), token) and scheme.lower() == "bearer"


def _to_snake_case(method: str) -> str:
    """`ModelInfer` -> `model_infer`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method).lstrip("_")
