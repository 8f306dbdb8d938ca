"""gRPC on a real server: types, typed and raw contents, and every mistake as a status with a line that names it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from networks import Net
from onnx import TensorProto
from servers import PATIENCE, RUN, Server, serving

from fcdeploy.records.data_format import KEY, DataFormat, to_metadata
from fcdeploy.serve import grpc_messages
from fcdeploy.serve.grpc_messages import PACKAGE, SERVICE, build_messages, check_request
from fcdeploy.serve.refusal import RefusedError

MESSAGES = build_messages()
TYPES = {
    "FP16": (TensorProto.FLOAT16, np.float16, None), "FP32": (TensorProto.FLOAT, np.float32, "fp32_contents"),
    "FP64": (TensorProto.DOUBLE, np.float64, "fp64_contents"), "BOOL": (TensorProto.BOOL, np.bool_, "bool_contents"),
    "INT8": (TensorProto.INT8, np.int8, "int_contents"), "UINT8": (TensorProto.UINT8, np.uint8, "uint_contents"),
    "INT32": (TensorProto.INT32, np.int32, "int_contents"), "INT64": (TensorProto.INT64, np.int64, "int64_contents"),
    "UINT64": (TensorProto.UINT64, np.uint64, "uint64_contents"),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for each type that gives back its input x, two numbers a sample."""
    folder = tmp_path_factory.mktemp("types")
    for datatype, (element, _, _) in TYPES.items():
        net = Net()
        net.output(net.op("Identity", net.input("x", 2, dtype=element), name="y")).save(folder / f"{datatype}.onnx")
    bare = onnx.load(folder / "FP32.onnx")
    bare.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(bare, folder / "bare.onnx")
    table = onnx.load(folder / "FP32.onnx")
    entry = table.metadata_props.add()
    entry.key, entry.value = KEY, to_metadata(DataFormat(None, ("no", "yes"), ("age", "height"), "ill"))
    onnx.save(table, folder / "table.onnx")
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with serving(models, "--grpc-port", "0", "--max-body", "100K") as running:
        yield running


def address(server: Server) -> str:
    found = re.search(r"serving gRPC on (\S+)", "\n".join(server.said))
    assert found
    return found[1]


def call(server: Server, method: str, request: Any = b"", **options: Any) -> Any:
    """One call on a connection of its own; a request is a message, or bytes that may be none."""
    with grpc.insecure_channel(address(server)) as channel:
        ask = channel.unary_unary(
            f"/{PACKAGE}.{SERVICE}/{method}", response_deserializer=MESSAGES[f"{method}Response"].FromString
        )
        return ask(request if isinstance(request, bytes) else request.SerializeToString(), timeout=PATIENCE, **options)


def refused(server: Server, request: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, "ModelInfer", request, **options)
    assert "\n" not in caught.value.details()
    return caught.value.code(), caught.value.details()


def request(datatype: str, array: np.ndarray | None = None, /, *, raw: bool = True, **tensor: Any) -> Any:
    """For the model of that type; `tensor` says other things of the input than the array."""
    made = MESSAGES["ModelInferRequest"](model_name=datatype, id="here")
    array = np.ones((1, 2), TYPES[datatype][1]) if array is None else array
    row = made.inputs.add(**{"name": "x", "datatype": datatype, "shape": array.shape, **tensor})
    if raw:
        made.raw_input_contents.append(array.tobytes())
    else:
        getattr(row.contents, TYPES[datatype][2] or "fp32_contents").extend(array.ravel().tolist())
    return made


def values(datatype: str) -> np.ndarray:
    """The ends of the type."""
    dtype = np.dtype(TYPES[datatype][1])
    if dtype == np.bool_:
        return np.array([[True, False], [False, False]])
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([[limits.min, limits.max], [0, 1]], dtype)


@pytest.mark.parametrize("name", ["FP32", "table"])  # of the rows that HTTP takes for a table gRPC has no word
def test_metadata(server: Server, name: str) -> None:
    said = call(server, "ModelMetadata", MESSAGES["ModelMetadataRequest"](name=name))
    assert (said.name, list(said.versions), said.platform) == (name, ["1"], "onnxruntime_onnx")
    assert [(row.name, row.datatype, list(row.shape)) for row in said.inputs] == [("x", "FP32", [-1, 2])]
    assert [(row.name, row.datatype, list(row.shape)) for row in said.outputs] == [("y_out", "FP32", [-1, 2])]


@pytest.mark.parametrize("datatype", TYPES)
def test_raw_contents_of_every_type(server: Server, datatype: str) -> None:
    answer = call(server, "ModelInfer", request(datatype, values(datatype)))
    assert (answer.model_name, answer.model_version, answer.id) == (datatype, "1", "here")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y_out", datatype, [2, 2])
    assert answer.raw_output_contents[0] == values(datatype).tobytes()


