"""The functions as a notebook has them: what they take and give."""

from __future__ import annotations

import csv
import json
import pickle
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from conftest import fails
from networks import Net
from onnx import TensorProto, helper, numpy_helper
from sample_files import Table

import fcdeploy
from fcdeploy.api import functions, results
from fcdeploy.api import inputs as inputs_of_api
from fcdeploy.api.build import build_result
from fcdeploy.records import calibration
from fcdeploy.records.report import Report
from fcdeploy.records.signature import TensorSpec
from fcdeploy.user_code import load_function
from scripts.release import stub

ROOT = Path(__file__).parents[2]

Wrap = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))


@pytest.fixture(scope="module")
def model(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fcdeploy.export(module, output=tmp_path_factory.mktemp("api") / "m.onnx", inputs=[(1, 8)])
    assert made.inputs[0].shape == (None, 8)
    return made.output


@pytest.fixture(scope="module")
def features() -> Any:
    return np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


def loader(arrays: dict[str, Any], size: int | None) -> Any:
    parts = [torch.from_numpy(array) for array in arrays.values()]
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*parts), batch_size=size)


KINDS: dict[str, Wrap] = {
    "array": lambda arrays: arrays["input"],
    "dict": lambda arrays: {"input": arrays["input"]},
    "with labels": lambda arrays: (arrays["input"], np.arange(40)),
    "generator of dicts": lambda arrays: ({"input": row} for row in arrays["input"]),
    "generator of arrays": lambda arrays: iter(arrays["input"]),
    "list": lambda arrays: list(arrays["input"]),
    "loader": lambda arrays: loader(arrays, 7),
    "loader of samples": lambda arrays: loader(arrays, None),
    "table": lambda arrays: Table(list("abcdefgh"), arrays["input"]),
    "table of floats": lambda arrays: Table(
        [*"abcdefgh", "label"], np.c_[arrays["input"].astype(np.float64), np.ones(40)]
    ),
}


def test_all_kinds_of_data_give_the_same_bytes(model: Path, features: Any, tmp_path: Path) -> None:
    name = onnx.load(model).graph.input[0].name
    np.savez(tmp_path / "samples.npz", **{name: features})
    fcdeploy.calibrate(model, data=tmp_path / "samples.npz", output=tmp_path / "file.calib")
    for kind, wrap in KINDS.items():
        given = wrap({"input": features})
        given = {name: given["input"]} if isinstance(given, dict) else given
        if kind == "generator of dicts":
            given = ({name: row} for row in features)
        made = fcdeploy.calibrate(model, data=given, output=tmp_path / "made.calib", force=True)
        assert made.samples == 40
        assert (tmp_path / "made.calib").read_bytes() == (tmp_path / "file.calib").read_bytes(), kind


def test_all_kinds_of_models_give_the_same_file(
    module: torch.nn.Module, model: Path, features: Any, tmp_path: Path
) -> None:
    models = {
        "path": model,
        "bytes": model.read_bytes(),
        "proto": onnx.load(model),
        "ir": ir.load(model),
        "module": module,
    }
    made: dict[str, list[int]] = {}
    for kind, given in models.items():
        out = tmp_path / f"{kind}.onnx"
        result = fcdeploy.quantize(given, data=features, output=out, costs="none", floor="none", effort="fast")
        assert result.output == out
        assert result.bytes_int8 == out.stat().st_size
        constants = [numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(out).graph.initializer]
        assert (result.weight_bytes, result.weights, result.activations) == (sum(constants), "int8", "int8")
        made[kind] = [node.op_type for node in onnx.load(out).graph.node]
    assert len(set(map(tuple, made.values()))) == 1
    assert (tmp_path / "path.onnx").read_bytes() == (tmp_path / "bytes.onnx").read_bytes()
    assert [node.kernel for node in result.nodes_int8] == ["QGemm", "QGemm"]

    found = fcdeploy.validate(tmp_path / "module.onnx", against=module, data=features, same_data=True)
    assert found.samples == 40
    assert "fcdeploy-" not in str(result) + str(found) + json.dumps(result.to_json())
    assert found.sqnr_db is not None and found.sqnr_db > 20


