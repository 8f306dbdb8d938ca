"""The backend suite of `onnx`: its models with a floating-point input that the installed onnxruntime runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import numpy_helper

FOLDERS = ("pytorch-operator", "pytorch-converted", "simple")


@dataclass(frozen=True)
class PublicModel:
    """A model of the suite, and inputs for it."""

    name: str
    content: bytes
    feeds: dict[str, Any]

    def run(self, content: bytes) -> list[Any]:
        """The outputs of it, or of what was made from it, without optimization."""
        session = _open(content)
        names = {one.name for one in session.get_inputs()}
        found: list[Any] = session.run(None, {name: value for name, value in self.feeds.items() if name in names})
        return found


def list_public_models(parts: list[str], share: tuple[int, int] = (0, 1)) -> Iterator[PublicModel]:
    """Those whose names have one of `parts`, all without any; of these each n-th, from the k-th on, for a `share` (k, n)."""
    ort.set_default_logger_severity(4)
    wanted = (case for case in _list_cases() if not parts or any(part in case[0] for part in parts))
    for name, model, inputs in islice(wanted, share[0], None, share[1]):
        feeds = dict(zip([one.name for one in model.graph.input], inputs, strict=False))
        public = PublicModel(name, model.SerializeToString(), feeds)
        try:
            takes_floats = any("float" in one.type for one in _open(public.content).get_inputs())
            public.run(public.content)
        except Exception:  # what the installed onnxruntime has no kernel for
            continue
        if takes_floats:
            yield public


def _list_cases() -> Iterator[tuple[str, onnx.ModelProto, list[Any]]]:
    for kind in FOLDERS:
        for folder in sorted((Path(onnx.__file__).parent / "backend/test/data" / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            files = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
            try:
                yield (
                    f"{kind}/{folder.name}",
                    model,
                    [_read(file, model.graph.input[i].type) for i, file in enumerate(files)],
                )
            except Exception:  # a type that numpy_helper does not read
                continue

    from onnx.backend.test.case.model import collect_testcases as collect_models
    from onnx.backend.test.case.node import collect_testcases

    for case in [*collect_testcases(None), *collect_models()]:
        if case.model is not None and case.data_sets:
            inputs = case.data_sets[0][0]
            values = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
            yield case.name, case.model, [_to_value(value) for value in values]


def _to_value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _read(file: Path, kind: onnx.TypeProto) -> Any:
    content = file.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _open(content: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
