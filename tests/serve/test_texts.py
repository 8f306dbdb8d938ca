"""Inputs and outputs of text: the whole line around an int8 middle, and text as the protocol has it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from servers import Server, serving

import fcdeploy
from fcdeploy.arrays import make_texts
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import decide_by
from fcdeploy.records import calibration as calibrations
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.session import Session
from fcdeploy.samples.checks import cast
from fcdeploy.samples.kept_samples import hash_sample
from fcdeploy.serve.classify import describe_answers
from fcdeploy.serve.grpc_messages import build_messages
from fcdeploy.serve.grpc_service import read_inputs, write_outputs
from fcdeploy.serve.models import MOST_TEXTS, Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.request import pack_texts, unpack_texts
from fcdeploy.transform.equality import Equality, compare, refuse_different

CITIES = ["berlin", "paris", "rome", "oslo", "madrid", "łódź"]
LABELS = ["low", "mid", "high"]
N = helper.make_node


def build(path: Path) -> None:
    """A city and three numbers (n, 1), (n, 3) to a label as text (n) and scores (n, 3)."""
    random = np.random.default_rng(0)
    arrays = {
        "w1": 0.7 * random.normal(size=(9, 64)), "b1": 0.1 * random.normal(size=64), "w2": random.normal(size=(64, 3)) / 2,
        "shape": np.array([-1, 6]),
    }  # fmt: skip
    nodes = [
        N("OneHotEncoder", ["city"], ["hot"], domain="ai.onnx.ml", cats_strings=CITIES, zeros=1),
        N("Reshape", ["hot", "shape"], ["flat"]), N("Concat", ["flat", "numbers"], ["all"], axis=1),
        N("Gemm", ["all", "w1", "b1"], ["h"]), N("Relu", ["h"], ["a"]), N("Gemm", ["a", "w2"], ["scores"]),
        N("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        N("LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=LABELS),
    ]  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, kind, ["n", *shape])
        for name, kind, shape in (
            ("city", TensorProto.STRING, [1]), ("numbers", TensorProto.FLOAT, [3]),
            ("label", TensorProto.STRING, []), ("scores", TensorProto.FLOAT, [3]),
        )
    ]  # fmt: skip
    constants = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
        for name, array in arrays.items()
    ]
    graph = helper.make_graph(nodes, "cities", ends[:2], ends[2:], constants)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)


def draw(seed: int, count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "city": random.choice([*CITIES, "nowhere"], (count, 1)),
        "numbers": random.normal(size=(count, 3)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated, quantized, bundled and put where a server finds it."""
    home = tmp_path_factory.mktemp("texts")
    build(home / "m.onnx")
    np.savez(home / "calib.npz", **draw(0, 64))
    np.savez(home / "eval.npz", **draw(1, 40))
    fcdeploy.calibrate(home / "m.onnx", data=home / "calib.npz", output=home / "c.calib")
    fcdeploy.quantize(home / "m.onnx", calibration=home / "c.calib", output=home / "q.onnx", costs="none", floor="none")
    (home / "models").mkdir()
    fcdeploy.bundle(home / "q.onnx", output=home / "models" / "cities.fcd", calibration=home / "c.calib", name="cities")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home / "models") as server:
        yield server


def test_the_middle_is_int8_and_the_answers_are_those_of_the_float_model(home: Path) -> None:
    report = fcdeploy.validate(home / "q.onnx", against=home / "m.onnx", data=home / "eval.npz", max_drop=10)
    assert report.passed
    kernels = [node.op_type for node in onnx.load(home / "q.onnx").graph.node]
    assert kernels.count("QuantizeLinear") >= 2
    feeds = draw(2, 200)
    labels = [Session(home / f"{name}.onnx").run(feeds, ["label"])[0] for name in "mq"]
    assert (labels[0] == labels[1]).mean() > 0.9
    assert set(labels[0]) <= set(LABELS)


def test_kept_text_is_read_back_and_counts_by_its_content(home: Path) -> None:
    kept = calibrations.read(home / "c.calib").kept
    assert set(kept["city"].reshape(-1)) == set(draw(0, 64)["city"].reshape(-1))
    again = calibrations.from_bytes((home / "c.calib").read_bytes(), "c").kept
    assert all((again[name] == kept[name]).all() for name in kept)
    samples = [{"city": make_texts(texts, (2,))} for texts in (["ab", "c"], ["a", "bc"], ["ab", "c"])]
    hashes = [hash_sample(sample) for sample in samples]
    assert hashes[0] == hashes[2] != hashes[1]
    with pytest.raises(FcdeployError, match=r"one of the samples that .*q\.onnx' was calibrated on"):
        fcdeploy.validate(home / "q.onnx", against=home / "m.onnx", data=home / "calib.npz")
    with pytest.raises(ValueError, match="no text"):
        calibrations._unpack_texts(np.frombuffer(b"[[1],[2]]", np.uint8))
    with pytest.raises(ValueError, match="no text"):
        calibrations._unpack_texts(np.frombuffer(b"[" * 100_000, np.uint8))