def test_results_have_the_figures_of_the_json(model: Path, features: Any) -> None:
    planned = fcdeploy.quantize(model, data=features, dry_run=True, costs="none")
    assert isinstance(planned, fcdeploy.PlanResult)
    assert [node.kind for node in planned.nodes] == [row["kind"] for row in planned.report.values["plan"]["nodes"]]
    looked = fcdeploy.inspect(model, kernels=True)
    said = json.loads(json.dumps(looked.to_json()))
    for row in fields(fcdeploy.InspectResult):
        if row.name in said and isinstance(said[row.name], int):
            assert getattr(looked, row.name) == said[row.name]
    assert looked.layers[0].parameters == 8 * 16 + 16
    assert looked.parameters == (8 * 16 + 16) + (16 * 3 + 3)
    assert "195 parameters" in str(looked)
    assert fcdeploy.doctor().cores >= 1


def test_a_result_in_a_notebook_shows_tables_and_lines(model: Path) -> None:
    html = fcdeploy.inspect(model)._repr_html_()
    assert html.count("<table>") == 2
    assert '<th scope="col">' in html
    assert "195 parameters" in html
    odd = build_result(results.Result, Report("x", {}, lines=("<script>",), warnings=("a & b",)))
    assert odd._repr_html_() == '<div class="fcdeploy"><p>&lt;script&gt;</p><p><em>warning: a &amp; b</em></p></div>'


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (3, "data is a int, expected arrays, a table, a loader, or samples one by one", "for each sample"),
        (np.ma.masked_less(np.ones((4, 8)), 2), "an array is masked in 32 places, expected numbers there", "filled"),
        ([], "the data hold no sample", "(array, label) for each sample"),
        ({"x": np.ones((4, 8), np.float32)}, "data: input 'input' is missing, it has 'x'", "'input'"),
        ({"input": np.ones((4, 8)), "label": np.ones(3)}, "'input' has 4, 'label' has 3", "as many labels"),
        ([np.ones(8), np.ones(7)], "'input': sample 1 is float64 (7,), sample 0 float64 (8,)", "FILE.py:FUNCTION"),
        ([(1, 2, 3)], "a sample is 3 arrays without names, the model wants 'input'", "dict"),
        (Table(["a"], np.ones((2, 1))), "the table has 1 feature columns, input 'input' wants 8", "one column"),
        ([{"input": np.ones(8)}, {"y": np.ones(8)}], "sample 1 has 'y', sample 0 'input'", "same names"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit(model: Path, tmp_path: Path, given: Any, message: str, hint: str) -> None:
    with fails(message, hint):
        fcdeploy.calibrate(model, data=given, output=tmp_path / "x.calib")
    assert not (tmp_path / "x.calib").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1.5}, "samples is 1.5, expected a whole number"),
        ({"samples": "3"}, "samples is '3', expected a whole number"),
        ({"samples": True}, "samples is True, expected a whole number"),
        ({"samples": 4, "seed": float("nan")}, "seed is nan, expected a whole number"),
        ({"max_drop": "x"}, "max_drop is 'x', expected a number"),
        ({"floor": (99, 20)}, "floor is (99, 20), expected a text or a number"),
        ({"force": 1}, "force is 1, expected True or False"),
    ],
)
def test_options_of_another_type(model: Path, features: Any, options: dict[str, Any], message: str) -> None:
    with fails(message, "help(fcdeploy.quantize) says more"):
        fcdeploy.quantize(model, data=features, output="x.onnx", **options)


def test_mistyped_words_are_told_what_they_were_meant_to_be(model: Path, features: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^fcdeploy\.quantize\(\) got an unexpected .* 'effrt': did you mean 'effort'\?$"
    ):
        fcdeploy.quantize(model, data=features, output="x.onnx", effrt="best")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^fcdeploy\.quantize\(\) missing a required argument: 'model'$"):
        fcdeploy.quantize(data=features)  # type: ignore[call-arg]
    with fails("effort='bset' is unknown, expected fast, balanced, best", "effort='best'"):
        fcdeploy.quantize(model, data=features, output="x.onnx", effort="bset")