@pytest.mark.parametrize("datatype", [name for name, row in TYPES.items() if row[2]])
def test_typed_contents_come_back_typed(server: Server, datatype: str) -> None:
    answer = call(server, "ModelInfer", request(datatype, values(datatype), raw=False))
    assert not answer.raw_output_contents
    found = getattr(answer.outputs[0].contents, TYPES[datatype][2] or "")
    np.testing.assert_array_equal(np.array(found), values(datatype).ravel())


def test_half_floats_have_no_typed_contents(server: Server) -> None:
    code, message = refused(server, request("FP16", raw=False))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "input 'x': FP16 has no typed contents, expected raw_input_contents"


def twice() -> Any:
    made = request("FP32")
    made.inputs.add().CopyFrom(made.inputs[0])
    made.raw_input_contents.append(made.raw_input_contents[0])
    return made


def output(name: str, parameter: str = "") -> Any:
    made = request("FP32")
    row = made.outputs.add(name=name)
    if parameter:
        row.parameters.add(key=parameter)
    return made


def short() -> Any:
    made = request("FP32")
    made.raw_input_contents[0] = bytes(7)
    return made


def more() -> Any:
    made = request("FP32")
    made.raw_input_contents.append(b"")
    return made


def wide() -> Any:
    made = request("INT8", raw=False)
    made.inputs[0].contents.int_contents[0] = 128
    return made


def few() -> Any:
    made = request("INT8", raw=False)
    made.inputs[0].contents.int_contents.pop()
    return made