def test_all_kinds_of_data_give_the_same_calibration(home: Path, tmp_path: Path) -> None:
    data = draw(0, 64)
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["city", "numbers.0", "numbers.1", "numbers.2"])
        rows.writerows([*city, *map(str, numbers)] for city, numbers in zip(data["city"], data["numbers"], strict=True))
    wanted = calibrations.read(home / "c.calib")
    for form in (tmp_path / "t.csv", data, {**data, "city": data["city"].astype(object)}):
        fcdeploy.calibrate(home / "m.onnx", data=form, output=tmp_path / "c.calib", force=True)
        assert calibrations.read(tmp_path / "c.calib").data == wanted.data
    for name, wrong, message in (
        ("city", data["numbers"][:, :1], "is float32, the model wants text"),
        ("numbers", np.full((64, 3), "1"), "the model wants float32"),
    ):
        with fails(message):
            fcdeploy.calibrate(home / "m.onnx", data={**data, name: wrong}, output=tmp_path / "x.calib")
    spec = TensorSpec("city", np.dtype(object), (None, 2))
    with fails("sample 3 holds 1, the model wants text"):
        cast(np.array(["x", 1], object), spec, "sample 3", "data")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text a sample (n), in and out, nothing else; `wrong.onnx` answers otherwise everywhere."""
    home = tmp_path_factory.mktemp("flat")
    random = np.random.default_rng(0)
    nodes = [
        N("CategoryMapper", ["city"], ["at"], domain="ai.onnx.ml", cats_int64s=[*range(6)], cats_strings=CITIES),
        N("Gather", ["rows", "at"], ["e"]), N("Gemm", ["e", "w"], ["scores"]),
        N("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        N("LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=LABELS),
    ]  # fmt: skip
    arrays = {name: random.normal(size=size).astype(np.float32) for name, size in (("rows", (6, 8)), ("w", (8, 3)))}
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("city", "label")]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    for name, sign in (("m", 1), ("wrong", -1)):
        constants = [numpy_helper.from_array(arrays["rows"], "rows"), numpy_helper.from_array(sign * arrays["w"], "w")]
        graph = helper.make_graph(nodes, "flat", ends[:1], ends[1:], constants)
        onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), home / f"{name}.onnx")
    np.savez(home / "d.npz", city=np.array(CITIES * 4))
    return home


def test_texts_are_decisions(flat: Path) -> None:
    """Equal or not: a model whose every answer is another text does not pass."""
    for name, right in (("wrong", False), ("m", True)):
        report = fcdeploy.validate(
            flat / f"{name}.onnx", against=flat / "m.onnx", data=flat / "d.npz", same_data=True, max_drop=50
        )
        assert report.passed == right
    texts = make_texts(["a", "b", "c"], (3, 1))
    decision = decide_by(texts, OutputEnd("other", selected=True))
    assert decision is not None
    equal, count = decision.count_equal(texts, texts[::-1])
    assert (equal.sum(), count.sum()) == (6, 6)


def test_one_text_a_sample_is_calibrated(flat: Path) -> None:
    for column in ("city", "text"):  # the input's name, or another
        (flat / f"{column}.csv").write_text("\n".join([column, *CITIES]), encoding="utf-8")
    for data in (flat / "d.npz", flat / "city.csv", flat / "text.csv", {"city": np.array(CITIES, object)}):
        fcdeploy.calibrate(flat / "m.onnx", data=data, output=flat / "c.calib", force=True)
        kept = calibrations.read(flat / "c.calib").kept["city"]
        assert sorted(kept) == sorted(CITIES)
        assert kept.dtype == object


def test_texts_of_a_cut_model_are_compared(flat: Path) -> None:
    runs = {name: Session(flat / f"{name}.onnx").run for name in ("m", "wrong")}
    feeds = [{"city": make_texts(CITIES, (6,))}]
    assert compare(runs["m"], runs["m"], feeds) == Equality(6, 0.0, 1.0)
    with fails("differs by 1 of its largest value"):
        refuse_different(compare(runs["m"], runs["wrong"], feeds), "the cut model")


def test_classify_answers_one_text_a_sample() -> None:
    inputs = {"city": TensorSpec("city", np.dtype(object), (None,))}
    outputs = {"label": TensorSpec("label", np.dtype(object), (None,))}
    model = Model("m", "1", None, inputs, outputs, 1, "", False, 0.0, 0.0)  # type: ignore[arg-type]
    answers = describe_answers(model, [make_texts(LABELS, (3,))], 3, 5)
    assert answers == [{"values": {"label": label}} for label in LABELS]


def test_text_over_http(home: Path, server: Server) -> None:
    """As JSON, in binary, and as rows of a table; bytes of addresses never leave."""
    feeds = draw(3, 4)
    session = ort.InferenceSession(home / "q.onnx")
    label, scores = session.run(None, {"city": feeds["city"].astype(object), "numbers": feeds["numbers"]})
    assert server.ask("GET", "/v2/models/cities").json["inputs"][0]["datatype"] == "BYTES"
    assert server.ask("GET", "/v2/models/cities/config").json["input"][0]["data_type"] == "TYPE_STRING"
    numbers = {"name": "numbers", "datatype": "FP32", "shape": [4, 3], "data": feeds["numbers"].tolist()}
    city = {"name": "city", "datatype": "BYTES", "shape": [4, 1]}
    texts = feeds["city"].reshape(-1).tolist()
    reply = server.ask(
        "POST", "/v2/models/cities/infer", json.dumps({"inputs": [{**city, "data": texts}, numbers]}).encode()
    )
    assert [output["data"] for output in reply.json["outputs"]] == [
        label.tolist(),
        pytest.approx(scores.reshape(-1).tolist()),
    ]
    packed = pack_texts(feeds["city"])
    head = json.dumps({
        "inputs": [{**city, "parameters": {"binary_data_size": len(packed)}}, numbers],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    for _ in range(2):
        reply = server.ask(
            "POST", "/v2/models/cities/infer", head + packed, Inference_Header_Content_Length=str(len(head))
        )
        length = int(reply.fields["inference-header-content-length"])
        sizes = [output["parameters"]["binary_data_size"] for output in json.loads(reply.body[:length])["outputs"]]
        assert sizes == [len(pack_texts(label)), scores.nbytes]
        assert reply.body[length:] == pack_texts(label) + scores.tobytes()
    for bad, message in (
        ({**city, "data": [1, 2, 3, 4]}, "data holds something else, expected text for BYTES"),
        ({**city, "data": texts[:3]}, "3 values, expected 4"),
        ({**city, "datatype": "FP32", "data": texts}, "datatype FP32, expected BYTES"),
        ({**city, "shape": [MOST_TEXTS + 1, 1], "data": []}, "65537 texts, expected at most 65536"),
    ):
        refused = server.ask("POST", "/v2/models/cities/infer", json.dumps({"inputs": [bad, numbers]}).encode())
        assert refused.status == (413 if "texts" in message else 400)
        assert message in refused.error


def test_text_over_grpc(home: Path) -> None:
    """Raw as NVIDIA's client sends it, and as typed contents."""
    feeds = draw(4, 3)
    city = feeds["city"].astype(object)
    label = Session(home / "q.onnx").run({**feeds, "city": city})[0]
    inputs = {
        "city": TensorSpec("city", np.dtype(object), (None, 1)),
        "numbers": TensorSpec("numbers", np.dtype(np.float32), (None, 3)),
    }
    model = Model("m", "1", None, inputs, {}, 1, "", False, 0.0, 0.0)  # type: ignore[arg-type]
    messages = build_messages()
    for raw in (False, True):
        request = messages["ModelInferRequest"]()
        for name, datatype in (("city", "BYTES"), ("numbers", "FP32")):
            request.inputs.add(name=name, datatype=datatype, shape=feeds[name].shape)
        if raw:
            request.raw_input_contents.extend([pack_texts(feeds["city"]), feeds["numbers"].tobytes()])
        else:
            request.inputs[0].contents.bytes_contents.extend(text.encode() for text in feeds["city"].reshape(-1))
            request.inputs[1].contents.fp32_contents.extend(feeds["numbers"].reshape(-1).tolist())
        read = read_inputs(model, request)
        assert read["city"].tolist() == feeds["city"].tolist()
        answer = messages["ModelInferResponse"]()
        write_outputs(answer, {"label": label}, raw=raw)
        assert answer.outputs[0].datatype == "BYTES"
        coded = [text.encode() for text in label]
        given = answer.raw_output_contents if raw else answer.outputs[0].contents.bytes_contents
        assert list(given) == ([pack_texts(label)] if raw else coded)
    many = {"city": replace(inputs["city"], shape=(None,))}
    request.inputs[0].shape[:] = [MOST_TEXTS + 1]
    with pytest.raises(RefusedError, match="65537 texts, expected at most 65536") as refused:
        read_inputs(replace(model, inputs={**inputs, **many}), request)
    assert refused.value.status == 413
    request.inputs[0].shape[:] = [3, 1]
    request.raw_input_contents[0] = b"\x02\x00\x00\x00\xff\xff" * 3
    with pytest.raises(RefusedError, match="'city': a text is no UTF-8"):
        read_inputs(model, request)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_packed_text_is_unpacked(texts: list[str]) -> None:
    packed = pack_texts(make_texts(texts, (-1,)))
    assert unpack_texts(packed, "x", len(texts), (len(texts),)).tolist() == texts
    for broken in (packed + b"x", packed[:-1], packed[:3]):
        with pytest.raises(RefusedError, match="are no"):
            unpack_texts(broken, "x", len(texts), (len(texts),))
