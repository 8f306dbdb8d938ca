"""Models with their weights in a file beside them: written, loaded, replaced, refused."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, random_data

from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.graph import external_data
from fcdeploy.graph.model import files_of, hash_model, measure_size, read_model, write_model
from fcdeploy.runtime.session import Session

DATA = random_data(0, 5, x=(64,))


def network() -> Net:
    net = Net(0)
    hidden = net.op("Relu", net.dense(net.input("x", 64), 64, 48, transB=1, name="one"), name="relu")
    return net.output(net.dense(hidden, 48, 32, name="two"))


def split(folder: Path) -> Path:
    """The network with its weights in net.data."""
    onnx.save(network().model(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    return folder / "net.onnx"


def run(model: Path | ir.Model) -> np.ndarray:
    found: np.ndarray = Session(model, threads=1).run(DATA)[0]
    return found


@pytest.mark.parametrize("from_files", [False, True])
@pytest.mark.parametrize("to_files", [False, True])
def test_written_either_way_it_computes_the_same(tmp_path: Path, from_files: bool, to_files: bool) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = split(tmp_path / "in") if from_files else network().save(tmp_path / "in" / "net.onnx")
    out = tmp_path / "out" / "net.onnx"
    size = write_model(read_model(source), out, largest=0 if to_files else None)
    names = ["net.onnx", "net.onnx.data"] if to_files else ["net.onnx"]
    assert sorted(file.name for file in out.parent.iterdir()) == names
    assert size == sum(file.stat().st_size for file in out.parent.iterdir())
    assert size == measure_size(files_of(read_model(out), out))
    np.testing.assert_array_equal(run(out), run(source))
    onnx.checker.check_model(out)


def test_weights_begin_on_pages_and_small_ones_stay_inside(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    write_model(ir.from_proto(network().model()), out, largest=0)
    tensors = [value.const_value for value in ir.load(out).graph.initializers.values()]
    files = [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]
    assert [tensor.nbytes for tensor in files] == [64 * 48 * 4, 48 * 32 * 4]
    assert all((tensor.offset or 0) % 4096 == 0 for tensor in files)
    assert {tensor.nbytes for tensor in tensors if tensor not in files} == {48 * 4, 32 * 4}


def test_a_session_has_weights_from_files_and_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "MESSAGE", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    model = read_model(split(tmp_path))
    expected = run(model)
    second = [value for value in model.graph.initializers.values() if value.shape == [48, 32]]
    tensor = second[0].const_value
    second[0].const_value = ir.LazyTensor(lambda: tensor, tensor.dtype, tensor.shape, name=tensor.name)
    with external_data.serialize(model) as (message, folder):
        assert folder == tmp_path.anchor
        assert len(message) < 3000
        assert list((tmp_path / "temporary").glob("*/files/weights"))
    np.testing.assert_array_equal(run(model), expected)
    assert not list((tmp_path / "temporary").iterdir())


def test_without_room_for_a_temporary_file_the_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "MESSAGE", 1000)
    full = ir.LazyTensor(_no_room, ir.DataType.FLOAT, ir.Shape([64, 64]), name="w")
    value = ir.Value(name="w", const_value=full, shape=full.shape, type=ir.TensorType(full.dtype))
    model = ir.Model(ir.Graph([], [value], nodes=[], initializers=[value]), ir_version=8)
    with fails("cannot write to the temporary folder", "TMPDIR"), external_data.serialize(model):
        pass


def _no_room() -> ir.TensorProtocol:
    raise OSError(28, "No space left on device")


def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path: Path) -> None:
    model = read_model(split(tmp_path))
    os.truncate(tmp_path / "net.data", 5000)
    with fails("cannot write", "give a folder with room"):
        write_model(model, tmp_path / "out.onnx", largest=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.data", "net.onnx"]


def test_weights_that_exist_are_replaced_only_by_force(tmp_path: Path) -> None:
    model = ir.from_proto(network().model())
    (tmp_path / "out.onnx.data").write_bytes(b"mine")
    with fails("out.onnx.data' exists", "--force"):
        write_model(model, tmp_path / "out.onnx", largest=0)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"mine"
    assert not (tmp_path / "out.onnx").exists()
    write_model(model, tmp_path / "out.onnx", largest=0, force=True)
    assert run(tmp_path / "out.onnx").shape == (5, 32)


def test_a_block_that_fails_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"mine")
    with fails("no more", "room"), replace_file(tmp_path / "out.onnx", force=True) as aside:
        aside.write_bytes(b"new")
        raise FcdeployError("no more", "room")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("out.onnx", b"mine")]


def test_the_hash_covers_the_weights(tmp_path: Path) -> None:
    path = split(tmp_path)
    files = files_of(read_model(path), path)
    assert [file.name for file in files] == ["net.onnx", "net.data"]
    before = hash_model(files)
    content = bytearray((tmp_path / "net.data").read_bytes())
    content[100] ^= 1
    (tmp_path / "net.data").write_bytes(content)
    assert hash_model(files) != before


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    path = split(tmp_path)
    os.link(tmp_path / "net.data", tmp_path / "other")
    with fails("'net.data' has another name elsewhere, a hard link", "cp "):
        read_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": "4"}, "to 4 of 'net.data', its shape"),
        ({"location": "../net.data"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"offset": "999999"}, "bytes of 'net.data', which has fewer"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = split(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save(model, path)
    with fails(message):
        read_model(path)


def test_a_shape_of_negative_lengths_is_refused(tmp_path: Path) -> None:
    path = split(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[:] = [-48, -64]
    onnx.save(model, path)
    with fails("has the shape [-48, -64], expected no negative length"):
        read_model(path)


@pytest.mark.parametrize("version", [17, 18])  # of the function: inlined, or left for the runtime
def test_weights_of_a_function_lie_beside_the_model_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """Wherever a tensor stands in the file, it is read from the model's folder, and from nowhere else."""
    outside = tmp_path / "elsewhere" / "w.bin"
    outside.parent.mkdir()
    np.array([1, 2, 3], np.float32).tofile(outside)
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(outside.parent)  # where onnx-ir would look for a tensor that has no folder

    def save(location: str) -> Path:
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        nodes = [
            onnx.helper.make_node("Constant", [], ["w"], value=tensor), onnx.helper.make_node("Add", ["a", "w"], ["r"])
        ]  # fmt: skip
        sets = [onnx.helper.make_opsetid("", version)]
        function = onnx.helper.make_function("own", "Shift", ["a"], ["r"], nodes, sets)
        ends = [onnx.helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "xy"]
        node = onnx.helper.make_node("Shift", ["x"], ["y"], domain="own")
        graph = onnx.helper.make_graph([node], "net", ends[:1], ends[1:])
        sets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
        path = tmp_path / "models" / "m.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=sets, functions=[function], ir_version=8), path)
        return path

    for location in (str(outside), "../elsewhere/w.bin"):
        with fails("outside the model's folder"):
            read_model(save(location))
    with fails("'w.bin', which has fewer"):
        read_model(save("w.bin"))
    np.array([4, 5, 6], np.float32).tofile(tmp_path / "models" / "w.bin")
    model = read_model(save("w.bin"))
    assert [file.name for file in files_of(model, tmp_path / "models" / "m.onnx")] == ["m.onnx", "w.bin"]
    assert version == 18 or model.graph[0].attributes["value"].value.numpy().tolist() == [4, 5, 6]
