"""The only place that makes an onnxruntime session, so that every command runs a model the same way."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import make_no_room_error
from fcdeploy.errors import FcdeployError, LoadError, NoMemoryError, first_line
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.cpu import count_usable_cores, read_cpu_flags
from fcdeploy.runtime.options import PRECISION, read_options, select_for_cpu
from fcdeploy.runtime.structured_outputs import as_array, element_of
from fcdeploy.user_code import operator_libraries

if TYPE_CHECKING:  # a bundle is run with numpy and onnxruntime alone
    import onnx_ir as ir

REPAIR = "fcdeploy transform repair MODEL -o OUT writes one that works"
REPAIRABLE = (
    "zero point must be a scalar or 1D tensor of size 1", "x_zero_point must be null or 1D tensor",
    "Attempt to replace the existing tensor",
)  # fmt: skip
"""What onnxruntime says of the files that this repairs."""
NO_MEMORY = ("std::bad_alloc", "bad allocation", "Failed to allocate memory")
"""What onnxruntime's errors say then, which all have one code."""
NOT_WRITTEN = ("Protobuf serialization failed", "SystemError : ")
"""What they say where the optimized graph cannot be written."""
FATAL_ONLY = 4  # onnxruntime's log severity; its warnings speak of its own rewrites, and errors are raised
DTYPES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    **{name: name for name in ("float16", "bool", "int8", "uint8", "int16", "uint16")},
    **{name: name for name in ("int32", "uint32", "int64", "uint64")},
}
"""Element type as onnxruntime writes it -> NumPy dtype."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded where that is not the usual way.

    `prepack=False` leaves weights as they lie in their files instead of a copy laid out for the kernels: for a model too
    large for both, or one that is not run. `in_order` runs nodes in the order of the file, so that what a node frees is
    free at once, and found in the caches by what reads it next. `arena=False` takes what a run needs and keeps nothing
    for the next one, where the arena takes powers of two: for a model that is run a few times. `dump` is a file for the
    graph as onnxruntime optimized it, `profile` the beginning of a name for a trace. `weights` holds the files of weights
    outside a model given as bytes, by the names the model has for them; then no other file is read. `entries` are session
    options besides those that the model's metadata carry, obeyed where this CPU needs them.
    """

    prepack: bool = True
    in_order: bool = False
    arena: bool = True
    dump: Path | None = None
    profile: Path | None = None
    weights: Mapping[str, bytes] | None = None
    entries: Mapping[str, str] | None = None


USUAL = LoadOptions()


