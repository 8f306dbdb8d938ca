"""The server as clients see it: a real process, real sockets."""

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mutations import mutated
from networks import Net
from onnx import TensorProto
from servers import PATIENCE, Server, binary, serving, tensor, wire
from small_models import dense, samples

from fcdeploy.serve.http_request import OF_MODEL

Array = np.ndarray[Any, Any]


def kinds(path: Path) -> Path:
    """Every datatype that can be served, in and out as it came."""
    names = [
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FLOAT16",
        "FLOAT",
        "DOUBLE",
    ]
    net = Net()
    for name in names:
        net.input(name.lower(), 2, dtype=getattr(TensorProto, name))
    for name in names:
        net.output(net.op("Identity", name.lower(), name=f"same_{name.lower()}"))
    return net.save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dense.onnx, the same without a shape in the file, kinds.onnx, and two versions of `twice` in Triton's layout."""
    folder = tmp_path_factory.mktemp("models")
    bare = onnx.load(dense(folder / "dense.onnx", 3))
    bare.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(bare, folder / "bare.onnx")
    kinds(folder / "kinds.onnx")
    for version in ("2", "10"):
        (folder / "twice" / version).mkdir(parents=True)
        dense(folder / "twice" / version / "model.onnx", int(version))
    (folder / "README").write_text("no model")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--max-body", "1M") as server:
        yield server


def direct(path: Path, **feeds: Array) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)  # type: ignore[no-any-return]


def test_what_it_says_of_itself(server: Server) -> None:
    assert server.ask("GET", "/v2").json["name"] == "fcdeploy"
    assert "binary_tensor_data" in server.ask("GET", "/v2").json["extensions"]
    assert server.ask("GET", "/v2/health/live").status == 200
    assert server.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert server.ask("GET", "/v2/models").json == {"models": ["bare", "dense", "kinds", "twice"]}
    index = server.ask("POST", "/v2/repository/index").json
    assert [(row["name"], row["version"], row["state"]) for row in index] == [
        ("bare", "1", "READY"),
        ("dense", "1", "READY"), ("kinds", "1", "READY"), ("twice", "2", "READY"), ("twice", "10", "READY"),
    ]  # fmt: skip
    assert server.ask("GET", "/v2/models/dense/ready").json == {"name": "dense", "ready": True}
    config = server.ask("GET", "/v2/models/dense/config").json
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 5]}]


def test_metadata_is_that_of_the_file(server: Server, folder: Path) -> None:
    answer = server.ask("GET", "/v2/models/twice").json
    assert answer["versions"] == ["2", "10"]
    assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 5]}]
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}]
    assert server.ask("GET", "/v2/models/twice/versions/2").json["outputs"][0]["shape"] == [-1, 2]
    (bare,) = server.ask("GET", "/v2/models/bare").json["inputs"]
    assert bare["shape"] == [-1]  # [] would be a single number
    assert server.ask("GET", "/v2/models/bare/config").json["input"][0]["dims"] == [-1]
    declared = [value.name for value in onnx.load(folder / "kinds.onnx").graph.input]
    assert [row["name"] for row in server.ask("GET", "/v2/models/kinds").json["inputs"]] == declared