@pytest.mark.parametrize(
    ("shape", "dtype", "hint"),
    [
        ((6, 8, 8, 3), np.float32, "images with their channels last are to be (n, channels, height, width)"),
        ((6, 3, 8, 8), np.uint8, "bytes are to be float32, scaled as in training"),
        ((6, 2, 8, 8), np.float32, "give the shapes it wants"),
    ],
    ids=["channels last", "bytes", "two channels"],
)
def test_a_module_that_raises_on_pictures(shape: tuple[int, ...], dtype: Any, hint: str, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()).eval()
    with fails("Sequential raises on ", hint):
        fcdeploy.quantize(module, data=np.ones(shape, dtype), output=tmp_path / "x.onnx")


def test_numbers_of_numpy_are_numbers(model: Path, features: Any, tmp_path: Path) -> None:
    made = fcdeploy.calibrate(model, data=features, output=tmp_path / "n.calib", samples=np.int64(5))  # type: ignore[arg-type]
    assert made.samples == 5


def test_models_that_do_not_fit(module: torch.nn.Module, model: Path, features: Any) -> None:
    with fails("a model is a list, expected a path, bytes"):
        fcdeploy.inspect([])  # type: ignore[arg-type]
    with fails("a torch.nn.Module needs samples to be exported with", "inputs=[(1, 3, 32, 32)]"):
        fcdeploy.inspect(module)
    with fails("'model.onnx' is not an ONNX model, or is damaged"):  # not the folder, which the caller has not seen
        fcdeploy.inspect(b"no model")
    with fails("there is no output: the model is no file", "output='model.calib'"):
        fcdeploy.calibrate(model.read_bytes(), data=features)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_dropp'"):
        fcdeploy.validate(model, against=model, data=features, max_dropp=1)  # type: ignore[call-arg]


def test_a_server_is_started_and_stopped(model: Path) -> None:
    import urllib.request

    with fcdeploy.start_server(model) as server:
        with urllib.request.urlopen(f"{server.address}/v2/health/ready") as answer:
            assert answer.status == 200
        assert repr(server) == f"<fcdeploy server at {server.address}>"
    assert server.process.returncode == 0
    server.stop()
    with fails("'nothing.onnx'"):
        fcdeploy.start_server("nothing.onnx")


def test_the_package_offers_its_functions_and_nothing_else() -> None:
    assert dir(fcdeploy) == sorted([*fcdeploy.__all__, "__version__"])
    assert set(functions.FUNCTIONS) | set(fcdeploy.OTHERS) == set(fcdeploy.FUNCTIONS)
    for name in fcdeploy.RESULTS:
        assert issubclass(getattr(fcdeploy, name), results.Result)
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        fcdeploy.quantise  # type: ignore[attr-defined] # noqa: B018


def test_the_stub_is_that_of_the_functions() -> None:
    assert stub.STUB.read_text() == stub.make_stub(), "run .venv/bin/python -m scripts.release.stub"


def test_no_result_holds_any() -> None:
    """The report alone does: `--json` has no types."""

    def mentions(kind: Any) -> Iterator[Any]:
        yield kind
        for inner in typing.get_args(kind):
            yield from mentions(inner)

    for name in fcdeploy.RESULTS:
        for kind in typing.get_type_hints(getattr(fcdeploy, name)).values():
            assert Any not in set(mentions(kind))


def test_inputs_whose_names_would_be_one_file(tmp_path: Path) -> None:
    """A / in a name is written _, and two arrays in one file would be neither."""
    net = Net()
    net.output(net.op("Add", net.input("a/b", 3), net.input("a_b", 3)))
    rows = {"a/b": np.ones((4, 3), np.float32), "a_b": np.zeros((4, 3), np.float32)}
    with fails("'a/b' and 'a_b' would both be in a_b.npy, expected a file for each", "give an .npz"):
        fcdeploy.calibrate(net.save(tmp_path / "m.onnx"), data=rows, output=tmp_path / "m.calib")
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy" / "a_b.npy", rows["a_b"])
    with fails("would both be in a_b.npy"):
        fcdeploy.calibrate(tmp_path / "m.onnx", data=str(tmp_path / "npy"), output=tmp_path / "m.calib")
    np.savez(tmp_path / "m.npz", **rows)
    assert (
        fcdeploy.calibrate(tmp_path / "m.onnx", data=str(tmp_path / "m.npz"), output=tmp_path / "m.calib").samples == 4
    )


