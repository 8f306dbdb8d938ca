"""What is no standard operator on tensors of numbers stays as it is: the line still ends in an int8 model that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import fails
from onnx import TensorProto, helper, numpy_helper

import fcdeploy
from fcdeploy.errors import FcdeployError
from fcdeploy.graph import functions
from fcdeploy.graph.model import read_model
from fcdeploy.preprocessing.tables import arrange_columns, convert_row
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.structured_outputs import as_array
from fcdeploy.user_code import OPERATORS, use_operators

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
RANDOM = np.random.default_rng(0)


def info(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


class Classifier:
    """Two dense layers, x (n, 64) to y (n, 10), and what a case puts around them."""

    def __init__(self) -> None:
        self.nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
        ]
        shapes = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
        self.weights = [
            numpy_helper.from_array((RANDOM.standard_normal(shape) / 8).astype(np.float32), name)
            for name, shape in shapes.items()
        ]
        self.outputs = [info("y", FLOAT, "n", 10)]
        self.domains: dict[str, int] = {"": 16}
        self.functions: list[onnx.FunctionProto] = []

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(self.nodes, "g", [info("x", FLOAT, "n", 64)], self.outputs, self.weights)
        sets = [helper.make_opsetid(*one) for one in self.domains.items()]
        made = helper.make_model(graph, opset_imports=sets, ir_version=8, functions=self.functions)
        onnx.save(made, path)
        return path


def scaler(net: Classifier) -> None:
    """As skl2onnx writes a StandardScaler."""
    net.nodes[0].input[0] = "s"
    attributes = {"offset": [0.5] * 64, "scale": [0.8] * 64}
    net.nodes.insert(0, helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", **attributes))
    net.domains["ai.onnx.ml"] = 1


def imputer(net: Classifier) -> None:
    """As skl2onnx writes a SimpleImputer of three columns; NaN is a number that is not known."""
    net.nodes[0].input[0] = "whole"
    attributes = {"imputed_value_floats": [0.5] * 3, "replaced_value_float": float("nan")}
    net.nodes[:0] = [
        helper.make_node("Split", ["x", "sizes"], ["few", "rest"], axis=1),
        helper.make_node("Imputer", ["few"], ["known"], domain="ai.onnx.ml", **attributes),
        helper.make_node("Concat", ["known", "rest"], ["whole"], axis=1),
    ]
    net.weights.append(numpy_helper.from_array(np.array([3, 61]), "sizes"))
    net.domains["ai.onnx.ml"] = 1


def zip_map(net: Classifier) -> None:
    """As skl2onnx ends a classifier: the class, and a map from class to probability for each sample."""
    net.nodes += [
        helper.make_node("Softmax", ["y"], ["p"], axis=1),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=list(range(10))),
    ]
    kind = onnx.TypeProto()
    kind.sequence_type.elem_type.map_type.key_type = INT64
    kind.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = FLOAT
    net.outputs = [info("label", INT64, "n"), helper.make_value_info("probabilities", kind)]
    net.domains["ai.onnx.ml"] = 1


def contrib(net: Classifier) -> None:
    """ONNX knows no type behind an operator of onnxruntime's own."""
    net.nodes[1] = helper.make_node("FastGelu", ["h"], ["r"], domain="com.microsoft")
    net.domains["com.microsoft"] = 1


def function(net: Classifier) -> None:
    """A function of the model's own with an attribute, called twice, once within another."""
    leak = helper.make_node("LeakyRelu", ["a"], ["b"])
    leak.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    sets = [helper.make_opsetid("", 16), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "Leak", ["a"], ["b"], [leak], sets, attributes=["slope"])
    call = helper.make_node("Leak", ["c"], ["d"], domain="own", slope=0.25)
    outer = helper.make_function("own", "Outer", ["c"], ["d"], [call], sets)
    net.functions = [inner, outer]
    net.nodes[1:2] = [
        helper.make_node("Outer", ["h"], ["o"], domain="own"),
        helper.make_node("Leak", ["o"], ["r"], domain="own", slope=0.5),
    ]
    net.domains["own"] = 1


