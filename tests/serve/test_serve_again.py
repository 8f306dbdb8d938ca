"""What the server remembers of requests changes no answer: the same bodies, decoded with and without a memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import binary, wire
from small_models import dense

from fcdeploy.serve import routes, tensors
from fcdeploy.serve.batching import InferenceRequest, Queue, _run_alone
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.grpc_messages import build_messages
from fcdeploy.serve.grpc_service import write_outputs
from fcdeploy.serve.http_answer import Answer
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.models import PIECE, Model, load_model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import find_models
from fcdeploy.serve.routes import answer_request
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.tensors import JsonFrame, decode
from fcdeploy.serve.unpack import inflate

FRONT = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two inputs to a sample."""
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    dense(path, 2)
    loaded = load_model(find_models(path)[0])
    (spec,) = loaded.inputs.values()
    return replace(loaded, inputs={"x": replace(spec, name="x", shape=(None, 2))})


def read(model: Model, body: bytes) -> Any:
    """What a request says, or why it is refused."""
    try:
        feeds, wanted = decode(model, body, None)
    except RefusedError as refusal:
        return refusal.status, refusal.message
    return (
        {name: (a.dtype, a.shape, a.tobytes()) for name, a in feeds.items()},
        wanted.outputs,
        wanted.id,
        wanted.timeout,
    )


def arounds(model: Model) -> list[JsonFrame]:
    return [value for value in model.layouts.values() if isinstance(value, JsonFrame)]


DATA = [
        b"[1,2]", b"[ 1.5 , -2e3 ]", b"[]", b"[1]", b"[1,2,3]", b"[[1,2]]", b"[1,[2]]", b"[1,2", b"[1,2]]", b"[1,,2]",
        b"[1,2,]", b'["a]",2]', b'[1,"2"]', b"[1,null]", b"[true,1]", b"[1e39,0]", b"[1,{}]", b"[1,2],3]", b"[1 2]",
        b"[1,\xff]", b"[18446744073709551616,1]", b"[-0.0,5e-324]", b"[1,2]//", b'[1,2],"data":[3,4]', b"null", b"",
    ]  # fmt: skip


@pytest.mark.parametrize("data", DATA)
def test_other_numbers_between_the_same_words(model: Model, data: bytes) -> None:
    fresh = replace(model, layouts={})
    known = replace(model, layouts={})
    read(known, FRONT + b"[3,4]}]}")
    assert len(arounds(known)) == 1
    for back in (b"}]}", b"}]} ", b"}]}]"):
        body = FRONT + data + back
        assert read(known, body) == read(replace(fresh, layouts={}), body)
        assert read(known, body) == read(replace(fresh, layouts={}), body)


