"""Bundles that are damaged, made up or hostile: each is refused in a sentence, and none crashes."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_files import edited, zipped
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from fcdeploy import cli
from fcdeploy.bundles import golden
from fcdeploy.bundles.load import load_bundle
from fcdeploy.bundles.read import open_bundle
from fcdeploy.bundles.write import write_bundle
from fcdeploy.commands.verify import verify
from fcdeploy.errors import FcdeployError
from fcdeploy.records import manifest as manifests
from fcdeploy.records.manifest import Manifest

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(small_bundle: Path) -> Path:
    return small_bundle


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy.fcd"))


def key(name: str, value: Any) -> Edit:
    return lambda folder: edited(folder, lambda said: said.update({name: value}))


WRONG: dict[str, tuple[Edit, str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
    "huge manifest": (lambda f: os.truncate(f / "manifest.json", 17 << 20), "manifest.json has 17825792 bytes"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is not JSON"),
    "nested": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "manifest.json is not JSON"),
    "no object": (lambda f: edited(f, lambda _: [1]), "has format '[1]', expected 'fcdeploy.bundle/1'"),
    "other format": (key("schema", "fcdeploy.bundle/9"), "has format 'fcdeploy.bundle/9'"),
    "unknown key": (key("extra", 1), "has the unknown key 'extra'"),
    "missing key": (lambda f: edited(f, lambda said: said.pop("needs") and None), "has no 'needs'"),
    "name": (key("name", "../up"), "'name' is '../up', expected letters, digits"),
    "version": (key("version", 3), "'version' is '3', expected a positive number in a string"),
    "reports": (key("reports", ["diary"]), "'reports' is \"['diary']\", expected some of"),
    "model not listed": (key("model", "other.onnx"), "'other.onnx' is not among its files"),
    "golden not listed": (key("golden", "other.npz"), "'other.npz' is not among its files"),
    "report not listed": (key("reports", ["plan"]), "'plan.json' is not among its files"),
    "outputs": (key("outputs", []), "'outputs' is '[]', expected a list that is not empty"),
    "dtype": (key("inputs", [{"name": "x", "dtype": "object", "shape": []}]), "'x' has dtype 'object'"),
    "shape": (key("inputs", [{"name": "x", "dtype": "int8", "shape": [-1]}]), "'x' has shape '[-1]'"),
    "a name": (key("inputs", [{"name": "", "dtype": "int8", "shape": []}]), "a name is ''"),
    "twice": (key("outputs", 2 * [{"name": "y", "dtype": "int8", "shape": []}]), "outputs has 'y' twice"),
    "no row": (key("inputs", ["x"]), "inputs is 'x', expected an object"),
    "path": (key("files", {"../x": {"bytes": 1, "sha256": "0" * 64}}), "file '../x' is no plain relative path"),
    "no hash": (key("files", {"model.onnx": {"bytes": 1, "sha256": "0"}}), "'model.onnx' has no size and sha256"),
    "missing": (lambda f: (f / "model.onnx").unlink(), "file 'model.onnx' is missing"),
    "longer": (lambda f: os.truncate(f / "model.onnx", 10**6), "file 'model.onnx' has 1000000 bytes, the manifest"),
    "more": (lambda f: (f / "new.txt").write_text("x"), "file 'new.txt' is not in the manifest"),
    "link": (lambda f: (f / "link").symlink_to("/etc/hostname"), "'link' is a link that leads out of the folder"),
    "other ends": (key("inputs", [{"name": "x", "dtype": "float32", "shape": [None, 9]}]),
                   "the manifest's inputs are x float32[?, 9], the model's x float32[?, 8]"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_folder_is_refused(copy: Path, name: str) -> None:
    damage, message = WRONG[name]
    damage(copy)
    with fails(message):
        load_bundle(copy)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_verify_names_an_altered_file(
    copy: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(content)
    path = copy if form == "folder" else zipped(copy, tmp_path / "net.zip")
    assert cli.main(["verify", str(path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in printed["files"] if row["altered"]] == ["model.onnx"]
    assert verify(path).lines[-1] == "failed: 'model.onnx' is not the file that was bundled: its sha256 differs"
    with fails("file 'model.onnx' is not the one that was bundled", "copy the bundle again"):
        load_bundle(path)


def test_hidden_files_and_links_inside_are_no_part_of_it(copy: Path) -> None:
    """As Kubernetes mounts a volume: every file is a link to one in a hidden folder."""
    (copy / "..data").mkdir()
    for file in list(copy.glob("*.*")):
        if file.is_file():
            file.rename(copy / "..data" / file.name)
            file.symlink_to(Path("..data") / file.name)
    assert verify(copy).passed


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with fails("does not exist", "fcdeploy bundle"):
        load_bundle(tmp_path / "x.fcd")
    (tmp_path / "x.zip").write_bytes(b"PK nonsense")
    with fails("is neither a folder nor a zip, or is damaged"):
        load_bundle(tmp_path / "x.zip")


def test_wrong_zips_are_refused(made: Path, tmp_path: Path) -> None:
    with fails("is compressed or encrypted, expected stored bytes", "zip -0 -r"):
        load_bundle(zipped(made, tmp_path / "deflated.zip", zipfile.ZIP_DEFLATED))
    for number, (name, message) in enumerate(
        {
            "../up": "'../up' is no plain relative path",
            "/abs": "'/abs' is no plain relative path",
            "a\\b": "'a\\\\b' is no plain relative path",
            "C:x": "'C:x' is no plain relative path",
            "manifest.json/": "is not in the manifest",
        }.items()
    ):
        path = zipped(made, tmp_path / f"{number}.zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name) if not name.endswith("/") else "x.txt", b"1")
        with fails(message):
            load_bundle(path)
    path = zipped(made, tmp_path / "twice.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.onnx", b"1")
    with fails("'model.onnx' is there twice"):
        load_bundle(path)


def test_a_zip_that_claims_more_than_it_has(made: Path, tmp_path: Path) -> None:
    path = zipped(made, tmp_path / "net.zip")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last row of the directory; both sizes stand at 20
    content[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with fails("claims more bytes than the file has"):
        load_bundle(path)


def test_wrong_golden_samples(made: Path, tmp_path: Path) -> None:
    """With hashes that are right: somebody made it so."""
    loaded = load_bundle(made)
    contents = {name: loaded.stored.read(name) for name in loaded.manifest.files}
    runs = loaded.golden_runs()
    good = golden.to_bytes(runs)
    header = good.index(b"'shape': (1, 8)")
    for number, (bad, message) in enumerate(
        [
            (b"nonsense", "the golden samples are damaged: File is not a zip file"),
            (golden.to_bytes([(runs[0][0], {})]), "golden run 0 has , expected 'second_out', 'class_out'"),
            (good[:header] + b"'shape': (9, 8)" + good[header + 15 :], "or is damaged: Bad CRC-32"),
        ]
    ):
        out = tmp_path / f"{number}.fcd"
        write_bundle(out, loaded.manifest, {**contents, "golden.npz": bad}, force=False)
        with fails(message, "make it again"):
            verify(out)


def test_headers_of_arrays_are_not_believed() -> None:
    for shape, text in (((2**40,), "but holds 4"), ((-1,), "expected lengths of 0 or more")):
        header, file = io.BytesIO(), io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("0/input/x.npy", header.getvalue() + bytes(4))
        with fails(text):
            golden.from_bytes(file.getvalue(), ["x"], [], "here")
    pickled, file = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        np.save(pickled, np.array([{}], object), allow_pickle=True)
        archive.writestr("0/input/x.npy", pickled.getvalue())
    with fails("holds Python objects"):
        golden.from_bytes(file.getvalue(), ["x"], [], "here")


def test_damaged_zips_never_crash(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte changed anywhere, or the end cut off: an error, a no, or (in unused fields of the zip) a yes."""
    whole = zipped(made, tmp_path / "net.zip").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.zip"
    answers = set()
    for number in range(300):
        content = bytearray(whole)
        if number % 3:
            content[random.integers(len(content))] ^= 1 << random.integers(8)
        else:
            del content[random.integers(len(content)) :]
        path.write_bytes(content)
        answers.add(cli.main(["verify", str(path)]))
        assert "internal" not in capsys.readouterr().err
    assert {1, 2} <= answers <= {0, 1, 2}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=3),
    max_leaves=9,
)


GOOD = manifests.to_json(Manifest("n", "1", "m", (), (), {}, {}, {}, {}, {}))


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_manifest_is_read_or_refused(name: str, value: Any) -> None:
    with pytest.raises(FcdeployError):
        raise_or_read({**GOOD, name: value})


def raise_or_read(data: Any) -> None:
    manifests.from_json(data, "here")
    raise FcdeployError("read", "it")


def test_a_manifest_reads_back(made: Path) -> None:
    said = open_bundle(made).manifest
    assert manifests.from_json(json.loads(json.dumps(manifests.to_json(said))), "here") == said
