"""What runs a model: onnxruntime (`session.Session`) or a compiled library (`native_library.NativeEngine`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.records.signature import TensorSpec

ENGINES = ("onnxruntime", "native")


def check_engine(engine: str) -> None:
    """Raises FcdeployError at one that is unknown."""
    if engine not in ENGINES:
        raise FcdeployError(f"engine {engine!r} is unknown, expected {', '.join(ENGINES)}", "--engine onnxruntime")


class Engine(Protocol):
    """A model that is ready to run."""

    outputs: list[str]

    @property
    def platform(self) -> str:
        """What runs it, as the Open Inference Protocol wants it said."""

    @property
    def batches_pay(self) -> bool:
        """Whether samples that share a run take less time than one by one."""

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The inputs to feed."""

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the order of `outputs`."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        """The named outputs, all by default, in order. Raises FcdeployError when the feeds do not fit."""