class Session:
    """A model ready to run on the CPU.

    `model` is a path, serialized bytes, or an onnx-ir model; session options that its metadata carry are obeyed
    (`fcdeploy.runtime.options`).  `threads` defaults to the CPUs of this process.  `optimize=False` turns graph
    optimization off; `precise=True` asks for 32-bit accumulation of byte products on x86.
    """

    def __init__(
        self,
        model: str | Path | bytes | ir.Model,
        *,
        threads: int | None = None,
        optimize: bool = True,
        precise: bool = False,
        load: LoadOptions = USUAL,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = threads or count_usable_cores()
        options.inter_op_num_threads = 1
        asked = select_for_cpu({**read_options(model), **(load.entries or {})}, read_cpu_flags())
        entries = {"session.intra_op.allow_spinning": "0", **asked}
        if load.in_order:
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
            options.enable_mem_pattern = False  # one block for everything, beside those of the first run
        options.enable_cpu_mem_arena = load.arena
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if precise:
            entries[PRECISION] = "1"
        if not load.prepack:
            entries["session.disable_prepacking"] = "1"
        if load.dump:
            options.optimized_model_filepath = str(load.dump)
        if load.profile:
            options.enable_profiling = True
            options.profile_file_prefix = str(load.profile)
        if load.weights is not None:
            _give_weights(options, load.weights)
        _load_operators(options)
        with _prepare_source(model) as (source, folder):
            if folder is not None:
                entries["session.model_external_initializers_file_folder_path"] = folder
            for key, value in entries.items():
                options.add_session_config_entry(key, value)
            try:
                self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # the binding raises a dozen types, none with a common base of its own
                if load.dump and any(words in str(error) for words in NOT_WRITTEN):
                    raise make_no_room_error() from error
                _raise_system_error(error, source)
                raise LoadError(
                    f"onnxruntime {ort.__version__} cannot load the model: {explain_fault(error)}",
                    _find_hint(error, "fcdeploy inspect MODEL shows its operators, opset and IR version"),
                ) from error
        self.outputs = [output.name for output in self._session.get_outputs()]

    @property
    def platform(self) -> str:
        """onnxruntime runs an ONNX file."""
        return "onnxruntime_onnx"

    @property
    def batches_pay(self) -> bool:
        """They do: weights are read once, and a call is prepared once."""
        return True

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The inputs to feed, as onnxruntime sees them. Raises FcdeployError for one that no array can hold."""
        return tuple(map(_to_spec, self._session.get_inputs()))

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the order of `outputs`."""
        return tuple(map(_to_spec, self._session.get_outputs()))

    @property
    def output_types(self) -> dict[str, tuple[str, tuple[int | None, ...] | None]]:
        """Of each output the type as onnxruntime writes it, and the lengths of its axes; None where the rank is unknown.

        onnxruntime gives no axes to a scalar either, so a tensor without any is one of unknown rank here.
        """
        types = {}
        for end in self._session.get_outputs():
            axes = tuple(n if isinstance(n, int) else None for n in end.shape) if end.shape else None
            types[end.name] = (str(end.type), axes)
        return types

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        """The named outputs (all by default), in order; what is no tensor as the array nearest to it."""
        try:
            result: list[Any] = self._session.run(outputs or self.outputs, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in feeds.items())
            full = isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
            raise (NoMemoryError if full else LoadError)(
                f"onnxruntime cannot run the model on {shapes}: {explain_fault(error)}",
                _find_hint(error, _hint_inputs(feeds)),
                describe_failed(error),
            ) from error
        return [value if isinstance(value, np.ndarray) else as_array(value) for value in result]

    def end_profiling(self) -> Path:
        """Stop profiling and return the file that holds the trace."""
        return Path(self._session.end_profiling())


def _raise_system_error(error: Exception, source: str | bytes) -> None:
    """Raise OSError where a file could not be opened or read, which says nothing of the model in it."""
    said = re.search(r"failed:\s*system error number (\d+)", str(error))
    if said and isinstance(source, str):
        raise OSError(int(said[1]), os.strerror(int(said[1])), source) from error


def explain_fault(error: Exception) -> str:
    """What onnxruntime says, in a line: of nodes within bodies the innermost, without codes and lines of its source."""
    text = first_line(error)
    if text.endswith(" for the following indices"):  # which stand in the next line
        text = " ".join(str(error).split("\n")[:2]).removeprefix("[ONNXRuntimeError] : ")
    failed = _find_failed(text)
    text = text[failed.end() :] if failed else text
    text = re.sub(r"^\d+ : [A-Z_]+ : ", "", text)
    source = re.match(r"\S+\.(?:cc|h|cpp):\d+ ", text)
    said = text.partition(" was false. ")[2] if source else text
    said = said or (text[source.end() :] if source else "")
    where = f"node {failed[2]!r}, a {failed[1]}: " if failed else ""
    return where + said if said else first_line(error)


def describe_failed(error: Exception) -> str | None:
    """The node in which a run failed, by its operator and its name."""
    failed = _find_failed(str(error))
    return f"{failed[1]} {failed[2]!r}" if failed else None


def _find_failed(text: str) -> re.Match[str] | None:
    """Where onnxruntime says which node failed, (operator, name); of nodes within bodies the innermost."""
    found = list(re.finditer(r"while running (\S+) node\. Name:'(.*?)' Status Message: *", text))
    return found[-1] if found else None


def _hint_inputs(feeds: Mapping[str, Array]) -> str:
    """Where a run's inputs may be at fault; one without axes may be of a file that does not say its shape."""
    number = next((name for name, array in feeds.items() if not array.ndim), None)
    if number is None:
        return "fcdeploy inspect MODEL shows the inputs the model declares"
    return f"where the model does not say the shape of {number!r}, --data DATA or --shape {number}:1,3,224,224 does"


def _find_hint(error: Exception, hint: str) -> str:
    """The hint at `transform repair` where the error is of what that repairs, at `--ops` for operators, else the given one."""
    if "is not a registered function/op" in str(error):
        return "--ops LIB loads the library of operators that has it"
    return REPAIR if any(words in str(error) for words in REPAIRABLE) else hint


def _to_spec(end: ort.NodeArg) -> TensorSpec:
    """Name, dtype and shape of a graph input or output; names of axes are axes of any length."""
    element, plain = element_of(str(end.type))
    if element not in DTYPES:
        raise FcdeployError(
            f"the model's {end.name!r} is {end.type}, which NumPy cannot hold", "export it with float32 ends"
        )
    axes = tuple(n if isinstance(n, int) else None for n in end.shape) if plain else ()
    return TensorSpec(end.name, np.dtype(DTYPES[element]), axes)


def _load_operators(options: ort.SessionOptions) -> None:
    """Let the model use operators of the user's own libraries."""
    for library in operator_libraries():
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # whatever the loader of the system says
            raise FcdeployError(
                f"library of operators {library!r} cannot be loaded: {first_line(error)}",
                "expected a shared library with RegisterCustomOps, built for this onnxruntime",
            ) from error


def _give_weights(options: ort.SessionOptions, weights: Mapping[str, bytes]) -> None:
    """Let onnxruntime take these for the files beside the model, and read no other.

    With an empty table it would look in the working directory, so there is always one entry.
    """
    table = dict(weights) or {"-": b"-"}
    options.add_external_initializers_from_files_in_memory(
        list(table), list(table.values()), [len(content) for content in table.values()]
    )


@contextmanager
def _prepare_source(model: str | Path | bytes | ir.Model) -> Iterator[tuple[str | bytes, str | None]]:
    """What onnxruntime loads, and the folder of external weights, which serialized bytes alone do not tell."""
    if isinstance(model, str | Path):
        yield str(model), None
    elif isinstance(model, bytes):
        yield model, None
    else:
        from fcdeploy.graph.external_data import serialize

        with serialize(model) as loadable:
            yield loadable


def read_versions() -> dict[str, str]:
    """Versions that the integers of a result can depend on."""
    import onnx

    return {"onnxruntime": ort.__version__, "onnx": onnx.__version__, "numpy": np.__version__}