def test_files_of_one_name_are_modules_of_their_own(tmp_path: Path) -> None:
    made = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "data.py"
        file.write_text(f"class Sample:\n    where = {folder!r}\n\ndef make():\n    return Sample()\n")
        made.append(load_function(f"{file}:make")[0]())
    assert [one.where for one in made] == ["one", "two"]
    assert [pickle.loads(pickle.dumps(one)).where for one in made] == ["one", "two"]


def test_a_table_with_text_is_read_as_its_csv_is(tmp_path: Path) -> None:
    """A column an input, as pipelines of scikit-learn have them: names, text, missing numbers and words as labels."""
    nodes = [
        helper.make_node("Cast", ["city"], ["code"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["age", "code"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "w"], ["y"], "dense"),
    ]
    kinds = {"age": TensorProto.FLOAT, "city": TensorProto.STRING}
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 1]) for name, kind in kinds.items()]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32), "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    rows = [[float(at), str(at % 7), at * 0.1, ("no", "yes")[at % 2]] for at in range(40)]
    columns = ["age", "city", "more, of it", "churn"]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    made = {}
    for name, data in {"file": tmp_path / "t.csv", "table": Table(columns, np.array(rows, object))}.items():
        out = tmp_path / f"{name}.calib"
        result = fcdeploy.calibrate(tmp_path / "m.onnx", data=data, label="churn", output=out)
        assert result.report.values["format"]["classes"] == ["no", "yes"]
        assert result.report.values["format"]["columns"] == ["age", "city"]
        made[name] = out.read_bytes()
    assert made["file"] == made["table"]
    rows[3][1] = float("nan")
    with pytest.raises(fcdeploy.FcdeployError, match="the table, sample 3, column 'city' is nan, expected text"):
        fcdeploy.calibrate(
            tmp_path / "m.onnx", data=Table(columns, np.array(rows, object)), output=tmp_path / "x.calib"
        )
    with pytest.raises(fcdeploy.FcdeployError, match="the table has no column 'chum' of labels, it has 'age', 'city'"):
        fcdeploy.calibrate(
            tmp_path / "m.onnx", data=Table(columns, np.array(rows, object)), label="chum", output=tmp_path / "x.calib"
        )


def save_texts(path: Path, *names: str) -> Path:
    """A model whose inputs, one text each, are read as numbers and added."""
    nodes = [helper.make_node("Cast", [name], [f"{name} read"], to=TensorProto.FLOAT) for name in names]
    nodes += [helper.make_node("Concat", [f"{name} read" for name in names], ["all"], axis=1)]
    nodes += [helper.make_node("MatMul", ["all", "w"], ["y"], "dense")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, TensorProto.STRING, ["n", 1]) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((len(names), 2), np.float32), "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("missing", [None, float("nan"), np.datetime64("NaT"), " "])
@pytest.mark.parametrize("words", [True, False])
def test_a_missing_label_is_no_class(tmp_path: Path, inputs: int, missing: Any, words: bool) -> None:
    """As for an empty cell of a CSV, whatever stands for it in a table, and however many inputs the model has."""
    names = ["a", "b"][:inputs]
    model = save_texts(tmp_path / "m.onnx", *names)
    labels = ("no", "yes") if words else (0, 1)
    rows = [[*(str(at + k) for k in range(inputs)), labels[at % 2]] for at in range(20)]
    rows[3][-1] = missing
    cells = np.empty((20, inputs + 1), object)
    for at, row in enumerate(rows):
        cells[at] = row
    with fails("the table, sample 3, column 'kind': label is empty, it is", "table.dropna(subset=['kind'])"):
        fcdeploy.calibrate(model, data=Table([*names, "kind"], cells), label="kind", output=tmp_path / "x.calib")
    assert not (tmp_path / "x.calib").exists()


