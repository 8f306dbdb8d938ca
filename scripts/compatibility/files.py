"""The files that `scripts/compat` takes from runtime to runtime: every trained network of models/ in every form we write.

They are made once in out/compat/: NAME.FORM.onnx, NAME.onnx in float, and NAME.npz with a few evaluation samples.  The
tiny models of the probes that ask what runs on bytes are among them, as probe-N.only.onnx.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.export import export
from fcdeploy.commands.quantize import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.graph.opset import LOWEST
from fcdeploy.runtime.probes.ask import PROBES
from fcdeploy.runtime.probes.qdq_graph import Probe, QdqGraph
from fcdeploy.runtime.session import Session
from fcdeploy.tables.facts import FACTS
from fcdeploy.tables.other_runtimes import UNTAKEN
from scripts.benchmarks.networks import DIGITS, inputs_and_labels
from scripts.checkout import ROOT, list_families
from scripts.compatibility.details import list_details

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
PROBED = ("AveragePool", "DynamicQuantize", "weights of", "operator set")
BETWEEN = ("Mul", "LeakyRelu", "Sigmoid", "Softmax")  # integer kernels that few of our networks have
SCALE = 0.05  # of bytes that a probe writes, which not every runtime hands out as they are


def make_files() -> list[Path]:
    """All files but those that are for one runtime, made where they are missing."""
    return [*(file for name in export_networks() for file in make_forms(name)), *make_probes()]


def export_networks() -> Iterator[str]:
    """The networks of models/, in float with their data."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    families = list_families()
    for name in (*DIGITS, *families):
        model, family = FOLDER / f"{name}.onnx", families.get(name)
        if not (FOLDER / f"{name}.npz").exists():
            parts = [f"{DIGITS.get(name)}.calib.npz", f"{DIGITS.get(name)}.eval.npz"]
            read = [family.calibration, family.evaluation] if family else []
            keep_data(name, *([each() for each in read] or [np.load(ROOT / "calib_data" / part) for part in parts]))
        if not model.exists():
            source = family.function if family else f"models/{name}.py:{name}"
            inputs = (family.input,) if family and family.input else ()
            export(source, output=model, state=f"models/{name}.safetensors", inputs=inputs)
        yield name


def take_network(text: str) -> str:
    """One of the caller's own, MODEL=CALIB.npz,EVAL.npz, by the name of its file."""
    file, data = text.split("=", 1)
    name = Path(file).stem
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / f"{name}.onnx").exists():
        keep_data(name, *map(np.load, data.split(",")))
        shutil.copy(file, FOLDER / f"{name}.onnx")
    return name


def keep_data(name: str, calibration: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
    """Beside the model: all that it is calibrated on, and a few samples that it runs."""
    np.savez(FOLDER / f"{name}.data.npz", **inputs_and_labels(calibration))
    np.savez(FOLDER / f"{name}.npz", **{key: array[:SAMPLES] for key, array in evaluation.items()})


def make_forms(name: str) -> Iterator[Path]:
    """A network in float, and in the forms."""
    yield FOLDER / f"{name}.onnx"
    for form, options in (FORMS | (OTHER_FORMS if name in SEVERAL else {})).items():
        yield make_form(name, form, **options)


def make_form(name: str, form: str, **options: Any) -> Path:
    """NAME.FORM.onnx, made where it is missing."""
    file = FOLDER / f"{name}.{form}.onnx"
    if not file.exists():
        _quantize(name, file, **options)
    return file


def make_for(name: str, runtime: str) -> Path | str:
    """A network kept to what a runtime takes, by the table of today; or why there is none."""
    file = FOLDER / f"{name}.for-{runtime}.onnx"
    refusal, made_by = file.with_suffix(".txt"), file.with_suffix(".table")
    table = json.dumps({key: sorted(rows) for key, rows in UNTAKEN.items() if key.rstrip("45") == runtime})
    if not made_by.exists() or made_by.read_text() != table:
        refusal.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        try:
            _quantize(name, file, costs="none", runtimes=runtime)
        except FcdeployError as error:
            refusal.write_text(str(error))
        made_by.write_text(table)
    return file if file.exists() else refusal.read_text()


def list_made_for(runtime: str) -> list[Path]:
    """What was made for a runtime so far, of the networks here."""
    found = [FOLDER / f"{name}.for-{runtime.rstrip('45')}.onnx" for name in export_networks()]
    return [file for file in found if file.exists()]


def _quantize(name: str, file: Path, **options: Any) -> None:
    calibration = FOLDER / f"{name}.calib"
    if not calibration.exists():
        calibrate(FOLDER / f"{name}.onnx", data=FOLDER / f"{name}.data.npz", output=calibration)
    click.echo(f"making {file.name}", err=True)
    quantize(FOLDER / f"{name}.onnx", output=file, calibration=calibration, effort="fast", floor="none", **options)


def make_probes() -> Iterator[Path]:
    """The tiny models, in the lowest operator set that can say them."""
    for fact, build in PROBES.items():
        if FACTS[fact].kind == "runs" or fact.startswith(PROBED) or fact in BETWEEN:
            yield write_probe(fact, build())
    for name, probe in (*list_float_operators(), *list_details()):
        yield write_probe(name, probe)


def list_float_operators() -> Iterator[tuple[str, Probe]]:
    """Operators that stay in float in front of the layers of our users, and are in none of our networks."""
    pictures = QdqGraph()
    x = pictures.input(1, 3, 8, 8)
    numbers = [pictures.constant(values) for values in ([1, 2, 0.5], [0, 1, 2], [0.5, 0.4, 0.3], [1, 2, 0.5])]
    yield "BatchNormalization", pictures.probe(pictures.op("BatchNormalization", x, *numbers))
    rows = QdqGraph()
    yield "Sub", rows.probe(rows.op("Sub", rows.input(1, 4), rows.constant([0.5, 1, 2, 3])))
    fed = np.array([[0.5, np.nan, -1, 2]])
    holes = QdqGraph()
    x = holes.input(1, 4, fed=fed)
    yield "IsNaN", holes.probe(holes.op("Where", holes.op("IsNaN", x), holes.constant(0), x))
    holes = QdqGraph()
    x = holes.input(1, 4, fed=fed)
    numbers_of = {"imputed_value_floats": [0.1, 0.2, 0.3, 0.4], "replaced_value_float": np.nan}
    filled = holes.probe(holes.op("Imputer", x, domain="ai.onnx.ml", **numbers_of))
    model = onnx.load_from_string(filled.model)
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    yield "Imputer", replace(filled, model=model.SerializeToString())


def write_probe(fact: str, probe: Probe) -> Path:
    """One of them, and what it is fed."""
    name = "probe-" + re.sub(r"\W+", "-", fact).strip("-")
    file = FOLDER / f"{name}.only.onnx"
    model = onnx.load_from_string(probe.model)
    with contextlib.suppress(FcdeployError):  # some run nowhere; others want to know the shape of the output
        shape = Session(model.SerializeToString(), threads=1, optimize=False).run(probe.feeds)[0].shape
        _read_output(model, shape)
    standard = next(each for each in model.opset_import if each.domain == "")
    asked, standard.version = standard.version, min(standard.version, LOWEST)
    if fact == f"operator set {asked}":
        standard.version = asked
    try:
        onnx.checker.check_model(model, full_check=True)
        model.ir_version = 7
    except Exception:  # onnx's own errors: an operator or a type that this set does not have
        standard.version = asked
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