def sequence(net: Classifier) -> None:
    net.nodes[2].input[0] = "second"
    net.nodes[2:2] = [
        helper.make_node("SplitToSequence", ["r", "half"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "one"], ["second"]),
    ]
    numbers = {"half": np.array(64), "one": np.array(1)}
    net.weights += [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    net.weights[2] = numpy_helper.from_array(numpy_helper.to_array(net.weights[2])[:64].copy(), "w2")


def sequence_output(net: Classifier) -> None:
    net.nodes.append(helper.make_node("SplitToSequence", ["r"], ["parts"], axis=1))
    net.outputs.append(helper.make_tensor_sequence_value_info("parts", FLOAT, None))


def optional(net: Classifier) -> None:
    net.nodes[2].input[0] = "got"
    got = helper.make_node("OptionalGetElement", ["maybe"], ["got"])
    net.nodes[2:2] = [helper.make_node("Optional", ["r"], ["maybe"]), got]


def text(net: Classifier) -> None:
    net.nodes += [
        helper.make_node("ArgMax", ["y"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "index"], ["name"]),
    ]
    net.weights.append(helper.make_tensor("names", STRING, [10], [f"class {i}".encode() for i in range(10)]))
    net.outputs.append(info("name", STRING, "n"))


CASES: list[Callable[[Classifier], None]] = [
    scaler, imputer, zip_map, contrib, function, sequence, sequence_output, optional, text,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_layers_become_int8_and_the_rest_stays(case: Callable[[Classifier], None], tmp_path: Path) -> None:
    net = Classifier()
    case(net)
    path, out = net.save(tmp_path / "model.onnx"), tmp_path / "int8.onnx"
    x = RANDOM.standard_normal((96, 64)).astype(np.float32)
    if case is imputer:
        x[::5, :3] = np.nan
    np.savez(tmp_path / "data.npz", x=x[:64])
    np.savez(tmp_path / "eval.npz", x=x[64:])

    fcdeploy.quantize(path, output=out, data=tmp_path / "data.npz", costs="none", floor="none")  # weights are random
    validated = fcdeploy.validate(out, against=path, data=tmp_path / "eval.npz")
    assert validated.values["sqnr_db"] > 25

    before, after = ort.InferenceSession(path), ort.InferenceSession(out)
    assert [(o.name, o.type) for o in after.get_outputs()] == [(o.name, o.type) for o in before.get_outputs()]
    kinds = {output.name: output.type for output in onnx.load(path).graph.output}
    for output in onnx.load(out).graph.output:  # written back with the types they had
        assert output.type.WhichOneof("value") == kinds[output.name].WhichOneof("value")
    integer = [
        kernel for kernel in fcdeploy.inspect(out, kernels=True).values["kernels"] if kernel["kernel"] == "QGemm"
    ]
    assert len(integer) == 2
    for float_value, int8_value in zip(before.run(None, {"x": x}), after.run(None, {"x": x}), strict=True):
        a, b = as_array(float_value), as_array(int8_value)
        assert a.shape == b.shape
        if a.dtype == np.float32:
            assert 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()) > 25


def test_an_imputer_fills_nothing_but_missing_numbers_of_its_columns(tmp_path: Path) -> None:
    net = Classifier()
    imputer(net)
    path, data = net.save(tmp_path / "model.onnx"), tmp_path / "data.npz"
    x = np.zeros((8, 64), np.float32)
    x[5, 0] = np.inf
    np.savez(data, x=x)
    with fails("sample 5 has inf at (0,)", "repair or remove the sample"):
        fcdeploy.calibrate(path, output=tmp_path / "c", data=data)
    x[5, 0], x[5, 3] = 0, np.nan  # of a column that is not imputed
    np.savez(data, x=x)
    with fails("sample 5 has nan at (3,), which the model does not fill in: its output 'y' becomes NaN"):
        fcdeploy.calibrate(path, output=tmp_path / "c", data=data)


def test_an_operator_that_nothing_knows_is_named_with_the_way_out(tmp_path: Path) -> None:
    net = Classifier()
    net.nodes[1] = helper.make_node("Magic", ["h"], ["r"], domain="my.own", name="magic")
    net.domains["my.own"] = 1
    path = net.save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 64), np.float32))
    with fails("node 'magic' is a Magic of the domain 'my.own', which onnxruntime does not know", "--ops LIB"):
        fcdeploy.calibrate(path, data=tmp_path / "data.npz", output=tmp_path / "c")


