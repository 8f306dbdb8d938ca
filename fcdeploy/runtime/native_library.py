"""A compiled network, loaded and run: NumPy in, NumPy out."""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import local
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.records.signature import TensorSpec, is_shape_alike

Kind = tuple[np.dtype[Any], tuple[int, ...]]
Answer = Callable[[Mapping[str, Array]], dict[str, Array] | None]
VERSION = 2
LARGE = 16384  # bytes of an input from which on finding its address takes less time than a copy
AGAIN = "compile it again: fcdeploy compile MODEL.int8.onnx -o MODEL.so"


class _Run(ctypes.Structure):
    """struct fcdeploy_run of kernels/library.h."""

    _fields_ = (
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


class _Table(ctypes.Structure):
    """struct fcdeploy_native of kernels/library.h."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("steps", ctypes.c_uint32),
        ("level", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("arena_bytes", ctypes.c_size_t),
        ("run", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        (
            "some",
            ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
        ),
    )


def load_native(path: str | Path, *, level: str | None = None) -> NativeModel:
    """Load a library that `fcdeploy compile` wrote; it needs neither onnx nor onnxruntime.

    The best level of instructions that this CPU has is taken, or `level`.  Loading a library runs code in it: load only
    what you would run.  Raises FcdeployError for any other file.
    """
    return NativeModel(Path(path), level)


class NativeModel:
    """A network in a shared library that `fcdeploy compile` wrote: `run` it on arrays by the names of its inputs."""

    def __init__(self, path: Path, level: str | None = None) -> None:
        if not path.is_file():
            raise FcdeployError(
                f"library {str(path)!r} {'is no file' if path.exists() else 'does not exist'}",
                "fcdeploy compile MODEL.int8.onnx -o MODEL.so makes one",
            )
        try:
            library = ctypes.CDLL(str(path.resolve()))
            find = library.fcdeploy_native
        except (OSError, AttributeError) as error:
            if "failed to map segment" in str(error):  # of a file system that is mounted noexec
                raise FcdeployError(
                    f"{str(path)!r} cannot be loaded: its file system allows no code",
                    "copy it to a folder of one that does, or set TMPDIR to such a folder",
                ) from error
            raise FcdeployError(
                f"{str(path)!r} is no library of fcdeploy for this machine",
                "fcdeploy compile MODEL.int8.onnx -o MODEL.so",
            ) from error

        find.restype, find.argtypes = ctypes.POINTER(_Table), [ctypes.c_char_p]
        table = find(level.encode() if level else None)
        if not table:
            raise FcdeployError(
                f"{str(path)!r} has no level {level!r} that runs on this CPU", "load it without a level"
            )
        self._table = table.contents
        if self._table.version != VERSION:
            raise FcdeployError(
                f"{str(path)!r} is a library of version {self._table.version}, expected {VERSION}", "compile it again"
            )

        self._library = library
        self.level: str = self._table.level.decode()
        self.description: dict[str, Any] = json.loads(self._table.description)
        self.inputs = {e["name"]: (np.dtype(e["dtype"]), tuple(e["shape"])) for e in self.description["inputs"]}
        self.outputs = {e["name"]: (np.dtype(e["dtype"]), tuple(e["shape"])) for e in self.description["outputs"]}
        self._run, self._some = self._table.run, self._table.some
        self._own = local()
        self._name = path.name

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(_describe, each.items())) for each in (self.inputs, self.outputs))
        return f"<NativeModel {self._name!r}: {inputs} -> {outputs}; level {self.level}>"

    @property
    def arena(self) -> Array:
        """Where steps read and write: one for each thread."""
        return self._places.arena

    @property
    def _places(self) -> _Places:
        try:
            places: _Places = self._own.places
        except AttributeError:
            places = self._own.places = _Places(self._run, self._table.arena_bytes, self.inputs, self.outputs)
        return places

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for samples stacked along the first axis, one after the other."""
        try:  # of what looks nicer, a property and a comprehension each take a tenth of a small network's time
            answer: Answer = self._own.answer
        except AttributeError:
            answer = self._own.answer = self._places.make_answer()
        try:
            results = answer(feeds)
        except AttributeError:
            self._check_named(feeds)
            raise
        return self._run_many(feeds) if results is None else results

    def _run_many(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The same for any number of samples, from where they lie."""
        self._check_named(feeds)
        arrays = [self._take(name, feeds) for name in self.inputs]
        counts = {
            name: len(array) // shape[0] for array, (name, (_, shape)) in zip(arrays, self.inputs.items(), strict=True)
        }
        if unknown := [name for name in feeds if name not in self.inputs]:
            raise FcdeployError(f"input {unknown[0]!r} is unknown", f"the model reads {', '.join(self.inputs)}")
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise FcdeployError(
                f"inputs of {said} samples, expected the same of all", "give samples along the first axis"
            )
        samples = next(iter(counts.values()), 1)
        results = {
            name: np.empty((samples * shape[0], *shape[1:]), dtype) for name, (dtype, shape) in self.outputs.items()
        }
        if samples == 0:
            return results
        inputs = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        outputs = (ctypes.c_void_p * len(results))(*(array.ctypes.data for array in results.values()))
        run = _Run(ctypes.addressof(inputs), ctypes.addressof(outputs), self.arena.ctypes.data, samples)
        self._run(ctypes.addressof(run))
        return results

    def _check_named(self, feeds: object) -> None:
        if not isinstance(feeds, Mapping):
            raise FcdeployError(
                f"the inputs are of type {type(feeds).__name__}, expected arrays by name: {self._wants()}",
                f"run({{{next(iter(self.inputs), 'input')!r}: array}})",
            )

    def _wants(self) -> str:
        return ", ".join(map(_describe, self.inputs.items()))

    def _take(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """An input's samples as the library reads them. Raises FcdeployError for other shapes, and numbers that do not fit."""
        dtype, shape = self.inputs[name]
        if name not in feeds:
            raise FcdeployError(
                f"input {name!r} is missing, given were {quote_names(map(str, feeds)) or 'none'}",
                f"the model reads {self._wants()}",
            )
        given = np.asarray(feeds[name])
        if dtype.kind == "f" and given.dtype.kind != "f":  # bytes are more likely pixels that were to be scaled
            raise FcdeployError(
                f"input {name!r} is {given.dtype}, the model wants {dtype}", f"array.astype({str(dtype)!r})"
            )
        if given.ndim != len(shape) or given.shape[1:] != shape[1:] or len(given) % shape[0]:
            raise FcdeployError(
                f"input {name!r} has the shape {given.shape}, expected samples of {shape}",
                "native code is made for one shape: give samples of it, along the first axis",
            )
        with np.errstate(all="ignore"):
            array = np.require(given, dtype, ("C", "A"))
        if dtype.kind in "iub" and given.dtype != dtype and not np.array_equal(array, given):
            raise FcdeployError(
                f"input {name!r} has numbers that {dtype} cannot hold", f"round and clip them to {dtype}"
            )
        return array

    def run_steps(self, first: int, last: int, inputs: list[Array], outputs: list[Array]) -> None:
        """Some steps of one sample: what they read from earlier ones must lie in the arena."""
        given = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
        written = (ctypes.c_void_p * len(outputs))(*(array.ctypes.data for array in outputs))
        self._some(first, last, ctypes.addressof(given), ctypes.addressof(written), self.arena.ctypes.data)


def _describe(tensor: tuple[str, Kind]) -> str:
    name, (dtype, shape) = tensor
    return f"{name} {dtype}{list(shape)}"


@dataclass(frozen=True)
class StepTime:
    """One step of a library: what its description says of it, and the median microseconds that it takes in a run.

    Below `SHORTEST_US` it cannot be told from a call of nothing.
    """

    node: str
    what: str
    kernel: str
    macs: int
    us: float


SHORTEST_US = 0.05  # medians of calls of nothing, measured twice, are up to so far apart
SHORT_US, REPEATS = 20.0, 8  # a shorter run's steps are called so often between two looks at the clock


def time_steps(model: NativeModel, feeds: Mapping[str, Array], runs: int) -> tuple[float, list[StepTime]]:
    """The median microseconds of a run in C, and the time of each step, what it takes to call nothing taken off."""
    begin = time.perf_counter_ns()
    model.run(feeds)
    again = range(REPEATS if time.perf_counter_ns() - begin < 1e3 * SHORT_US else 1)
    places, steps = model._places, model.description["steps"]
    places.hold([model._take(name, feeds) for name in model.inputs])
    ns = np.empty((len(steps) + 2, runs))
    for turn in range(runs):  # step by step, as in a run: what one writes the next one reads from the cache
        model._some(0, 0, places.given, places.written, places.begin)  # what a call needs is in the caches again
        for number in range(-1, len(steps) + 1):
            first, last = (0, len(steps)) if number == len(steps) else (max(number, 0), number + 1)
            begin = time.perf_counter_ns()
            for _ in again:
                model._some(first, last, places.given, places.written, places.begin)
            ns[number + 1, turn] = (time.perf_counter_ns() - begin) / len(again)
    middle = np.median(ns, axis=1) / 1e3
    each = np.maximum(0, middle[1:] - middle[0])
    return float(each[-1]), [
        StepTime(step["node"], step["what"], step["kernel"], step["macs"], float(us))
        for step, us in zip(steps, each[:-1], strict=True)
    ]


class _Places:
    """The memory of one thread, with its addresses: looking them up takes longer than a small network.

    Small inputs are copied, large ones are read where they lie: the address of the last run's stays until the next one.
    """

    def __init__(
        self, run: Callable[..., None], arena_bytes: int, inputs: Mapping[str, Kind], outputs: Mapping[str, Kind]
    ) -> None:
        self.arena = aligned(arena_bytes)
        own = [np.zeros(shape, dtype) for dtype, shape in inputs.values()]
        self.outputs = [(name, np.zeros(shape, dtype)) for name, (dtype, shape) in outputs.items()]
        self._given = (ctypes.c_void_p * len(own))(*(each.ctypes.data for each in own))
        self._written = (ctypes.c_void_p * len(outputs))(*(each.ctypes.data for _, each in self.outputs))
        self.given, self.written = (ctypes.c_void_p(ctypes.addressof(each)) for each in (self._given, self._written))
        self.inputs = [
            (name, place, dtype, shape, self._make_lender(number, place) if place.nbytes >= LARGE else None)
            for number, (place, (name, (dtype, shape))) in enumerate(zip(own, inputs.items(), strict=True))
        ]
        self.begin = ctypes.c_void_p(self.arena.ctypes.data)
        self._one = _Run(self.given, self.written, self.begin, 1)
        self.run = partial(run, ctypes.c_void_p(ctypes.addressof(self._one)))

    def make_answer(self) -> Answer:
        """A function of one sample's inputs; None where they are not arrays of just the types and shapes that are read.

        It knows by closure what it needs: a small network takes as long as three attributes. Of one small input and one output
        it has no loops.
        """
        inputs, outputs, run = self.inputs, self.outputs, self.run

        def answer(feeds: Mapping[str, Array]) -> dict[str, Array] | None:
            if len(feeds) != len(inputs):
                return None
            lent = []
            for name, place, dtype, shape, lend in inputs:
                given = feeds.get(name)
                if type(given) is not np.ndarray or given.dtype is not dtype or given.shape != shape:
                    return None
                if lend is None:
                    place[...] = given
                else:
                    lent.append(lend(given))
            run()
            results = {}
            for name, place in outputs:
                results[name] = place.copy()
            return results

        if len(inputs) != 1 or len(outputs) != 1 or inputs[0][4] is not None:
            return answer
        (only, only_place, only_dtype, only_shape, _), (written, result) = inputs[0], outputs[0]
        copy, arrays = result.copy, np.ndarray

        def answer_one(feeds: Mapping[str, Array]) -> dict[str, Array] | None:
            given = feeds.get(only)
            if (
                type(given) is not arrays
                or given.dtype is not only_dtype
                or given.shape != only_shape
                or len(feeds) != 1
            ):
                return None
            only_place[...] = given
            run()
            return {written: copy()}

        return answer_one

    def hold(self, arrays: Sequence[Array]) -> None:
        """Copy the first sample of each input, which is read from here until the next run."""
        for number, (_, place, *_) in enumerate(self.inputs):
            place[...] = arrays[number][: len(place)]
            self._given[number] = place.ctypes.data

    def _make_lender(self, number: int, place: Array) -> Callable[[Array], object]:
        """A function that has an input read from an array; what it returns keeps the array for as long."""
        given, own = self._given, place.ctypes.data
        find: Callable[[Any], Any] = (ctypes.c_char * place.nbytes).from_buffer

        def lend(array: Array) -> object:
            try:
                held = find(array) if array.flags.aligned else None  # C may read several bytes at once
            except (TypeError, ValueError):  # it cannot be written, or does not lie in one piece
                held = None
            if held is None:
                place[...] = array
            given[number] = own if held is None else ctypes.addressof(held)
            return held

        return lend


def aligned(nbytes: int, to: int = 64) -> Array:
    """Bytes that begin at a multiple of `to`."""
    memory = np.zeros(nbytes + to, np.uint8)
    begin = -memory.ctypes.data % to
    return memory[begin : begin + nbytes]


class NativeEngine:
    """A compiled network as an engine: samples lie along the leading axis, of any length where the model leaves it free.

    `inputs` and `outputs` are what the model declares; a free axis behind the first has the length it was compiled with.
    Raises FcdeployError, naming `source`, where the library is of another model.
    """

    def __init__(
        self, model: NativeModel, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], source: str
    ) -> None:
        self._model = model
        self.input_specs = _fit(inputs, model.inputs, source)
        self.output_specs = _fit(outputs, model.outputs, source)
        self.outputs = [spec.name for spec in outputs]

    @property
    def platform(self) -> str:
        """A library that `fcdeploy compile` made."""
        return "fcdeploy_native"

    @property
    def batches_pay(self) -> bool:
        """They do not: a library computes one sample after the other."""
        return False

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        """The named outputs, all by default, in order."""
        answers = self._model.run(feeds)
        return [answers[name] for name in outputs or self.outputs]


def _fit(
    said: Sequence[TensorSpec], compiled: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], source: str
) -> tuple[TensorSpec, ...]:
    """What the model declares, with the lengths that were compiled."""
    wanted = ", ".join(map(str, said))
    if {spec.name for spec in said} != set(compiled):
        raise FcdeployError(f"{source} has {', '.join(compiled)}, expected {wanted}", AGAIN)
    specs = []
    for spec in said:
        dtype, shape = compiled[spec.name]
        if spec.dtype != dtype or not is_shape_alike(spec.shape, shape):
            raise FcdeployError(f"{source} has {spec.name} {dtype}{list(shape)}, expected {wanted}", AGAIN)
        specs.append(TensorSpec(spec.name, dtype, (*spec.shape[:1], *shape[1:])))
    return tuple(specs)
