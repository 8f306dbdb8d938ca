"""A model repository of NVIDIA's Triton Inference Server: NAME/config.pbtxt and NAME/VERSION/model.onnx.

Field names are those of Triton's model_config.proto, parameters those of its onnxruntime backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcdeploy.atomic_files import replace_folder
from fcdeploy.bundles.write import Content, write_file
from fcdeploy.errors import FcdeployError
from fcdeploy.records.manifest import Manifest
from fcdeploy.records.signature import TensorSpec

MODEL = "model.onnx"  # what the backend looks for
LARGEST = 32  # samples in a run; beyond it a sample of a small network hardly gets cheaper
DATATYPES = {"object": "STRING", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
CONFIG = """name: {name}
backend: "onnxruntime"
max_batch_size: {largest}
{ends}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""
BATCHING = "dynamic_batching { }\n"


def make_config(manifest: Manifest, *, why_alone: str) -> str:
    """The text of `config.pbtxt`.

    Triton counts samples apart from `dims` when `max_batch_size` is positive, and then puts requests into one run.  So
    that is up to 32 where samples are independent (`why_alone` empty), 1 where they are not, and 0 for a leading axis
    that is not free.
    """
    ends = (*manifest.inputs, *manifest.outputs)
    free = all(spec.shape[:1] == (None,) for spec in ends)
    largest = 0 if not free else 1 if why_alone else LARGEST
    rows = [
        *(_format_tensor("input", spec, batched=free) for spec in manifest.inputs),
        *(_format_tensor("output", spec, batched=free) for spec in manifest.outputs),
    ]
    text = CONFIG.format(name=_quote(manifest.name), largest=largest, ends="\n".join(rows))
    return text + (BATCHING if largest > 1 else "")


def check_repository(folder: Path, manifest: Manifest, text: str, *, force: bool) -> None:
    """Refuse what would replace a version, or the configuration of other versions, unless `force`."""
    place = folder / manifest.name
    if folder.exists() and not folder.is_dir():
        raise FcdeployError(f"--triton {str(folder)!r} is a file, expected a folder", "--triton models")
    if not force and (place / manifest.version).exists():
        raise FcdeployError(
            f"model {manifest.name!r} version {manifest.version} is in {str(folder)!r} already",
            f"--version {int(manifest.version) + 1}, or --force to replace it",
        )
    config_file = place / "config.pbtxt"
    if not force and config_file.exists() and config_file.read_text(errors="replace") != text:
        raise FcdeployError(
            f"{str(config_file)!r} differs from what this model needs, and other versions use it",
            "give another --name, or --force to replace it",
        )


def write_repository(folder: Path, manifest: Manifest, contents: Mapping[str, Content], text: str) -> None:
    """Write the model, its weights and the configuration; other models and versions in the folder stay."""
    place = folder / manifest.name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FcdeployError(f"cannot write {str(place)!r}: {error.strerror}", "--triton FOLDER") from error
    with replace_folder(place / manifest.version, place / "config.pbtxt") as (version, config):
        for name, content in contents.items():
            write_file(version / name, content)
        config.write_text(text)


def _format_tensor(kind: str, spec: TensorSpec, *, batched: bool) -> str:
    """An input or output; one number a sample has `dims` of [ 1 ], which stands for no axis at all."""
    dims = spec.shape[1:] if batched else spec.shape
    shape = f"dims: {_format_list(dims)}" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    dtype = DATATYPES.get(str(spec.dtype), str(spec.dtype).upper())
    return f"{kind} [ {{ name: {_quote(spec.name)} data_type: TYPE_{dtype} {shape} }} ]"


def _format_list(dims: Sequence[int | None]) -> str:
    return f"[ {', '.join(str(-1 if n is None else n) for n in dims)} ]"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