def test_a_library_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPERATORS, "")
    with fails("library of operators 'no.so' does not exist"):
        use_operators("no.so")
    library = tmp_path / "text.so"
    library.write_text("no library")
    use_operators(library, library)
    assert read_model(Classifier().save(tmp_path / "model.onnx"))
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 64), np.float32))
    with pytest.raises(FcdeployError, match=r"text\.so' cannot be loaded"):
        fcdeploy.calibrate(tmp_path / "model.onnx", data=tmp_path / "data.npz", output=tmp_path / "c")


def test_functions_that_call_themselves_or_multiply_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Classifier()
    function(net)
    monkeypatch.setattr(functions, "MOST_NODES", 3)
    with fails("its functions come to 4 nodes, expected 3 at most"):
        read_model(net.save(tmp_path / "many.onnx"))
    monkeypatch.setattr(functions, "MOST_NODES", 1000)
    monkeypatch.setattr(functions, "DEEPEST", 1)
    with fails("its functions call each other 1 deep and more"):
        read_model(net.save(tmp_path / "deep.onnx"))
    monkeypatch.undo()
    net.functions[0].node[0].CopyFrom(helper.make_node("Outer", ["a"], ["b"], domain="own"))
    with fails("its function 'Outer' calls itself"):
        read_model(net.save(tmp_path / "round.onnx"))


def test_maps_and_sequences_as_arrays() -> None:
    np.testing.assert_array_equal(as_array({2: 0.5, 1: 0.25}), np.array([0.25, 0.5], np.float32))
    rows = as_array([{"b": 1.0, "a": 2.0}, {"a": 3.0, "b": 4.0}])
    np.testing.assert_array_equal(rows, np.array([[2, 1], [3, 4]], np.float32))
    assert as_array([np.zeros((2, 3)), np.ones((2, 3))]).shape == (2, 2, 3)
    assert as_array([np.zeros((2, 3)), np.ones(2)]).shape == (8,)
    assert as_array([np.float32(1), np.float32(2)]).shape == (2,)
    assert as_array(None).size == as_array([]).size == 0


def test_an_empty_cell_is_a_missing_number_where_the_model_fills_it_in() -> None:
    float32 = np.dtype(np.float32)
    for missing in (True, False):
        spec = TensorSpec("x", float32, (None, 3), missing=missing)
        layout = arrange_columns(["a", "b", "c", "label"], [spec], "t.csv")
        if missing:
            row = convert_row(layout, ["1", "", "3", "0"], "line 2")
            np.testing.assert_array_equal(row["x"], [1, np.nan, 3])
        else:
            with fails("line 2, column 'b' is '', expected a number", "correct the cell"):
                convert_row(layout, ["1", "", "3", "0"], "line 2")


def test_a_file_in_which_nothing_is_quantized_does_not_grow(tmp_path: Path) -> None:
    """A logistic regression as one operator of ai.onnx.ml: the output is the float file, and that is said."""
    net = Classifier()
    coefficients = RANDOM.standard_normal((10, 64)).astype(np.float32).ravel().tolist()
    attributes = {"coefficients": coefficients, "intercepts": [0.0] * 10, "classlabels_ints": list(range(10))}
    net.nodes = [helper.make_node("LinearClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", **attributes)]
    net.weights, net.domains["ai.onnx.ml"] = [], 1
    path, int8 = net.save(tmp_path / "net.onnx"), tmp_path / "int8.onnx"
    np.savez(tmp_path / "data.npz", x=RANDOM.standard_normal((32, 64)).astype(np.float32))
    report = fcdeploy.quantize(path, output=int8, data=tmp_path / "data.npz")
    assert int8.read_bytes() == path.read_bytes()
    assert report.values["bytes_int8"] == report.values["bytes_float"]
    assert "nothing was quantized: every node stays as it was in float" in report.warnings
