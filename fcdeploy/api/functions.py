"""The commands as functions of Python values: models and data in memory in, typed results out, errors in Python's words.

`FUNCTIONS` is the list: each row's command lies in `fcdeploy/commands/`, and gets here what only Python has.  The types
that its callers see are in `fcdeploy/__init__.pyi`, which `scripts/release/stub.py` writes from this table and the commands.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, wraps
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcdeploy.api import results
from fcdeploy.api.build import build_result
from fcdeploy.api.inputs import TABLE, Stream, is_file, write_model_file
from fcdeploy.api.notebook import in_notebook, show_progress
from fcdeploy.atomic_files import temporary_folder
from fcdeploy.errors import FcdeployError, find_close
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.python_words import restate, speak_python
from fcdeploy.records.report import Report

MODELS, DATA = ("model", "int8", "against"), ("data", "eval")
"""Parameters that take models and samples in memory, too."""


SIMPLE: dict[str, tuple[type, str]] = {
    "int": (int, "a whole number"), "float": (Real, "a number"), "bool": (bool, "True or False"), "str": (str, "a text"),
}  # fmt: skip
"""Annotations that are looked at before a command is called; others are its own business."""


class Function(NamedTuple):
    """A public function: the module it is in, and what its report becomes."""

    module: str
    result: type[results.Result]


FUNCTIONS = {
    "bench": Function("commands.bench", results.BenchResult),
    "bundle": Function("commands.bundle", results.BundleResult),
    "calibrate": Function("commands.calibrate", results.CalibrationResult),
    "compile": Function("commands.compile", results.CompileResult),
    "conv_to_dense": Function("commands.transform", results.TransformResult),
    "dense_to_conv": Function("commands.transform", results.TransformResult),
    "doctor": Function("commands.doctor", results.DoctorResult),
    "export": Function("commands.export", results.ExportResult),
    "inspect": Function("commands.inspect", results.InspectResult),
    "quantize": Function("commands.quantize", results.QuantizeResult),
    "repair": Function("commands.repair", results.RepairResult),
    "report": Function("commands.report", results.ReportResult),
    "split": Function("commands.split", results.SplitResult),
    "validate": Function("commands.validate", results.ValidateResult),
    "verify": Function("commands.verify", results.VerifyResult),
}


def find_function(name: str) -> Callable[..., results.Result]:
    """The public function of this command."""
    row = FUNCTIONS[name]
    command: Callable[..., Report] = getattr(importlib.import_module(f"fcdeploy.{row.module}"), name)
    signature = inspect.signature(command)

    @wraps(command)
    def call(*arguments: object, **options: object) -> results.Result:
        given = _bind(name, signature, arguments, options)
        with temporary_folder() as folder:
            try:
                _check_types(name, given, command.__annotations__)
                _check_output(name, given)
                _write_files(given, folder)
                report = _run(command, given, "on_step" in signature.parameters)
            except FcdeployError as error:
                raise restate(error, signature.parameters, partial(_forget_written, folder=folder))  # noqa: B904
        report = _speak_python(_forget_files(report, folder), signature.parameters)
        return build_result(_choose_result(row, report), report)

    call.__annotations__ = {**command.__annotations__, "return": row.result.__name__}
    call.__signature__ = signature.replace(return_annotation=row.result.__name__)  # type: ignore[attr-defined]
    return call


def _bind(
    name: str, signature: inspect.Signature, arguments: Sequence[object], options: Mapping[str, object]
) -> dict[str, Any]:
    """Parameters by name. Raises TypeError, with the function, and the parameter that a mistyped one was meant to be."""
    try:
        return signature.bind(*arguments, **options).arguments
    except TypeError as error:
        close = [find_close(option, signature.parameters) for option in options if option not in signature.parameters]
        meant = f": did you mean {close[0]!r}?" if close and close[0] else ""
        raise TypeError(f"fcdeploy.{name}() {error}{meant}") from None


def _choose_result(row: Function, report: Report) -> type[results.Result]:
    return results.PlanResult if "plan" in report.values and report.command == "quantize" else row.result


def _check_output(name: str, given: dict[str, Any]) -> None:
    """A calibration lies beside its model unless told otherwise, which a model in memory has no place for."""
    if name == "calibrate" and given.get("output") is None and not is_file(given["model"]):
        raise FcdeployError("there is no output: the model is no file to put it beside", "output='model.calib'")


def _check_types(name: str, given: dict[str, Any], annotations: Mapping[str, str]) -> None:
    """Numbers, words and switches are what their annotations say; NumPy's become Python's own."""
    for parameter, value in given.items():
        kinds = [kind for kind in annotations[parameter].split(" | ") if kind != "None"]
        if value is None or not set(kinds) <= set(SIMPLE):
            continue
        value = value.item() if isinstance(value, np.generic) else value
        if not any(
            isinstance(value, SIMPLE[kind][0]) and (kind == "bool") == isinstance(value, bool) for kind in kinds
        ):
            expected = " or ".join(SIMPLE[kind][1] for kind in kinds)
            raise FcdeployError(
                f"{parameter} is {value!r:.60}, expected {expected}", f"help(fcdeploy.{name}) says more"
            )
        given[parameter] = value


def _run(command: Callable[..., Report], given: dict[str, Any], long: bool) -> Report:
    """The command on files, with a bar in a notebook unless the caller watches progress."""
    watch = long and given.get("on_step") is None and in_notebook()
    with show_progress() if watch else nullcontext(given.get("on_step")) as on_step:
        return command(**given, **({"on_step": on_step} if watch else {}))


def _write_files(given: dict[str, Any], folder: Path) -> None:
    """Replace what is in memory by files in `folder`: models first, of which samples take their names."""
    streams = {name: Stream(given[name]) for name in DATA if given.get(name) is not None and not is_file(given[name])}
    samples = next(iter(streams.values()), None)
    for name in MODELS:
        if given.get(name) is not None and not is_file(given[name]):
            given[name] = write_model_file(given[name], folder / f"{name}.onnx", samples)
    if streams:
        model = next(given[name] for name in MODELS if given.get(name) is not None)
        inputs = input_specs(read_model(model))
        label = given.get("label") or "label"
        given |= {name: stream.write(folder / name, inputs, label) for name, stream in streams.items()}


def _forget_files(report: Report, folder: Path) -> Report:
    """Without sentences and values that name temporary files: there are none any more."""
    values = {
        key: _forget_folder(value, folder) if isinstance(value, str) else value for key, value in report.values.items()
    }
    lines = tuple(line for line in report.lines if str(folder) not in line)
    warnings = tuple(_forget_written(text, folder) for text in report.warnings)
    return replace(report, values=values, lines=lines, warnings=warnings)


def _speak_python(report: Report, parameters: Mapping[str, inspect.Parameter]) -> Report:
    """Its sentences with the calls and parameters that commands and options stand for."""
    speak = partial(speak_python, parameters=parameters)
    advice = report.values.get("advice")
    return replace(
        report,
        values=report.values | ({"advice": speak(advice)} if advice else {}),
        lines=tuple(map(speak, report.lines)),
        warnings=tuple(map(speak, report.warnings)),
        advice=speak(report.advice),
    )


def _forget_written(text: str, folder: Path) -> str:
    """Without the temporary folder, and with a table that was written there called what it is to the caller."""
    text = _forget_folder(text, folder)
    for name in (f"{name}{TABLE}" for name in DATA if (folder / f"{name}{TABLE}").exists()):
        text = re.sub(rf"(?<![\w./-])('?){re.escape(name)}\1(?![\w./-])", "the table", text)
    return text


def _forget_folder(text: str, folder: Path) -> str:
    """Without the path of the temporary folder, which the caller has not seen."""
    return text.replace(f"{folder}/", "")
