"""Requests that run as they come in, where company would make none of them cheaper, and those that wait for each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import dense

from fcdeploy.arrays import Array
from fcdeploy.serve.batching import InferenceRequest, Queue
from fcdeploy.serve.models import Model, load_model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import find_models

LATER, AT_ONCE = (
    time.perf_counter() + 3600.0,
    1e-9,
)  # when requests came: long after the last run, or before it was over


class OneByOne:
    """An engine for which a sample costs as much in company; `rows` are the samples of each run."""

    batches_pay = False

    def __init__(self, model: Model) -> None:
        self.session, self.rows = model.session, list[int]()
        self.outputs, self.input_specs, self.output_specs = list(model.outputs), (), ()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        self.rows.append(len(next(iter(feeds.values()))))
        return self.session.run(feeds, outputs)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    dense(tmp_path / "dense.onnx", 2)
    loaded = load_model(find_models(tmp_path / "dense.onnx")[0])
    return replace(loaded, session=OneByOne(loaded), largest=4, sample_seconds=1e-5)


def with_queue(model: Model, ask: Callable[[Queue], list[InferenceRequest]], **options: Any) -> list[InferenceRequest]:
    """What `ask` has put into the queue, once all of it is answered."""

    async def run() -> list[InferenceRequest]:
        with ThreadPoolExecutor(1) as threads:
            requests = ask(Queue(model, asyncio.get_running_loop(), threads, **options))
            while any(request.done is not None for request in requests):
                await asyncio.sleep(0)
        return requests

    return asyncio.run(asyncio.wait_for(run(), 60))


def make_request(model: Model, number: int, arrived: float, answers: dict[int, Any], rows: int = 1) -> InferenceRequest:
    feeds = {name: np.full((rows, 5), number, np.float32) for name in model.inputs}
    return InferenceRequest(feeds, lambda _, result: answers.update({number: result}), arrived)


def test_a_request_by_itself_runs_as_it_comes_in(model: Model) -> None:
    answers: dict[int, Any] = {}

    def ask(queue: Queue) -> list[InferenceRequest]:
        requests = [make_request(model, number, LATER, answers) for number in range(3)]
        for number, request in enumerate(requests):
            queue.put(request)
            assert list(answers) == list(range(number + 1))
        return requests

    assert [request.batch for request in with_queue(model, ask)] == [1, 1, 1]
    check(model, answers, 3)


def test_those_of_one_turn_wait_for_each_other_and_run_one_by_one(model: Model) -> None:
    answers: dict[int, Any] = {}

    def ask(queue: Queue) -> list[InferenceRequest]:
        requests = [make_request(model, number, AT_ONCE if number else LATER, answers) for number in range(6)]
        for request in requests:
            queue.put(request)
        assert list(answers) == [0]
        return requests

    assert [request.batch for request in with_queue(model, ask)] == [1, 4, 4, 4, 4, 1]
    assert isinstance(model.session, OneByOne)
    assert model.session.rows == [1] * 6
    check(model, answers, 6)


def check(model: Model, answers: dict[int, Any], count: int) -> None:
    """Each answer is that of a run of its own."""
    assert sorted(answers) == list(range(count))
    for number, (answer,) in answers.items():
        (alone,) = model.session.run({name: np.full((1, 5), number, np.float32) for name in model.inputs})
        np.testing.assert_array_equal(answer, alone)


@pytest.mark.parametrize(
    ("change", "options", "rows"),
    [
        ({"sample_seconds": 0.001}, {}, 1),  # it would hold up who came in the same turn
        ({"sample_seconds": 0.0}, {}, 1),  # nobody knows how long it takes
        ({}, {}, 51),
        ({}, {"delay": 1e-6}, 1),  # it is asked to wait
    ],
)
def test_what_takes_longer_is_queued(model: Model, change: dict[str, float], options: Any, rows: int) -> None:
    answers: dict[int, Any] = {}
    changed = replace(model, **change)

    def ask(queue: Queue) -> list[InferenceRequest]:
        request = make_request(changed, 1, AT_ONCE, answers, rows)
        queue.put(request)
        assert not answers
        return [request]

    (request,) = with_queue(changed, ask, **options)
    assert (request.batch, len(answers[1][0])) == (rows, rows)


def test_one_that_comes_too_late_is_not_run(model: Model) -> None:
    answers: dict[int, Any] = {}
    gone: list[float] = []

    def ask(queue: Queue) -> list[InferenceRequest]:
        request = make_request(model, 0, LATER, answers)
        request.deadline = 0.0
        queue.put(request)
        return [request]

    with_queue(model, ask, on_run=lambda _, batch, seconds: gone.append(len(batch) + seconds))
    assert isinstance(answers[0], RefusedError)
    assert (answers[0].status, gone) == (504, [1.0])
    assert "waited" in answers[0].message and isinstance(model.session, OneByOne) and not model.session.rows
