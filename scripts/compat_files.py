"""The files that `scripts/compat` takes from runtime to runtime: every trained network of models/ in every form we write.

They are made once in out/compat/: NAME.FORM.onnx, NAME.onnx in float, and NAME.npz with a few evaluation samples.  The
tiny models of the probes that ask what runs on bytes are among them, as probe-N.only.onnx.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from bench_networks import DIGITS, inputs_and_labels

from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.export import export
from fcdeploy.commands.quantize import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.runtime.probes.ask import PROBES
from fcdeploy.runtime.probes.qdq_graph import Probe
from fcdeploy.runtime.session import Session
from fcdeploy.tables.facts import FACTS
from fcdeploy.user_code import load_file

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "out" / "compat"
SAMPLES = 8
SEVERAL = ("lenet5", "dense", "resnet", "lstm_tagger", "gru_classifier", "cldnn")  # in the other types too
FORMS: dict[str, dict[str, Any]] = {  # the costs are those of the table: the same on every machine
    "default": {"costs": "table"},
    "all": {"costs": "none"},
    "portable": {"target": "portable", "costs": "none"},
}
OTHER_FORMS: dict[str, dict[str, Any]] = {
    "int4": {"weights": "int4", "activations": "none"},
    "int16": {"weights": "int8", "activations": "int16"},
    "int16-weights": {"weights": "int16", "activations": "none"},
    "stored": {"weights": "int8", "activations": "none"},
    "dynamic": {"weights": "int8", "activations": "dynamic"},
}
PROBED = ("AveragePool", "DynamicQuantize", "weights of")
SCALE = 0.05  # of bytes that a probe writes, which not every runtime hands out as they are


def make_files() -> list[Path]:
    """All files, made where they are missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    families = load_file(ROOT / "models" / "families.py").FAMILIES
    made = [file for name in (*DIGITS, *families) for file in make_network(name, families)]
    return [*made, *make_probes()]


def make_network(name: str, families: Mapping[str, Any]) -> Iterator[Path]:
    """A network in float, and in the forms."""
    model, calibration = FOLDER / f"{name}.onnx", FOLDER / f"{name}.calib"
    data = FOLDER / f"{name}.data.npz"
    if not data.exists():
        family = families.get(name)
        arrays = family.calibration() if family else np.load(ROOT / "calib_data" / f"{DIGITS[name]}.calib.npz")
        np.savez(data, **inputs_and_labels(arrays))
        arrays = family.evaluation() if family else np.load(ROOT / "calib_data" / f"{DIGITS[name]}.eval.npz")
        np.savez(FOLDER / f"{name}.npz", **{key: array[:SAMPLES] for key, array in arrays.items()})
    if not model.exists():
        family = families.get(name)
        source = family.function if family else f"models/{name}.py:{name}"
        inputs = (family.input,) if family and family.input else ()
        export(source, output=model, state=f"models/{name}.safetensors", inputs=inputs)
    if not calibration.exists():
        calibrate(model, data=data, output=calibration)
    yield model
    for form, options in (FORMS | (OTHER_FORMS if name in SEVERAL else {})).items():
        file = FOLDER / f"{name}.{form}.onnx"
        if not file.exists():
            click.echo(f"making {file.name}", err=True)
            quantize(model, output=file, calibration=calibration, effort="fast", floor="none", **options)
        yield file


def make_probes() -> Iterator[Path]:
    """The tiny models, in the lowest operator set that can say them."""
    for fact, build in PROBES.items():
        if FACTS[fact].kind == "runs" or fact.startswith(PROBED):
            yield write_probe(fact, build())


def write_probe(fact: str, probe: Probe) -> Path:
    """One of them, and what it is fed."""
    name = "probe-" + re.sub(r"\W+", "-", fact).strip("-")
    file = FOLDER / f"{name}.only.onnx"
    model = onnx.load_from_string(probe.model)
    standard = next(each for each in model.opset_import if each.domain == "")
    asked, standard.version = standard.version, min(standard.version, 13)
    try:
        onnx.checker.check_model(model, full_check=True)
        model.ir_version = 7
    except Exception:  # onnx's own errors: an operator or a type that this set does not have
        standard.version = asked
    with contextlib.suppress(FcdeployError):  # some run nowhere; others want to know the shape of the output
        shape = Session(model.SerializeToString(), threads=1, optimize=False).run(probe.feeds)[0].shape
        _read_output(model, shape)
    onnx.save(model, file)
    np.savez(FOLDER / f"{name}.npz", **probe.feeds)
    return file


def _read_output(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Say the shape of the output, and make floats of it."""
    output, graph = model.graph.output[0], model.graph
    name, dtype = output.name, output.type.tensor_type.elem_type
    if dtype != onnx.TensorProto.FLOAT:
        zero = np.array(128 if dtype == onnx.TensorProto.UINT8 else 0, onnx.helper.tensor_dtype_to_np_dtype(dtype))
        for constant, array in (("last/s", np.array(SCALE, np.float32)), ("last/z", zero)):
            graph.initializer.append(onnx.numpy_helper.from_array(array, constant))
        graph.node.append(onnx.helper.make_node("DequantizeLinear", [name, "last/s", "last/z"], ["last"], "last/dq"))
        graph.value_info.append(onnx.helper.make_tensor_value_info(name, dtype, shape))
        name = "last"
    output.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def inputs_of(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What a file is fed: arrays of samples, by the names of its inputs; of a probe, one sample is all."""
    stored = np.load(file.parent / f"{file.name.split('.')[0]}.npz")
    return {name: stored[name] for name in read_outline(file).inputs}


if __name__ == "__main__":
    click.echo(f"{len(make_files())} files in {FOLDER}")