@pytest.mark.parametrize("data", [*DATA, b"[" + b" 1.25," * 40 + b"2]", b"[" + b"1," * 9 + b"]", b"[7,,8]"])
@pytest.mark.parametrize("shape", [b"[1,2]", b"[20,2]", b"[41]", b"[5,2]", b"[1000000000000,2]"])
def test_long_lists_are_read_piece_by_piece_and_say_the_same(
    model: Model, monkeypatch: pytest.MonkeyPatch, data: bytes, shape: bytes
) -> None:
    for back in (b"}]}", b"}]} ", b'}],"outputs":[{"name":"z"}]}'):
        body = FRONT.replace(b"[1,2]", shape) + data + back
        whole = read(replace(model, layouts={}), body)
        for large in (2, 16, 60):
            monkeypatch.setattr(tensors, "LARGE", large)
            assert read(replace(model, layouts={}), body) == whole
        monkeypatch.undo()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False)), min_size=2, max_size=300
    ),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :")]),
    st.sampled_from(["FP32", "FP64", "INT32", "UINT8"]),
)
def test_any_long_list(model: Model, values: list[float], between: tuple[str, str], datatype: str) -> None:
    dtypes = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "UINT8": np.uint8}
    values = values[: len(values) // 2 * 2]
    typed = replace(model, inputs={"x": replace(model.inputs["x"], dtype=np.dtype(dtypes[datatype]))})
    described = {"name": "x", "shape": [len(values) // 2, 2], "datatype": datatype, "data": values}
    body = json.dumps({"inputs": [described]}, separators=between).encode()
    whole = read(replace(typed, layouts={}), body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "LARGE", 64)
        assert read(replace(typed, layouts={}), body) == whole


def test_a_parser_of_long_texts_asks_first(model: Model) -> None:
    """Of a flat list it takes no more than of a short one; of others it says how much it will take."""
    asked: list[int] = []
    numbers = b"[" + b"1," * 400_001 + b"1]"
    fresh = replace(model, layouts={})
    feeds, _ = decode(fresh, FRONT.replace(b"[1,2]", b"[200001,2]") + numbers + b"}]}", None, asked.append)
    assert (feeds["x"].shape, asked) == ((200_001, 2), [])
    nested = FRONT.replace(b"[1,2]", b"[1,2]") + b"[[1," + b" " * 300_000 + b"2]]}]}"
    feeds, _ = decode(fresh, nested, None, asked.append)
    assert feeds["x"].tolist() == [[1, 2]]
    assert asked == [tensors.PARSED * len(nested)]


@pytest.mark.parametrize(
    "front",
    [
        b'{"parameters":{"data":[1]},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]}',
        b'{"id":"\\"data\\"","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]}',
        b'{"parameters":{"a":"data"},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]}',
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[5,6]]}]}',
        b'{"id":"7","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]}',
    ],
)
def test_what_is_not_remembered(model: Model, front: bytes) -> None:
    """The first list behind the word is something else, or the words differ every time."""
    known = replace(model, layouts={})
    assert read(known, front)[0] != 400
    assert not arounds(known)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=2),
    st.booleans(),
)
def test_any_numbers(model: Model, rows: list[list[float]], wide: bool) -> None:
    known = replace(model, layouts={})
    for row in rows:
        request = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row}]}
        feeds, _ = decode(known, json.dumps(request, indent=1 if wide else None).encode(), None)
        assert feeds["x"].tobytes() == np.array([row], np.float32).tobytes()
    assert len(arounds(known)) == 1


MANY = b"[" + b"[]," * 300_000 + b"[]]"
ONE = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],'


@pytest.mark.parametrize(
    "body",
    [
        ONE + b'"parameters":{"any":' + MANY + b"}}", ONE + b'"outputs":[{"name":"y","any":' + MANY + b"}]}",
        ONE + b'"outputs":[{"name":' + MANY + b"}]}", ONE + b'"id":' + MANY + b"}",
        FRONT.replace(b"[1,2]", MANY) + b"[1,2]}]}", FRONT.replace(b"[1,2]", b"[1," + MANY + b"]") + b"[1,2]}]}",
        FRONT.replace(b'"x"', MANY) + b"[1,2]}]}", FRONT.replace(b'"FP32"', MANY) + b"[1,2]}]}", FRONT + MANY + b"}]}",
        FRONT.replace(b"FP32", b"BOOL").replace(b'"x"', b'"b"') + MANY + b"}]}",
        FRONT.replace(b"FP32", b"BOOL").replace(b'"x"', b'"b"') + b"[" + b"true," * 180_000 + b"true]}]}",
    ],
    ids=["parameters", "an output", "its name", "id", "shape", "in shape", "name", "datatype", "data", "bool", "bools"],
)  # fmt: skip
def test_no_text_becomes_a_hundred_times_its_size(model: Model, body: bytes) -> None:
    """Python's lists would: each of these is a megabyte, what is made of it is little more, but for what simdjson holds."""
    spec = model.inputs["x"]
    inputs = {"b": replace(spec, name="b", dtype=np.dtype(bool))} if b"BOOL" in body else model.inputs
    fresh = replace(model, inputs=inputs, layouts={})
    tracemalloc.start()
    try:
        read(fresh, body)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seconds", [0.0025, 0.006], ids=["two are too slow", "one is too slow"])
def test_a_slow_model_runs_requests_one_by_one_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("fcdeploy.serve.models._time_run", lambda *_: seconds)
    dense(tmp_path / "dense.onnx", 2)
    loaded = load_model(find_models(tmp_path / "dense.onnx")[0])
    assert (loaded.largest, loaded.alone) == (1, f"a single run takes {1000 * seconds:.1f} ms")


