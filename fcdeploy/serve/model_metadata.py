"""What clients are told of a model before they ask it: Open Inference Protocol v2's metadata, and Triton's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcdeploy.records.signature import TensorSpec
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.models import Model
from fcdeploy.serve.request import OF_DTYPE

EXTENSIONS = ("binary_tensor_data", "model_repository")


def describe_model(engine: BatchingEngine, model: Model) -> dict[str, Any]:
    """The protocol's metadata of a model: names, datatypes and shapes, as the file has them."""
    return {
        "name": model.name,
        "versions": engine.models.list_versions(model.name),
        "platform": model.session.platform,
        "inputs": [_describe_tensor(model, spec) for spec in model.inputs.values()],
        "outputs": [_describe_tensor(model, spec) for spec in model.outputs.values()],
    }


def make_triton_config(model: Model) -> dict[str, Any]:
    """What Triton's clients ask for beside the metadata; max_batch_size 0: shapes hold the batch axis."""

    def ends(specs: Sequence[Any]) -> list[dict[str, Any]]:
        tensors = [_describe_tensor(model, spec) for spec in specs]
        types = [t["datatype"].replace("BYTES", "STRING") for t in tensors]  # as model_config.proto calls it
        return [
            {"name": t["name"], "data_type": f"TYPE_{dtype}", "dims": t["shape"]}
            for t, dtype in zip(tensors, types, strict=True)
        ]

    return {
        "name": model.name,
        "platform": model.session.platform,
        "backend": model.session.platform.partition("_")[0],
        "max_batch_size": 0,
        "input": ends(list(model.inputs.values())),
        "output": ends(list(model.outputs.values())),
    }


def _describe_tensor(model: Model, spec: TensorSpec) -> dict[str, Any]:
    """The protocol's metadata of an input or output; -1 is an axis of any length.

    The protocol has no word for any number of axes: [-1] stands for that too, since [] would be a single number.
    """
    shape = [-1] if spec.name in model.unranked else [-1 if n is None else n for n in spec.shape]
    return {"name": spec.name, "datatype": OF_DTYPE[spec.dtype], "shape": shape}
