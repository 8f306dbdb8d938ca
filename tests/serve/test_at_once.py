"""Requests that come again are answered at once, and as if they had come for the first time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from servers import binary, wire
from small_models import dense

from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.session import Session
from fcdeploy.serve import http_connection, models
from fcdeploy.serve.at_once import answer_at_once
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_connection import Connection
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.limits import Limits
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.server_state import ServerState

PATH = "/v2/models/dense/infer"


class Transport:
    """A client who takes everything at once."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.written += b"".join(parts)

    def get_extra_info(self, name: str) -> None:
        assert name in ("sslcontext", "peername")

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    dense(folder / "dense.onnx", 3)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _direct() -> Any:
    """The model answers within the call that brings a request, as native code does, however slow this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "batches_pay", False)
        patch.setattr(models, "DIRECT_SECONDS", 1e6)
        yield


def ask(
    folder: Path, requests: Sequence[bytes], *, usual: bool = False, **state_fields: Any
) -> tuple[list[bytes], str, list[bool]]:
    """The answer to each of the requests on one connection, what was counted, and which of them were answered at once."""
    at_once: list[bool] = []

    def look(state: ServerState, *given: Any) -> bytes | None:
        answer = None if usual else answer_at_once(state, *given)
        at_once.append(answer is not None)
        return answer

    async def live() -> tuple[list[bytes], str]:
        metrics = Metrics()
        engine = BatchingEngine(folder, observer=metrics)
        await engine.start()
        connection, transport = (
            Connection(ServerState(engine, metrics, **state_fields), HeadParser(), Limits(), set()),
            Transport(),
        )
        connection.connection_made(transport)
        answers = []
        for request in requests:
            transport.written.clear()
            connection.data_received(request)
            while engine.requests:
                await asyncio.sleep(0)
            answers.append(bytes(transport.written))
        page = metrics.format_page(waiting=0, ready=True).decode()
        await engine.stop()
        return answers, page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_connection, "answer_at_once", look)
        answers, page = asyncio.run(asyncio.wait_for(live(), 60))
    return answers, page, at_once


def count(page: str) -> list[str]:
    """What the metrics count, without what they time, and without runs: who shares one is a matter of microseconds."""
    return [
        line
        for line in page.splitlines()
        if re.match(r"fcdeploy_(requests_total|batch_size_sum|queue_seconds_count)", line)
    ]


def make_request(rows: int, number: float, **fields: str) -> bytes:
    body, said = binary("x", np.full((rows, 5), number, np.float32), "y")
    return wire(PATH, body, **said, **fields)


PLAIN = ("one", "three")
KINDS = st.sampled_from(["one", "three", "gzip", "text", "two together", "wrong"])


def build(kind: str, number: float) -> bytes:
    body, said = binary("x", np.full((1, 5), number, np.float32))
    match kind:
        case "three":
            return make_request(3, number)
        case "gzip":
            return make_request(1, number, Accept_Encoding="gzip")
        case "text":  # the answer is wanted in JSON
            return wire(PATH, body, **said)
        case "two together":
            return 2 * make_request(1, number)
        case "wrong":
            return make_request(1, number).replace(b'"FP32"', b'"FP64"')
    return make_request(1, number)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(KINDS, st.floats(-9, 9, width=32)), min_size=2, max_size=12))
def test_answers_and_counts_are_those_of_the_usual_way(folder: Path, drawn: list[tuple[str, float]]) -> None:
    requests = [build(kind, number) for kind, number in drawn]
    answers, page, at_once = ask(folder, requests)
    expected, counted, _ = ask(folder, requests, usual=True)
    assert answers == expected
    assert count(page) == count(counted)
    kinds = [kind for kind, _ in drawn]
    again = sum(before == kind in PLAIN for before, kind in pairwise(kinds))
    assert again <= sum(at_once) <= sum(kind in PLAIN for kind in kinds)


def test_a_second_request_is_answered_at_once_with_its_own_numbers(folder: Path) -> None:
    answers, _, at_once = ask(folder, [make_request(1, number) for number in (1.0, 2.0, 1.0)])
    assert at_once == [True, True]
    assert answers[0] == answers[2] != answers[1]


def test_an_access_log_and_an_end_that_is_near_take_the_usual_way(folder: Path) -> None:
    requests = [make_request(1, 1.0)] * 2
    lines: list[dict[str, Any]] = []
    assert ask(folder, requests, log=lines.append)[2] == [False]
    assert [line["status"] for line in lines] == [200, 200]
    answers, _, at_once = ask(folder, requests[:1] + requests, draining=True)
    assert at_once == []  # the first answer closes the connection
    assert b"\r\nConnection: close" in answers[0]


def test_one_number_is_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a leading axis does not hold the loop where its runs are handed to threads."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in "xy")
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "number", [x], [y])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "dense.onnx")
    body, said = binary("x", np.asarray(2, np.float32), "y")
    requests = [wire(PATH, body, **said)] * 3
    _, page, at_once = ask(tmp_path, requests)
    assert at_once == [True, True]
    assert count(page) == count(ask(tmp_path, requests, usual=True)[1])
    monkeypatch.setattr(models, "DIRECT_SECONDS", 0.0)
    assert ask(tmp_path, requests)[2] == [False, False]


def test_a_run_that_fails_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, runs = models.Model.run, list[int]()

    def fail(model: models.Model, feeds: Any) -> Any:
        runs.append(len(runs))
        if len(runs) > 1:
            raise FcdeployError("it cannot", "try another")
        return run(model, feeds)

    monkeypatch.setattr(models.Model, "run", fail)
    answers, page, at_once = ask(folder, [make_request(1, 1.0)] * 2)
    assert at_once == [False]
    assert answers[1].startswith(b"HTTP/1.1 400 ")
    assert b"it cannot" in answers[1]
    assert 'code="400"} 1' in page