def test_json_and_binary_answer_as_the_runtime_does(server: Server, folder: Path) -> None:
    x = samples(3, 5)
    expected = direct(folder / "dense.onnx", x=x)[0]
    answer = server.infer("dense", {"id": "7", "inputs": [tensor("x", x)]}).json
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("dense", "1", "7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [3, 3])
    assert np.array(output["data"], np.float32).tobytes() == expected.tobytes()

    body, fields = binary("x", x, "y")
    for _ in range(2):  # the second is read by what was remembered of the first
        reply = server.ask("POST", "/v2/models/dense/infer", body, **fields)
        length = int(reply.fields["inference-header-content-length"])
        header = json.loads(reply.body[:length])
        assert header["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [3, 3], "parameters": {"binary_data_size": 36}}
        ]
        assert reply.body[length:] == expected.tobytes()


def test_what_has_no_shape_in_the_file_takes_what_the_runtime_does(server: Server, folder: Path) -> None:
    x = samples(3, 5)
    (output,) = server.infer("bare", {"inputs": [tensor("x", x)]}).json["outputs"]
    assert np.array(output["data"], np.float32).tobytes() == direct(folder / "dense.onnx", x=x)[0].tobytes()
    answer = server.infer("bare", {"inputs": [tensor("x", samples(3, 4))]})
    assert answer.status == 400
    assert answer.json["error"].startswith("model 'bare': onnxruntime cannot run the model on x float32[3, 4]: node ")


def test_nested_data_and_outputs_by_name(server: Server, folder: Path) -> None:
    x = samples(2, 5)
    nested = {**tensor("x", x), "data": x.tolist()}
    answer = server.infer("dense", {"inputs": [nested], "outputs": [{"name": "y"}]}).json
    assert (
        np.array(answer["outputs"][0]["data"], np.float32).tobytes() == direct(folder / "dense.onnx", x=x)[0].tobytes()
    )
    assert answer["outputs"][0]["name"] == "y"


def test_every_datatype_comes_back_as_it_went(server: Server) -> None:
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {"bool": np.array([[True, False], [False, True]])}
    for bits in (8, 16, 32, 64):
        for kind in ("int", "uint"):
            limits = np.iinfo(f"{kind}{bits}")
            feeds[f"{kind}{bits}"] = np.array([[limits.min, limits.max], [0, 1]], f"{kind}{bits}")
    for name, dtype in (("float16", np.float16), ("float", np.float32), ("double", np.float64)):
        feeds[name] = random.normal(size=(2, 2)).astype(dtype)
    whole = server.infer("kinds", {"inputs": [tensor(name, array) for name, array in feeds.items()]}).json
    packed = b"".join(array.tobytes() for array in feeds.values())
    described = [
        {**{k: v for k, v in tensor(name, a).items() if k != "data"}, "parameters": {"binary_data_size": a.nbytes}}
        for name, a in feeds.items()
    ]
    document = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    for spaces in range(8):  # numbers may begin at any byte behind the header
        header = document + spaces * b" "
        reply = server.ask(
            "POST", "/v2/models/kinds/infer", header + packed, Inference_Header_Content_Length=str(len(header))
        )
        at = int(reply.fields["inference-header-content-length"])
        for output, row in zip(whole["outputs"], json.loads(reply.body[:at])["outputs"], strict=True):
            expected = feeds[output["name"].removeprefix("same_").removesuffix("_out")]
            assert row["name"] == output["name"]
            assert np.array(output["data"], expected.dtype).tobytes() == expected.tobytes()
            size = row["parameters"]["binary_data_size"]
            assert reply.body[at : at + size] == expected.tobytes()
            at += size
        assert at == len(reply.body)


def test_compressed_bodies(server: Server, folder: Path) -> None:
    x = samples(40, 5)
    body = json.dumps({"inputs": [tensor("x", x)]}).encode()
    expected = direct(folder / "dense.onnx", x=x)[0]
    for coding, pack, unpack in (("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)):
        reply = server.ask(
            "POST", "/v2/models/dense/infer", pack(body), Content_Encoding=coding, Accept_Encoding=coding
        )
        assert reply.fields["content-encoding"] == coding
        answer = json.loads(unpack(reply.body))
        assert np.array(answer["outputs"][0]["data"], np.float32).tobytes() == expected.tobytes()
    packed, fields = binary("x", x, "y")
    reply = server.ask("POST", "/v2/models/dense/infer", gzip.compress(packed), Content_Encoding="gzip", **fields)
    assert reply.body.endswith(expected.tobytes())


GOOD = {"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, 5]}
MISTAKES: list[tuple[Any, str]] = [
    ([], "the body is not a JSON object with 'inputs'"),
    ({}, "the request has no list 'inputs'"),
    ({"inputs": 3}, "the request has no list 'inputs'"),
    ({"inputs": []}, "input 'x' is missing, expected 'x'"),
    ({"inputs": [3]}, "an element of 'inputs' is not an object with name, shape, datatype and data"),
    ({"inputs": [{}]}, "an input has no name, expected 'x'"),
    ({"inputs": [{**GOOD, "name": "pixels"}]}, "input 'pixels' is unknown, expected 'x'"),
    ({"inputs": [GOOD, GOOD]}, "input 'x' is given twice, expected once"),
    ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "input 'x': datatype FP64, expected FP32"),
    ({"inputs": [{"name": "x", "shape": [1, 5], "data": []}]}, "input 'x': datatype none, expected FP32"),
    ({"inputs": [{**GOOD, "shape": "1,5"}]}, "input 'x': no shape, expected a list of integers: [?, 5]"),
    ({"inputs": [{**GOOD, "shape": [1, 4]}]}, "input 'x': shape [1, 4], expected [?, 5]"),
    ({"inputs": [{**GOOD, "shape": [5]}]}, "input 'x': shape [5], expected [?, 5]"),
    ({"inputs": [{**GOOD, "shape": [0, 5]}]}, "input 'x': shape [0, 5], expected [?, 5]"),
    ({"inputs": [{**GOOD, "shape": [-1, 5]}]}, "input 'x': shape [-1, 5], expected [?, 5]"),
    ({"inputs": [{**GOOD, "data": [1, 2]}]}, "input 'x': 2 values, expected 5 for shape [1, 5]"),
    ({"inputs": [{**GOOD, "data": None}]}, "input 'x': no data, expected a list of 5 values"),
    ({"inputs": [{**GOOD, "data": [1, 2, 3, 4, "5"]}]}, "input 'x': data holds something else, expected numbers for FP32"),
    ({"inputs": [{**GOOD, "data": [1, 2, 3, 4, 1e39]}]}, "input 'x': a value too large for FP32, expected what it can hold"),
    (
        {"inputs": [{**GOOD, "parameters": {"binary_data_size": 20}}]},
        "input 'x': binary_data_size without the header Inference-Header-Content-Length",
    ),
    (
        {"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]},
        "input 'x': shared memory is not served, expected data",
    ),
    ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "output \"z\" is unknown, expected 'y'"),
    ({"inputs": [GOOD], "outputs": {}}, "'outputs' is not a list of objects with a name"),
    ({"inputs": [GOOD], "id": 7}, "'id' is not text, expected a string"),
    (
        {"inputs": [GOOD], "parameters": {"timeout": "1"}},
        "parameter 'timeout' is \"1\", expected whole microseconds, 0 or more",
    ),
    (
        {"inputs": [GOOD], "parameters": {"timeout": -5}},
        "parameter 'timeout' is -5, expected whole microseconds, 0 or more",
    ),
    (
        {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        "output 'y': classification is not served, expected binary_data or nothing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_body", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_each_mistake_in_json_has_its_message(server: Server, request_body: Any, message: str) -> None:
    reply = server.infer("dense", request_body)
    assert (reply.status, reply.error) == (400, message)


def test_mistakes_in_integers_and_truths(server: Server) -> None:
    feeds = [tensor(name, np.zeros((1, 2), name)) for name in ("bool", "uint8", "uint16", "uint32", "uint64")]

    def message(index: int, data: list[Any]) -> str:
        changed = [{**row, "data": data} if i == index else row for i, row in enumerate(feeds)]
        return server.infer("kinds", {"inputs": changed}).error

    assert message(1, [1, 256]) == "input 'uint8': a value outside UINT8, expected 0 to 255"
    assert message(1, [1, -1]) == "input 'uint8': data holds something else, expected numbers for UINT8"
    assert message(1, [1, 1.5]) == "input 'uint8': data holds something else, expected numbers for UINT8"
    assert message(0, [1, 0]) == "input 'bool': data holds something else, expected true and false for BOOL"
    assert message(0, [True, None]) == message(0, [[True], []]) == message(0, [1, 0])
    assert message(0, [[True], [False, True]]) == "input 'bool': 3 values, expected 2 for shape [1, 2]"
    assert message(0, [True]) == "input 'bool': 1 values, expected 2 for shape [1, 2]"


def test_mistakes_in_binary_bodies(server: Server) -> None:
    body, fields = binary("x", samples(1, 5))
    length = int(fields["Inference_Header_Content_Length"])

    def message(body: bytes, length: object = length) -> str:
        reply = server.ask("POST", "/v2/models/dense/infer", body, Inference_Header_Content_Length=str(length))
        assert reply.status == 400
        return reply.error

    assert message(body[:-1]) == "19 bytes follow the header, expected 20: the sum of binary_data_size"
    assert message(body + b"1") == "21 bytes follow the header, expected 20: the sum of binary_data_size"
    assert message(body, 10**6) == (
        f"Inference-Header-Content-Length is 1000000, more than the {len(body)} bytes of the body"
    )
    assert message(body, "-1") == "Inference-Header-Content-Length is '-1', expected a number of bytes"
    assert message(body, 5).startswith("the header of the body is not JSON, expected")
    wrong = body.replace(b'"binary_data_size": 20', b'"binary_data_size": 24')
    assert message(wrong) == "input 'x': binary_data_size 24, expected 20 for [1, 5] of FP32"
    wrong = body.replace(b'"binary_data_size": 20', b'"binary_data_size": "a"')
    assert message(wrong, length + 1) == "input 'x': binary_data_size is not an integer, expected a number of bytes"


def test_mistakes_in_addresses_and_bodies(server: Server) -> None:
    known = "bare, dense, kinds, twice"
    assert server.infer("mlp", {}).error == f"model 'mlp' is unknown, expected one of: {known}"
    assert server.infer("mlp", {}).status == 404
    assert server.infer("twice/versions/3", {}).error == "model 'twice' has no version '3', expected one of: 2, 10"
    assert server.ask("GET", "/v2/models/..%2f..%2fetc").status == 404
    reply = server.ask("GET", "/v2/nothing")
    assert (reply.status, reply.error) == (
        404, "nothing is at '/v2/nothing', expected v2/models/NAME/infer or v1/models/NAME:classify",
    )  # fmt: skip
    reply = server.ask("GET", "/v2/models/dense/infer")
    assert (reply.status, reply.error) == (405, "GET /v2/models/dense/infer: expected POST")
    reply = server.ask("POST", "/v2/models/dense/infer", b"{", Content_Encoding="br")
    assert (reply.status, reply.error) == (415, "Content-Encoding is 'br', expected gzip or deflate")
    for text, why in (
        (b"{", "is not JSON"), (b'{"inputs": nope}', "is not JSON"), (b"{}{", "is not JSON"), (b"", "is empty"),
        (b"\xff\xfe", "is not UTF-8"), (b'{"inputs": [1e999]}', "holds a number that JSON has not, or that takes more"),
        (b'{"inputs": [123456789012345678901234567890]}', "holds a number that JSON has not, or that takes more"),
    ):  # fmt: skip
        reply = server.ask("POST", "/v2/models/dense/infer", text)
        assert (reply.status, reply.error.startswith(f"the body {why}")) == (400, True), reply.error
        assert reply.error.endswith(", expected a JSON object with 'inputs'")
    reply = server.ask("POST", "/v2/models/dense/infer", b"{}" * 20, Content_Encoding="gzip")
    assert reply.error == "the body is not gzip, expected what Content-Encoding says"
    half = gzip.compress(b"{}" * 1000)[:-9]
    reply = server.ask("POST", "/v2/models/dense/infer", half, Content_Encoding="gzip")
    assert reply.error == "the body is not whole gzip, expected its end"


def test_bodies_that_are_too_large(server: Server) -> None:
    reply = server.ask("POST", "/v2/models/dense/infer", b" " * ((1 << 20) + 1))
    assert (reply.status, reply.error) == (413, "a body of 1048577 bytes, expected at most 1048576")
    bomb = gzip.compress(b" " * (1 << 24))
    reply = server.ask("POST", "/v2/models/dense/infer", bomb, Content_Encoding="gzip")
    assert (reply.status, reply.error) == (
        413, "a body of more than 1048576 bytes behind its gzip, expected at most that",
    )  # fmt: skip


def talk(server: Server, *parts: bytes) -> bytes:
    """Send these and the end, and read until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        for part in parts:
            client.sendall(part)
        answer = b""
        with suppress(ConnectionError, OSError):  # it may have hung up already
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(1 << 16):
                answer += data
    return answer


def test_pipelined_requests_are_answered_in_order(server: Server, folder: Path) -> None:
    x = samples(6, 5)
    bodies = [json.dumps({"id": str(i), "inputs": [tensor("x", x[i : i + 1])]}).encode() for i in range(6)]
    stream = b"".join(wire("/v2/models/dense/infer", body) for body in bodies)
    answers = [json.loads(part[part.index(b"{") :]) for part in talk(server, stream).split(b"HTTP/1.1 200 OK")[1:]]
    assert [answer["id"] for answer in answers] == list("012345")
    for i, answer in enumerate(answers):
        assert np.array(answer["outputs"][0]["data"], np.float32).tobytes() == (
            direct(folder / "dense.onnx", x=x[i : i + 1])[0].tobytes()
        )


def test_bodies_in_pieces_and_in_chunks(server: Server) -> None:
    body = json.dumps({"inputs": [GOOD]}).encode()
    whole = wire("/v2/models/dense/infer", body)
    expected = talk(server, whole)
    assert expected.startswith(b"HTTP/1.1 200 OK")
    assert talk(server, *(whole[i : i + 7] for i in range(0, len(whole), 7))) == expected
    head = b"POST /v2/models/dense/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
    assert talk(server, head + chunks + b"0\r\nTrailer: a\r\n\r\n") == expected
    assert b" 400 " in talk(server, head + b"zz\r\n")
    assert b" 400 " in talk(server, head + b"2\r\n{}}}\r\n0\r\n\r\n")
    assert b"the request ended early" in talk(server, whole[:-1])


def test_heads_that_are_no_requests(server: Server) -> None:
    assert b"HTTP/1.1 400 Bad Request" in talk(server, b"hello\r\n\r\n")
    assert b" 431 " in talk(server, b"GET /v2 HTTP/1.1\r\nA: " + b"a" * (17 << 10) + b"\r\n\r\n")
    both = b"POST /v2/models/dense/infer HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    assert b" 400 " in talk(server, both)
    assert b"Connection: keep-alive" in talk(server, b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert talk(server, b"HEAD /v2/health/live HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_mutated_requests_are_the_client_s_mistake(server: Server, folder: Path) -> None:
    """Whatever comes: no answer of 5xx, no hang, and the next request is answered as ever."""
    body, fields = binary("x", samples(1, 5), "y")
    goods = [
        wire("/v2/models/dense/infer", json.dumps({"id": "1", "inputs": [GOOD], "outputs": [{"name": "y"}]}).encode()),
        wire("/v2/models/dense/infer", body, **fields),
    ]
    statuses: Counter[bytes] = Counter()
    for seed in range(400):
        answer = talk(server, mutated(goods[seed % 2], seed))
        statuses.update(re.findall(rb"HTTP/1\.1 (\d{3}) ", answer))
    assert sum(statuses.values()) > 300
    assert not [status for status in statuses if status[:1] == b"5"], statuses
    assert statuses[b"400"] > 100
    x = samples(1, 5)
    output = server.infer("dense", {"inputs": [tensor("x", x)]}).json["outputs"][0]
    assert np.array(output["data"], np.float32).tobytes() == direct(folder / "dense.onnx", x=x)[0].tobytes()


def test_the_table_of_addresses_stands_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    for words in OF_MODEL:
        assert "/".join(words) in page


def test_metrics_count_what_happened(folder: Path) -> None:
    with serving(folder) as server:
        server.infer("dense", {"inputs": [GOOD]})
        server.infer("dense", {})
        server.infer("mlp", {})
        page = server.ask("GET", "/metrics").body.decode()
    for line in (
        'fcdeploy_requests_total{model="dense",version="1",code="200"} 1',
        'fcdeploy_requests_total{model="dense",version="1",code="400"} 1',
        'fcdeploy_requests_total{code="404"} 1',
        'fcdeploy_batch_size_bucket{model="dense",version="1",le="1"} 1',
        'fcdeploy_queue_seconds_count{model="dense",version="1"} 1',
        'fcdeploy_compute_seconds_count{model="dense",version="1"} 1',
        'fcdeploy_loads_total{model="twice",version="10"} 1',
        "fcdeploy_ready 1",
        "# TYPE fcdeploy_compute_seconds histogram",
    ):
        assert line in page.splitlines(), line
    assert "mlp" not in page
