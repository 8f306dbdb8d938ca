"""`FILE.py:NAME`: a Python function without arguments that yields one dict per sample, name -> array.

Arrays have no sample axis; `label` or `label.<output>` are labels.  The function is called again for every pass.

A function that returns, or a class that makes, a `CalibrationDataReader` of onnxruntime, anything with `get_next()`,
will do as well: what that gives are batches, with a leading sample axis, and they are split.  Where a call gives the
same reader again it is rewound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count as counting
from itertools import islice
from pathlib import Path
from typing import Any

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.signature import format_shape
from fcdeploy.samples import checks
from fcdeploy.samples.source import Load, Source
from fcdeploy.user_code import load_function, user_code

FORM = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)$")
END = object()


def open_generator(data: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Load the function and look at its first sample."""
    match = FORM.match(str(data))
    assert match is not None
    name = f"{Path(match['file']).name}:{match['function']}"
    function, _ = load_function(str(data))
    earlier: list[Any] = []

    def read() -> Iterator[tuple[str, Load]]:
        for place, sample in _iterate_samples(function, name, earlier, _describe_yield(inputs)):
            yield place, partial(_check_arrays, sample, place, inputs, name)

    first = [load for _, load in islice(read(), 1)]
    if not first:
        raise checks.make_no_samples_error(name)
    labelled = False
    with suppress(FcdeployError):  # whether a sample can be used is said when it is read
        labelled = any(map(checks.is_label, first[0]()))
    return Source(name, tuple(inputs), read, None, labelled)


def _check_arrays(sample: Any, place: str, inputs: Sequence[TensorSpec], name: str) -> Arrays:
    if not isinstance(sample, dict):
        raise FcdeployError(
            f"{name}: {place} is a {type(sample).__name__}, expected a dict of input name -> array",
            _describe_yield(inputs),
        )
    return {str(key): value for key, value in sample.items()}


def _describe_yield(inputs: Sequence[TensorSpec]) -> str:
    """The hint: the yield statement that the function needs."""
    return f"yield {{{', '.join(repr(spec.name) + ': array' for spec in inputs)}}}"


def _iterate_samples(
    function: Callable[[], Any], name: str, earlier: list[Any], yielding: str
) -> Iterator[tuple[str, Any]]:
    """What the function yields, with the place of each.

    Only its own code runs under the guard, not that of whoever asks for the next one.
    """
    with user_code(f"{name} fails"):
        made = function()
        is_reader = callable(getattr(made, "get_next", None))
        if not is_reader and (isinstance(made, Mapping) or not _is_iterable(made)):
            kind = type(made).__name__
            what = "nothing" if made is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
            raise FcdeployError(f"{name} returns {what}, expected one dict per sample, yielded", yielding)
        stream = _read_batches(made, name, earlier) if is_reader else iter(made)
    index = 0
    for number in counting():
        with user_code(f"{name} fails"):
            value = next(stream, END)
        if value is END:
            return
        for place, sample in _split_batch(value, number, index, name) if is_reader else ((f"sample {index}", value),):
            yield place, sample
            index += 1


def _is_iterable(made: Any) -> bool:
    """Whether iter() takes it; an object with numbered items will do."""
    return hasattr(made, "__iter__") or (hasattr(made, "__getitem__") and not isinstance(made, type))


def _read_batches(reader: Any, name: str, earlier: list[Any]) -> Iterator[Any]:
    """What a reader gives until it gives None. `earlier` holds the reader of the last pass."""
    if earlier and earlier[0] is reader:
        if not callable(getattr(reader, "rewind", None)):
            raise FcdeployError(
                f"{name} gives the same reader twice, which is used up and has no rewind()",
                "make a new reader in every call, or give it a method rewind",
            )
        reader.rewind()
    earlier[:] = [reader]
    while (batch := reader.get_next()) is not None:
        yield batch


def _split_batch(batch: Any, number: int, index: int, name: str) -> Iterator[tuple[str, Arrays]]:
    """The samples of a batch, which is input name -> array with a leading sample axis."""
    if not isinstance(batch, dict) or not batch:
        raise FcdeployError(
            f"{name}: get_next() gives a {type(batch).__name__}, expected a dict of input name -> array",
            "return {'input': array} from get_next, and None at the end",
        )
    place = f"batch {number}"
    whole = {str(key): checks.to_array(str(key), value, place, name) for key, value in batch.items()}
    sizes = {key: array.shape[0] if array.ndim else None for key, array in whole.items()}
    size = next(iter(sizes.values()))
    if size is None or len(set(sizes.values())) > 1:
        shapes = ", ".join(f"{key!r} {format_shape(array.shape)}" for key, array in whole.items())
        raise FcdeployError(
            f"{name}: the arrays of {place} differ along their leading axis: {shapes}",
            "return arrays with one leading axis of samples from get_next",
        )
    for row in range(size):
        yield f"sample {index + row} (row {row} of {place})", {key: array[row, ...] for key, array in whole.items()}