def test_a_delayed_batch_that_is_full_waits_no_longer(tmp_path: Path) -> None:
    """With a delay of an hour: three requests wait, the fourth fills the batch, and all are answered in one run."""
    dense(tmp_path / "dense.onnx", 2)
    loaded = replace(load_model(find_models(tmp_path / "dense.onnx")[0]), largest=4)
    feeds = {name: np.ones((1, 2), np.float32) for name in loaded.inputs}

    async def ask() -> list[int]:
        loop = asyncio.get_running_loop()
        answered: list[asyncio.Future[int]] = [loop.create_future() for _ in range(8)]
        with ThreadPoolExecutor(1) as threads:
            queue = Queue(loaded, loop, threads, delay=3600.0)
            for future in answered:
                queue.put(InferenceRequest(feeds, lambda request, _, to=future: to.set_result(request.batch)))
            return await asyncio.wait_for(asyncio.gather(*answered), 120)

    assert asyncio.run(ask()) == [4] * 8


def test_an_answer_that_fails_leaves_others_theirs(tmp_path: Path) -> None:
    """Three requests in one run: the first raises when it is told, which the loop hears of, and two are answered."""
    dense(tmp_path / "dense.onnx", 2)
    loaded = replace(load_model(find_models(tmp_path / "dense.onnx")[0]), largest=4)
    feeds = {name: np.ones((1, 2), np.float32) for name in loaded.inputs}
    heard, told = list[str](), list[int]()

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
        with ThreadPoolExecutor(1) as threads:
            queue = Queue(loaded, loop, threads)
            for number in range(3):
                queue.put(InferenceRequest(feeds, lambda *_, at=number: told.append(1 // at)))
            while len(told) + len(heard) < 3:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert (heard, told) == (["integer division or modulo by zero"], [1, 0])


def ask_twice(folder: Path, body: bytes, fields: dict[str, str]) -> list[Answer]:
    """The answers to a request that comes twice."""
    head = wire("/v2/models/dense/infer", body, **fields).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    answers: list[Answer] = []

    async def ask() -> None:
        engine = BatchingEngine(folder)
        await engine.start()
        state = ServerState(engine, Metrics())
        for _ in range(2):
            answer_request(state, HeadParser().read(head), body, time.perf_counter(), answers.append)
            while engine.requests:
                await asyncio.sleep(0)
        await engine.stop()

    asyncio.run(asyncio.wait_for(ask(), 60))
    return answers


def test_every_answer_says_its_fields_and_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are remembered; one that is large is compressed in a thread, and one that fails is a 500."""
    dense(tmp_path / "dense.onnx", 600)
    body, fields = binary("x", np.ones((30, 5), np.float32), "y")
    first, again = (answer.split() for answer in ask_twice(tmp_path, body, fields))
    assert again[0].pop("Content-Length") == str(len(b"".join(first[1])))
    assert (again[0], b"".join(again[1])) == (first[0], b"".join(first[1]))
    assert first[0].keys() == {"Content-Type", "Inference-Header-Content-Length"}

    where: list[str] = []
    make = routes.make_answer
    monkeypatch.setattr(
        routes, "make_answer", lambda *given: where.append(threading.current_thread().name) or make(*given)
    )
    packed = ask_twice(tmp_path, body, {**fields, "Accept_Encoding": "gzip"})[0].split()
    assert gzip.decompress(b"".join(packed[1])) == b"".join(first[1])
    assert where[0].startswith("run") and packed[0]["Content-Encoding"] == "gzip"
    monkeypatch.setattr(routes, "make_answer", lambda *_: 1 // 0)
    for more in ({}, {"Accept_Encoding": "gzip"}):
        answers = ask_twice(tmp_path, body, {**fields, **more})
        assert [answer.status for answer in answers] == [500, 500]


def test_a_late_request_is_told_the_time_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what was left of it when it was queued, which may be less than nothing."""
    dense(tmp_path / "dense.onnx", 2)
    told: list[Any] = []

    async def ask() -> None:
        engine = BatchingEngine(tmp_path)
        await engine.start()
        served = engine.models.find("dense")
        monkeypatch.setattr(served.queue, "put", lambda _: None)  # its turn never comes
        arrived = time.perf_counter() - 5
        engine.submit(
            served,
            {"x": np.ones((1, 5), np.float32)},
            lambda *given: told.append(given[1]),
            timeout=2.5,
            arrived=arrived,
        )
        while not told:
            await asyncio.sleep(0.001)
        engine.requests = 0
        await engine.stop()

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert (told[0].status, told[0].message) == (504, "model 'dense': no answer within the 2.5 s given")


def test_typed_contents_are_those_that_protobuf_writes() -> None:
    random = np.random.default_rng(0)
    message = build_messages()["ModelInferResponse"]
    for count in (0, 1, 31, 32, 5000):
        arrays = {"a": random.normal(size=count).astype(np.float32), "b": random.normal(size=count),
                  "c": random.normal(size=count) > 0, "d": random.integers(-9, 9, count)}  # fmt: skip
        answer = message()
        write_outputs(answer, arrays, raw=False)
        contents = [output.contents for output in answer.outputs]
        found = [
            contents[0].fp32_contents,
            contents[1].fp64_contents,
            contents[2].bool_contents,
            contents[3].int64_contents,
        ]
        for values, array in zip(found, arrays.values(), strict=True):
            assert list(values) == array.tolist()


def test_large_inputs_that_lie_anywhere_are_moved_once() -> None:
    """Beside an input of another length they run as they came, and kernels may read 32 bytes at a time."""
    seen = list[bool]()

    @dataclass
    class Watching:
        largest = 1

        def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.extend(array.flags.aligned for array in feeds.values())
            return [np.zeros(1)]

    raw = np.zeros((PIECE + 8) + 1, np.uint8)[1:]
    feeds = {"x": raw.view(np.float32)[None], "state": np.zeros((2, 2), np.float32)}
    assert not feeds["x"].flags.aligned
    request = InferenceRequest(feeds, lambda *_: None)
    assert request.alone
    assert _run_alone(Watching(), request) == [0.0]  # type: ignore[arg-type]
    assert seen == [True, True]


def pack(*parts: bytes) -> bytes:
    return b"".join(map(gzip.compress, parts))


def test_gzip_of_several_members() -> None:
    """RFC 1952, 2.2: what tools that pack in parallel write, and `cat a.gz b.gz`."""
    assert inflate(pack(b'{"in', b"", b'puts": 1}'), "gzip", 100) == b'{"inputs": 1}'
    assert inflate(pack(b"a" * 60, b"b" * 40), "gzip", 100) == b"a" * 60 + b"b" * 40
    for body, coding, limit, status, message in (
        (pack(b"a" * 60, b"b" * 41), "gzip", 100, 413, "more than 100 bytes"),
        (pack(*[b""] * 17), "gzip", 100, 400, "at most 16 members"),
        (pack(b"a") + b"xyz", "gzip", 100, 400, "is not gzip"),
        (pack(b"a", b"b")[:-3], "gzip", 100, 400, "is not whole gzip, expected its end"),
        (zlib.compress(b"a") * 2, "deflate", 100, 400, "is not whole deflate"),
        (b"", "gzip", 100, 400, "is not whole gzip"),
    ):
        with pytest.raises(RefusedError, match=message) as refused:
            inflate(body, coding, limit)
        assert refused.value.status == status


def test_what_threads_make_waits_for_the_loop(tmp_path: Path) -> None:
    """A body of a kilobyte may become megabytes: no more of them are there at a time than threads."""
    dense(tmp_path / "dense.onnx", 2)
    made, most = set[int](), 0

    async def ask() -> int:
        nonlocal most
        engine = BatchingEngine(tmp_path)
        await engine.start()

        def make(at: int) -> int:
            nonlocal most
            made.add(at)
            most = max(most, len(made))
            return at

        def take(at: Any) -> None:
            time.sleep(0.002)  # the loop is slower than the threads
            made.remove(at)

        for at in range(20):
            engine.call_in_thread(1, partial(make, at), take)
        await engine.stop()
        return engine.at_once

    threads = asyncio.run(ask())
    assert 0 < most <= threads
    assert not made