MISTAKES: dict[str, tuple[Any, str]] = {
    "bytes": (b"\xff\xff", "2 bytes are not the message of this call"),
    "name": (request("FP32", name="z"), "input 'z' is unknown, expected 'x'"),
    "twice": (twice(), "input 'x' is given twice, expected once"),
    "datatype": (request("FP32", datatype="INT8"), "input 'x': datatype INT8, expected FP32"),
    "shape": (request("FP32", shape=[1, 3]), "input 'x': shape [1, 3], expected [?, 2]"),
    "nothing": (request("FP32", np.zeros((0, 2), np.float32)), "input 'x': shape [0, 2], expected [?, 2]"),
    "negative": (request("FP32", shape=[-1, 2]), "input 'x': shape [-1, 2], expected [?, 2]"),
    "huge": (request("FP32", shape=[2**62, 2]), "input 'x': 8 bytes, expected 36893488147419103232 for shape"),
    "huge typed": (request("FP32", raw=False, shape=[2**62, 2]), "2 fp32_contents, expected 9223372036854775808"),
    "short": (short(), "input 'x': 7 bytes, expected 8 for shape [1, 2]"),
    "more": (more(), "2 raw_input_contents for 1 input, expected one for each"),
    "wide": (wide(), "input 'x': a value outside INT8, expected -128 to 127"),
    "few": (few(), "input 'x': 1 int_contents, expected 2 for shape [1, 2]"),
    "output": (output("z"), "output 'z' is unknown, expected 'y_out'"),
    "classes": (output("y_out", "classification"), "output 'y_out': classification is not served"),
    "memory": (output("y_out", "shared_memory_region"), "output 'y_out': shared_memory_region is not served"),
    "none": (MESSAGES["ModelInferRequest"](model_name="FP32"), "input 'x' is missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(server: Server, mistake: str) -> None:
    made, expected = MISTAKES[mistake]
    code, message = refused(server, made)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


def test_other_refusals(server: Server) -> None:
    late = request("FP32")
    late.parameters.add(key="timeout").value.int64_param = 1
    assert refused(server, late)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused(server, request("FP32", np.zeros((99999, 2), np.float32)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    unknown = MESSAGES["ModelInferRequest"](model_name="../etc")
    assert refused(server, unknown)[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (b"\x2a\x00" * 10_000, "a message of more than 10000 fields"),  # inputs
        (b"\x32\x00" * 10_000, "a message of more than 10000 fields"),  # outputs
        (b"\x3a\x00" * 10_000, "a message of more than 10000 fields"),  # raw contents
        (b"\x22\x00" * 10_000, "a message of more than 10000 fields"),  # parameters
        (b"\x2a\xc0\xb8\x02" + b"\x22\x00" * 20_000, "a message of more than 10000 fields"),  # of an input
        (b"\x2a\x8b\x05\x1a\x88\x05" + b"\x01" * 648, "a shape of 648 bytes, expected at most 640"),
        (b"\x2a\xf4\x03\x2a\xf1\x03\x1a\xee\x03" + b"\x01" * 494, "497 bytes of typed contents, expected at most 496"),
    ],
)  # fmt: skip
def test_a_message_is_looked_through_before_it_takes_forty_times_its_size(part: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        check_request(b"\x0a\x04FP32" + part, 496)


def test_messages_that_are_served_pass_the_look(server: Server) -> None:
    for datatype in TYPES:
        check_request(request(datatype).SerializeToString(), 0)
        if datatype != "FP16":
            check_request(request(datatype, raw=False).SerializeToString(), 100)
    bomb = request("FP32").SerializeToString() + b"\x2a\x00" * 10_000
    assert refused(server, bomb)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


FIELDS = (
    b"\x0a\x01m",
    b"\x2a\x00",
    b"\x32\x00",
    b"\x3a\x01r",
    b"\x22\x00",
    b"\x2a\x02\x22\x00",
    b"\x38\x01",
    b"\xa3\x06\xa4\x06",
)
"""A name, inputs, outputs, raw contents, parameters, one of an input, a number where bytes are expected, and a group."""


@given(st.lists(st.sampled_from(FIELDS) | st.binary(max_size=8), max_size=12).map(b"".join))
def test_what_passes_the_look_is_as_small_when_protobuf_has_parsed_it(content: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grpc_messages, "MOST_FIELDS", 4)
        try:
            check_request(content, 60)
        except RefusedError:
            return
    with suppress(DecodeError):
        made = MESSAGES["ModelInferRequest"].FromString(content)
        parts = sum(1 + len(tensor.parameters) for tensor in made.inputs)
        assert parts + len(made.outputs) + len(made.raw_input_contents) + len(made.parameters) <= 4


@pytest.mark.parametrize("start", [b"\xa3\x06\xa4\x06", b"\xa6\x06", b"\x00\x00", b"\xaa\x80\x80\x80\x10\x00"])
def test_what_cannot_be_looked_through_is_not_parsed(start: bytes) -> None:
    """A group of a field that is not there, which protobuf skips, other wire types, and tags of no field."""
    with pytest.raises(RefusedError, match="bytes are not the message of this call") as failed:
        check_request(start + b"\x2a\x00" * 20_000, 60)
    assert failed.value.status == 400


def test_random_bytes_are_never_a_defect(server: Server) -> None:
    random = np.random.default_rng(0)
    good = request("FP32").SerializeToString()
    codes = set()
    with grpc.insecure_channel(address(server)) as channel:
        ask = channel.unary_unary(f"/{PACKAGE}.{SERVICE}/ModelInfer")
        for number in range(400):
            content = bytearray(good if number % 2 else random.bytes(int(random.integers(40))))
            if content:
                content[random.integers(len(content))] = random.integers(256)
            try:
                ask(bytes(content), timeout=PATIENCE)
            except grpc.RpcError as error:
                codes.add(error.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert call(server, "ServerLive").live


def test_an_input_whose_shape_the_file_leaves_out(server: Server) -> None:
    asked = request("FP32", np.ones((3, 2), np.float32))
    asked.model_name = "bare"
    assert np.frombuffer(call(server, "ModelInfer", asked).raw_output_contents[0], np.float32).tolist() == [1.0] * 6


def count_unknown(server: Server) -> int:
    """Requests for models that are not served."""
    page = server.ask("GET", "/metrics").body.decode()
    return int(next(iter(re.findall(r'requests_total\{code="404"\} (\d+)', page)), 0))


def test_requests_are_counted_with_those_of_http(server: Server) -> None:
    for _ in range(3):
        call(server, "ModelInfer", request("UINT8"))
    refused(server, request("UINT8", shape=[9, 9]))
    before = count_unknown(server)
    unknown = request("UINT8")
    unknown.model_name = "nobody"
    refused(server, unknown)
    assert count_unknown(server) == before + 1
    page = server.ask("GET", "/metrics").body.decode()
    counts = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in page.splitlines() if 'model="UINT8"' in line}
    refusals = [count for name, count in counts.items() if 'code="400"' in name]
    assert refusals == ["1"]


def test_a_token_is_wanted_but_for_health(models: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serving(models / "FP32.onnx", "--grpc-port", "0", "--token-file", str(tmp_path / "token")) as server:
        assert call(server, "ServerReady").ready
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
            code, message = refused(server, request("FP32"), metadata=metadata)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "expected metadata 'authorization: Bearer TOKEN'" in message
        answer = call(server, "ModelInfer", request("FP32"), metadata=(("authorization", "Bearer secret"),))
        assert answer.raw_output_contents


def test_it_stops_with_http(models: Path) -> None:
    with serving(models / "FP32.onnx", "--grpc-port", "0") as server:
        assert call(server, "ServerLive").live
        assert server.stop(signal.SIGTERM) == 0


def test_workers_share_the_port(models: Path) -> None:
    with serving(models / "FP32.onnx", "--grpc-port", "0", "--workers", "2") as server:
        for _ in range(8):
            assert call(server, "ModelInfer", request("FP32")).raw_output_contents
        assert server.stop(signal.SIGTERM) == 0


def test_a_port_that_is_taken(models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-c", RUN, "serve", str(models / "FP32.onnx"), "--port", "0", "--grpc-port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "hint: --grpc-port PORT" in done.stderr
