"""`FILE.py:FUNCTION`: a Python function without arguments that yields one dict per sample, name -> array.

Arrays have no sample axis; `label` or `label.<output>` are labels.  The function is called again for every pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import checks
from fcdeploy.samples.source import Arrays, Load, Source
from fcdeploy.user_code import load_function, user_code

FORM = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)$")
END = object()


def open_generator(data: str, inputs: Sequence[TensorSpec]) -> Source:
    """Load the function and look at its first sample."""
    match = FORM.match(data)
    assert match is not None
    name = f"{Path(match['file']).name}:{match['function']}"
    function, _ = load_function(data)

    def read() -> Iterator[tuple[str, Load]]:
        for index, sample in enumerate(_yielded(function, name)):
            yield f"sample {index}", partial(_arrays, sample, index, inputs, name)

    first = [load for _, load in islice(read(), 1)]
    if not first:
        raise checks.no_samples(name)
    labelled = False
    with suppress(FcdeployError):  # whether a sample can be used is said when it is read
        labelled = any(map(checks.is_label, first[0]()))
    return Source(name, tuple(inputs), read, None, labelled)


def _arrays(sample: Any, index: int, inputs: Sequence[TensorSpec], name: str) -> Arrays:
    if not isinstance(sample, dict):
        raise FcdeployError(
            f"{name}: sample {index} is a {type(sample).__name__}, expected a dict of input name -> array",
            f"yield {{{', '.join(repr(spec.name) + ': array' for spec in inputs)}}}",
        )
    return {str(key): value for key, value in sample.items()}


def _yielded(function: Callable[[], Iterable[Any]], name: str) -> Iterator[Any]:
    """What the function yields; only its own code runs under the guard, not that of whoever asks for the next one."""
    with user_code(f"{name} fails"):
        stream = iter(function())
    while True:
        with user_code(f"{name} fails"):
            sample = next(stream, END)
        if sample is END:
            return
        yield sample