@pytest.mark.parametrize("inputs", [1, 2])
def test_text_cells_of_a_table_are_those_of_its_csv(tmp_path: Path, inputs: int) -> None:
    """5.0 in a column of text is "5.0" in both, as a mixed column of a table has it."""
    names = ["a", "b"][:inputs]
    model = save_texts(tmp_path / "m.onnx", *names)
    rows = [[(5.0, "7", 3, 2.5)[(at + k) % 4] for k in range(inputs)] for at in range(20)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    cells = np.array(rows, object)
    kept = []
    for name, data in {"file": tmp_path / "t.csv", "table": Table(names, cells)}.items():
        fcdeploy.calibrate(model, data=data, output=tmp_path / f"{name}.calib")
        kept.append(calibration.read(tmp_path / f"{name}.calib").kept)
    for name in names:
        np.testing.assert_array_equal(kept[0][name], kept[1][name])
    for cell in (True, 5.0):
        stream = inputs_of_api.Stream(Table(["a", "b"], np.array([[cell, 5.0]], object)))
        specs = [TensorSpec(name, np.dtype(kind), (None, 1)) for name, kind in (("a", "O"), ("b", "float32"))]
        path = stream.write(tmp_path / f"{cell}", specs)
        assert path.read_text().splitlines() == ['"a","b"', f'"{cell}",5']


@pytest.mark.parametrize("inputs", [1, 2])
def test_half_characters_are_refused_in_every_kind_of_data(tmp_path: Path, inputs: int) -> None:
    names = ["a", "b"][:inputs]
    model = save_texts(tmp_path / "m.onnx", *names)
    cells = np.array([["1"] * (inputs + 1)] * 4, object)
    for at, column in ((0, "a"), (inputs, "label")):
        bad = cells.copy()
        bad[2, at] = "x\ud800"
        with fails(rf"the table, sample 2, column '{column}' is 'x\ud800' with half a character at 1", "surrogatepass"):
            fcdeploy.calibrate(model, data=Table([*names, "label"], bad), output=tmp_path / "x.calib")
    with fails(r"the table: a column's name is 'x\ud800' with half a character", "surrogatepass"):
        fcdeploy.calibrate(model, data=Table([*names, "x\ud800"], cells), output=tmp_path / "x.calib")
    with fails(r"a text is '1\udfff' with half a character", "surrogatepass"):
        arrays = {name: np.array([["1"], ["1\udfff"]]) for name in names}
        fcdeploy.calibrate(model, data=arrays, output=tmp_path / "x.calib")
    assert not (tmp_path / "x.calib").exists()


@pytest.mark.parametrize("inputs", [1, 2])
def test_mistakes_in_a_table_name_no_file(tmp_path: Path, inputs: int) -> None:
    """The caller has seen neither the file that it is written to nor its lines."""
    names = ["a", "b"][:inputs]
    net = Net()
    net.output(net.op("Add", net.input("a", 1), net.input("b", 1) if inputs == 2 else net.constant([1.0])))
    net.save(tmp_path / "m.onnx")
    cells = np.array([[1.0] * inputs] * 4, object)
    cells[1, 0] = "many"
    with fails("the table, sample 1, column 'a' is 'many', expected a number", "or remove the row"):
        fcdeploy.calibrate(tmp_path / "m.onnx", data=Table(names, cells), output=tmp_path / "x.calib")


def test_a_column_of_labels_of_any_name(model: Path, features: Any, tmp_path: Path) -> None:
    """Of a model with one input the other columns are its features, whatever is the last one's name."""
    cells = np.array([[*row, ("a", "b")[at % 2]] for at, row in enumerate(features.astype(float).tolist())], object)
    frame = Table([*"abcdefgh", "kind"], cells)
    made = fcdeploy.calibrate(model, data=frame, label="kind", output=tmp_path / "m.calib")
    assert made.report.values["format"]["classes"] == ["a", "b"]
    assert made.samples == len(features)
