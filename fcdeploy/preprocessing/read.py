"""What `--preprocess` may name: a preset, FILE.toml, FILE.py:NAME, or a value that was recorded before."""

from __future__ import annotations

from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.preprocessing.settings import (
    PRESETS,
    check_channels,
    complete_settings,
    guess_layout,
    read_declared_size,
    read_settings,
)
from fcdeploy.preprocessing.transforms import read_transform
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.records.signature import TensorSpec

Given = Preprocessing | Path | str | None
"""How pictures become inputs, as the caller says it; None leaves everything to the model's input."""


def read_preprocessing(given: Given, spec: TensorSpec, *, stored: tuple[int, int, int] | None = None) -> Preprocessing:
    """The preprocessing for a model's input; what is left open comes from `spec`, and from pictures all `stored` in one
    size (height, width, channels).

    Raises FcdeployError where it cannot be read, or makes something else than the input takes.
    """
    if isinstance(given, Preprocessing):
        return _check_recorded(given, spec, stored)
    if given is None:
        return complete_settings({}, spec, "no --preprocess", stored)
    text = str(given)
    if text in PRESETS or text == "paddle-ocr":
        return complete_settings({"preset": text}, spec, text, stored)
    if Path(text.rpartition(":")[0]).suffix == ".py":
        return read_transform(text, spec)
    if Path(text).suffix.lower() != ".toml" and not Path(text).is_file():
        raise FcdeployError(
            f"--preprocess {text!r} is no preset ({', '.join(PRESETS)}), and no file of that name is there",
            "--preprocess torchvision-imagenet, FILE.toml or FILE.py:transform",
        )
    return complete_settings(read_settings(Path(text)), spec, text, stored)


def _check_recorded(value: Preprocessing, spec: TensorSpec, stored: tuple[int, int, int] | None) -> Preprocessing:
    """The value, which must make what this input takes."""
    if stored and len(spec.shape) in (0, 2):
        return value
    layout = "NCHW" if len(spec.shape) == 3 else guess_layout(spec.shape)
    channels, _ = read_declared_size(spec, layout)
    check_channels(value.channels, value.colour, channels, spec, value.name)
    return value
