"""The report: every figure in the page is the reports' own, each file goes to its model, and nothing is asked for."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from conftest import fails
from networks import Net
from PIL import Image

from fcdeploy.cli import main
from fcdeploy.commands.bench import bench
from fcdeploy.commands.bundle import bundle
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.report import list_commands, report
from fcdeploy.commands.validate import validate
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.records.report import Report
from fcdeploy.reporting.page import drawing, sample_pictures
from fcdeploy.reporting.page.describe import write_verdict
from fcdeploy.reporting.page.render import keep_in_line
from fcdeploy.reporting.page.subject import read_subject

ALL = ("quantize.json", "validate.json", "bench.json", "net.calib")


class Figures(HTMLParser):
    """The numbers of a page: key -> what stands for machines; and every address that it names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: dict[str, str] = {}
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "data":
            self.figures[str(given["data-key"])] = str(given["value"] or "")
        self.addresses += [str(value) for key, value in attrs if key in ("src", "href", "action")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of two layers and everything that commands say of it."""
    folder = tmp_path_factory.mktemp("report")
    net = Net()
    x = net.input("x", 4, 8, 8)
    y = net.op("Flatten", net.op("Relu", net.conv(x, 4, 8, name="first"), name="relu"))
    net.outputs = [net.op("Gemm", y, net.constant(net.normal(512, 4, size=0.1)), name="last")]
    net.save(folder / "net.onnx")
    random = np.random.default_rng(1)
    images = random.normal(size=(60, 4, 8, 8)).astype(np.float32)
    np.savez(folder / "train.npz", x=images[:20])
    np.savez(folder / "held.npz", x=images[20:], label=random.integers(0, 4, 40))
    save(folder / "net.calib.json", calibrate(folder / "net.onnx", data=folder / "train.npz"))
    save(
        folder / "quantize.json",
        quantize(
            folder / "net.onnx", calibration=folder / "net.calib", output=folder / "net.int8.onnx", costs="none", effort="fast",
            floor="none", save_plan=folder / "plan.json",
        ),
    )  # fmt: skip
    int8, both = folder / "net.int8.onnx", {"against": folder / "net.onnx"}
    save(folder / "validate.json", validate(int8, data=folder / "held.npz", max_drop=90, **both))
    save(folder / "bench.json", bench(int8, seconds=0.05, per_node=True, **both))
    return folder


def save(path: Path, made: Report) -> None:
    path.write_text(json.dumps(made.to_json()))


def find(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def test_every_figure_is_that_of_the_reports(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    result = report([made / "net.int8.onnx"], output=out, add=[made / name for name in (*ALL, "plan.json")])
    page = out.read_text()
    found = Figures(page)
    assert len(found.figures) > 40
    for key, value in found.figures.items():
        expected = find_or_none(result.values, key)
        assert (value == "") == (expected is None), key
        assert value == "" or float(value) == expected, key

    model = result.values["models"][0]
    for kind in ("quantize", "validate", "bench"):
        assert model[kind] == json.loads((made / f"{kind}.json").read_text())
    assert model["verdict"].startswith("It is ")
    assert [row["node"] for row in model["layers"] if row["integer"] and row["macs"]] == ["first", "last"]
    first = next(row for row in model["layers"] if row["node"] == "first")
    assert first["macs"] == 8 * 4 * 9 * 64
    assert first["why"]  # from the plan
    assert first["end_low"] == 0 < first["end_high"] <= first["max"] * 1.01  # behind the Relu, in bytes
    assert sorted({row["op"] for row in model["layers"]}) == ["Conv", "Flatten", "Gemm"]
    looked = inspect(made / "net.int8.onnx").values
    assert model["peak_activation_bytes"] == looked["peak_activation_bytes"]
    assert max(row["bytes"] for row in model["memory"]) == looked["peak_activation_bytes"]
    assert model["memory"][0] == {"node": "", "bytes": 4 * 4 * 8 * 8}  # the input alone, before anything runs


def find_or_none(values: Any, key: str) -> Any:
    try:
        return find(values, key)
    except (KeyError, TypeError, IndexError):
        return None


def test_the_page_loads_nothing_and_escapes_names(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    report([made / "net.int8.onnx"], output=out, add=[made / name for name in ALL], title="<b>a</b> & b")
    page = out.read_text()
    assert not Figures(page).addresses
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "<title>&lt;b&gt;a&lt;/b&gt; &amp; b</title>" in page
    assert page.count("<svg") >= 3  # the interval, the graph, histograms
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]*)"', page)) <= set(ids)
    assert all("aria-label" in tag for tag in re.findall(r"<svg[^>]*>", page))


def test_models_side_by_side_and_a_bundle(made: Path, tmp_path: Path) -> None:
    """Reports go to the model whose hash they carry; a bundle brings its own."""
    bundle(
        made / "net.int8.onnx", output=tmp_path / "b.fcd", plan=made / "plan.json", validation=made / "validate.json",
        data=made / "held.npz",
    )  # fmt: skip
    other, options = tmp_path / "other.onnx", {"costs": "none", "floor": "none", "effort": "fast"}
    quantize(made / "net.onnx", calibration=made / "net.calib", output=other, keep_float=["last"], **options)
    result = report([tmp_path / "b.fcd", other], output=tmp_path / "r.html", add=[made / "bench.json"])
    first, second = result.values["models"]
    assert first["validate"]["drop"] == json.loads((made / "validate.json").read_text())["drop"]
    assert first["bench"] and not second["bench"] and not second["validate"]
    assert first["bundle"]["files"]["model.onnx"] == first["sha256"]
    assert second["verdict"] == (
        "Not measured: accuracy (validate), size of the float model (fcdeploy quantize, or fcdeploy bench "
        "--against), time (fcdeploy bench --against)."
    )
    page = (tmp_path / "r.html").read_text()
    assert 'colspan="3">b.fcd<' in page
    assert result.lines[0].startswith("b.fcd: It is ")


def test_the_commands_of_a_bundle_make_it_again(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, but for the words in capitals, which name what no file says."""
    monkeypatch.chdir(tmp_path)
    bundle(
        made / "net.int8.onnx", output="b.fcd", plan=made / "plan.json", validation=made / "validate.json",
        bench=made / "bench.json", name="net.v2", version="3",
    )  # fmt: skip
    card = report(["b.fcd"], output="card.md", format="markdown").values["models"][0]
    assert card["bench"] == json.loads((made / "bench.json").read_text())
    text = Path("card.md").read_text()
    before = json.loads(Path("b.fcd/manifest.json").read_text())
    shutil.rmtree("b.fcd")
    given = {"FLOAT": made / "net.onnx", "DATA": made / "train.npz", "EVALUATION": made / "held.npz"}
    for command in card["commands"]:
        assert command in text
        words = [str(given.get(word, word)) for word in shlex.split(command)[1:]]
        words += {"quantize": ["--costs", "none"], "bench": ["--seconds", "0.05"], "report": ["--force"]}.get(
            words[0], []
        )
        if ">" in words:  # what a shell does
            at = words.index(">")
            words, file = words[:at] + words[at + 2 :], words[at + 1]
            with Path(file).open("w") as out, contextlib.redirect_stdout(out):
                assert main(words) in (0, 1)
        else:
            assert main(words) == 0, command
    after = json.loads(Path("b.fcd/manifest.json").read_text())
    for key in ("name", "version", "reports", "inputs", "outputs"):
        assert after[key] == before[key]
    assert Path("card.md").read_text().startswith(text.splitlines()[0])


def test_a_model_card(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.md"
    report([made / "net.int8.onnx"], output=out, add=[made / name for name in ALL], format="markdown")
    text = out.read_text()
    said = json.loads((made / "validate.json").read_text())
    assert f"| top1 | {said['float']:,.4f} | {said['int8']:,.4f} |" in text
    assert "fcdeploy bench net.int8.onnx --against FLOAT --threads 1 --per-node --json > bench.json" in text
    assert "–" not in text.split("Made from")[0].split("| SQNR")[0]


def test_commands_to_copy_hold_nothing_that_a_file_says(made: Path) -> None:
    subject = read_subject(made / "net.int8.onnx")
    strange = replace(subject, made={"target": "portable; echo hi"})
    assert "--target 'portable; echo hi' -o" in list_commands(strange, Path("page.html"))[0]


def test_names_end_no_line_of_a_model_card() -> None:
    assert keep_in_line("a`b\n# c\u2028d") == "a'b # c d"
    assert keep_in_line(3) == 3


def test_a_folder_of_node_data_comes_to_be_whole_or_not_at_all(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def fail_at_macs(path: Path, text: str, **how: str) -> int:
        if path.name == "macs.json":
            raise OSError(28, "No space left on device", str(path))
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", fail_at_macs)
    with fails("No space left on device"):
        report([made / "net.int8.onnx"], output=tmp_path / "overlay", format="model-explorer")
    assert list(tmp_path.iterdir()) == []

    monkeypatch.undo()
    (tmp_path / ".overlay.0123abcd.new" / "files").mkdir(
        parents=True
    )  # of a process that was killed when it had moved it
    for _ in range(2):
        report([made / "net.int8.onnx"], output=tmp_path / "overlay", format="model-explorer", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["overlay"]


def test_node_data_for_model_explorer(made: Path, tmp_path: Path) -> None:
    """In its format (ai-edge-model-explorer 0.1.34), by names of nodes in the file, with the figures of the reports."""
    out = tmp_path / "overlay"
    result = report([made / "net.int8.onnx"], output=out, add=[made / name for name in ALL], format="model-explorer")
    files = {path.stem: json.loads(path.read_text()) for path in out.iterdir()}
    model = onnx.load(made / "net.int8.onnx")
    names = {node.name for node in model.graph.node}
    for name, file in files.items():
        (graph, data), *_ = file.items()
        assert graph == model.graph.name
        assert data.keys() <= {"name", "results", "gradient"}
        assert data["results"].keys() <= names
        assert (name == "kernel") == ("gradient" not in data)
    timed = {
        row["node"]: row["int8_us"] for row in json.loads((made / "bench.json").read_text())["per_node"]["matched"]
    }
    shown = files["time"][model.graph.name]["results"]
    assert {node: shown[node]["value"] for node in timed if node in shown} == {n: timed[n] for n in timed if n in shown}
    assert len(shown) >= 2
    assert files["kernel"][model.graph.name]["results"]["first"]["value"] == "QLinearConv"
    assert f"--node_data_paths {out}/kernel.json," in result.lines[1]
    with fails("exists"):
        report([made / "net.int8.onnx"], output=out, format="model-explorer")
    with fails("2 models were given, expected one"):
        report([made / "net.int8.onnx"] * 2, output=tmp_path / "both", format="model-explorer")


def test_the_command_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    words = ["report", str(made / "net.int8.onnx"), "--add", str(made / "validate.json"), "-o", str(out)]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["schema"], printed["output"], printed["bytes"]) == (
        "fcdeploy.report/1",
        str(out),
        out.stat().st_size,
    )
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err


def test_what_does_not_belong_is_refused(made: Path, tmp_path: Path) -> None:
    model, out = made / "net.int8.onnx", tmp_path / "r.html"

    def refuse(message: str, name: str, text: str = "", models: tuple[Path, ...] = (model,)) -> None:
        if text:
            (tmp_path / name).write_text(text)
        with fails(message):
            report(models, output=out, add=[tmp_path / name] if name else [])

    refuse("does not exist", "nothing.json")
    refuse("its schema is 'x'", "x.json", '{"schema": "x"}')
    refuse("cannot be read as JSON", "broken.json", '{"schema": ')
    other = json.loads((made / "validate.json").read_text()) | {"hashes": {"int8": "0", "float": "0"}}
    refuse("is not of 'net.int8.onnx'", "other.json", json.dumps(other))
    refuse("there is no model to report on", "", models=())
    with fails("--format 'pdf' is unknown, expected html, markdown, model-explorer"):
        report([model], output=out, format="pdf")
    assert not out.exists()


LESS, ON = "It is 0.50 points less accurate than float (95 % interval", "on 800 samples"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, f"{LESS} -0.20 to 1.20) {ON}, no more than chance."),
        ({"drop_low": 0.1}, f"{LESS} 0.10 to 1.20) {ON}."),
        ({"drop": 0.0}, f"It is as accurate as float (95 % interval -0.20 to 1.20) {ON}."),
        ({"drop": -0.5, "drop_high": -0.1}, f"{LESS.replace('less', 'more')} -0.20 to -0.10) {ON}."),
        ({"drop_low": 0.1, "max_drop": 0.4, "passed": False}, f"{LESS} 0.10 to 1.20) {ON}, not within the 0.4 allowed."),
        ({"drop": None, "agreement": 0.995}, f"Decides as float does on 99.50 % of {ON[3:]}."),
        ({"drop": None, "agreement": None, "sqnr_db": 31.2}, f"Its outputs match float's to 31.2 dB {ON}."),
    ],
)  # fmt: skip
def test_verdicts(change: dict[str, Any], expected: str) -> None:
    validate = {"drop": 0.5, "drop_low": -0.2, "drop_high": 1.2, "drop_unit": "points", "samples": 800, **change}
    timed = {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6, "conclusive": True}
    size = {"size_ratio": 0.25}
    assert write_verdict({"validate": validate, "bench": timed, **size}) == (
        expected[:-1] + "; it takes 0.25 of the space; it takes 0.50 (0.40 to 0.60) of the time."
    )
    noisy = write_verdict({"validate": validate, "bench": {**timed, "conclusive": False}, **size})
    assert noisy.endswith("its time is not certain: 0.50 (0.40 to 0.60) of the time, on a noisy machine.")


WHOLE = {"schema": "fcdeploy.validate/1", "hashes": {"int8": "a"}, "samples": 3, "passed": True}


@pytest.mark.parametrize(("content", "message"), [
    ({"schema": "fcdeploy.validate/1"}, "edited.json': has no 'hashes'"),
    (WHOLE | {"hashes": None}, "edited.json': has no 'hashes'"),
    (WHOLE | {"hashes": {"int8": 5}}, "edited.json': hashes int8 is '5', expected text"),
    (WHOLE | {"samples": True}, "edited.json': samples is 'True', expected a whole number"),
    (WHOLE | {"drop": 0.5}, "edited.json': has no 'drop_unit'"),
    (WHOLE | {"layers": [{}]}, "edited.json': layers[0] has no 'node'"),
    (WHOLE | {"confusion": {"float": [[1]], "int8": [["x"]]}}, "confusion int8[0][0] is 'x', expected a number"),
    ({"schema": "fcdeploy.quantize/1", "output": 5}, "edited.json': output is '5', expected text"),
    ({"schema": "fcdeploy.quantize/1", "nodes_float": [{}]}, "edited.json': nodes_float[0] has no 'node'"),
    ({"schema": "fcdeploy.bench/1", "threads": 1, "ratio": 0.5}, "edited.json': has no 'ratio_low'"),
    ({"schema": "fcdeploy.bench/1", "threads": 1, "per_node": []}, "edited.json': per_node is '[]', expected an object"),
])  # fmt: skip
def test_reports_that_were_edited_are_refused(
    made: Path, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    (tmp_path / "edited.json").write_text(json.dumps(content))
    with fails(message):
        report([made / "net.int8.onnx"], output=tmp_path / "r.html", add=[tmp_path / "edited.json"])


def test_what_is_no_json_object_is_no_calibration(made: Path, tmp_path: Path) -> None:
    for text in ("", "[1]", "x {}"):
        (tmp_path / "odd.json").write_text(text)
        with fails("odd.json' is no JSON object, expected a report or a plan"):
            report([made / "net.int8.onnx"], output=tmp_path / "r.html", add=[tmp_path / "odd.json"])


def test_a_histogram_s_outlines(draw_values: Callable[[Any], Histogram]) -> None:
    """All mass stays; what lies beyond an end is in the end's cell."""
    h = draw_values(np.linspace(-1, 3, 4000))
    whole, clipped = drawing.draw_histogram(h, None), drawing.draw_histogram(h, (0.0, 2.0))
    assert whole is not None and clipped is not None
    assert whole.float_path == whole.int8_path
    assert clipped.float_path != clipped.int8_path
    assert clipped.ends == (60.0, 180.0)  # of 240 pixels for -1 to 3
    assert drawing.draw_histogram(draw_values(np.ones(3)), None) is None


@pytest.fixture
def draw_values() -> Callable[[Any], Histogram]:
    from fcdeploy.arithmetic.histogram import HistogramBuilder

    def build(values: Any) -> Histogram:
        builder = HistogramBuilder()
        builder.add(np.asarray(values, np.float32).reshape(1, 1, -1))
        return builder.histogram()

    return build


def test_a_graph_s_places() -> None:
    """Each node right of what it reads, and no two in one place."""
    picture = drawing.draw_graph({"a": ["x"], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    places = {name: (x, y) for name, x, y in picture.nodes}
    assert len(set(places.values())) == 5
    assert places["x"][0] < places["a"][0] < places["b"][0] == places["c"][0] < places["d"][0]
    assert len(picture.lines) == 5
    assert picture.width == places["d"][0] + drawing.NODE[0]


class Kept(NamedTuple):
    """What is drawn of a calibration."""

    sample_groups: tuple[dict[str, Any], ...]
    states: dict[str, str] = {}  # noqa: RUF012


def test_memory_over_time_is_an_outline() -> None:
    assert drawing.draw_memory([]) == drawing.draw_memory([0, 0]) == ""
    wide, high = drawing.MEMORY
    path = drawing.draw_memory([10, 40, 20])
    tops = [float(text) for text in re.findall(r"V([0-9.]+)H", path)]
    assert tops == pytest.approx([high - 0.95 * high * share for share in (0.25, 1, 0.5)], abs=0.05)
    assert path.endswith(f"H{wide:.1f}V{high}Z")


@pytest.mark.parametrize("preset", ["torchvision-imagenet", "paddle-ocr-det", "scale-0-1"])
def test_pictures_are_what_the_model_sees(tmp_path: Path, preset: str) -> None:
    """Preprocessing and back: what Pillow reads of the page's PNG are the bytes of the picture that was given."""
    net = Net()
    net.output(net.conv(net.input("x", 3, 32, 32), 3, 4)).save(tmp_path / "m.onnx")
    random, colours = np.random.default_rng(0), {}
    for part in ("a", "b"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for k in range(8):
            colour = random.integers(0, 256, 3)
            Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(tmp_path / "photos" / part / f"{k}.png")
            colours[tuple(colour)] = part
    calibrate(tmp_path / "m.onnx", data=tmp_path / "photos", preprocess=preset, output=tmp_path / "m.calib")
    quantize(
        tmp_path / "m.onnx", calibration=tmp_path / "m.calib", output=tmp_path / "q.onnx", costs="none", floor="none"
    )
    made = report([tmp_path / "q.onnx"], add=[tmp_path / "m.calib"], pictures=5, output=tmp_path / "r.html", force=True)
    page = (tmp_path / "r.html").read_text()
    files = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(files) == 5
    for file in files:
        with Image.open(io.BytesIO(base64.b64decode(file))) as seen:
            pixels = np.asarray(seen)
        assert pixels.shape == (32, 32, 3)
        assert {tuple(row) for row in pixels.reshape(-1, 3)} <= set(colours)
    assert made.values["models"][0]["preprocessing"][0].startswith(f"preprocessing {preset}")
    report([tmp_path / "q.onnx"], add=[tmp_path / "m.calib"], output=tmp_path / "r.html", force=True)
    assert "<img" not in (tmp_path / "r.html").read_text()  # nobody's pictures unless they are asked for
    with fails("--pictures 5: no calibration was given that keeps samples of pictures", "--add MODEL.calib"):
        report([tmp_path / "q.onnx"], pictures=5, output=tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
    for format in ("markdown", "model-explorer"):
        with fails(f"--pictures 5 is for --format html, and not for {format}", "leave --pictures out"):
            report(
                [tmp_path / "q.onnx"], add=[tmp_path / "m.calib"], pictures=5, format=format, output=tmp_path / "none"
            )
    assert not (tmp_path / "none").exists()


HOW = Preprocessing("scale-0-1", "RGB", (), "NCHW")


@pytest.mark.parametrize(
    ("shapes", "how", "count"),
    [
        ({"x": (3, 8, 8)}, HOW, 4),
        ({"x": (3, 8, 8)}, None, 4),
        ({"x": (8, 8, 3)}, None, 4),
        ({"x": (1, 40, 98)}, None, 0),  # a spectrogram
        ({"x": (1, 8, 8)}, replace(HOW, colour="gray"), 4),
        ({"x": (1, 8, 8)}, HOW, 0),  # it is of another input
        ({"x": (8, 8, 3)}, HOW, 0),
        ({"x": (1, 8, 8), "y": (3, 8, 8)}, HOW, 0),  # which of them nobody said
        ({"x": (1, 40, 98), "y": (3, 8, 8)}, None, 4),
        ({"x": (16,)}, HOW, 0),
    ],
)
def test_only_what_is_known_to_be_a_picture_is_drawn(
    shapes: dict[str, tuple[int, ...]], how: Preprocessing | None, count: int
) -> None:
    kept = {name: np.random.default_rng(0).random((4, *shape)).astype(np.float32) for name, shape in shapes.items()}
    drawn = sample_pictures.draw_samples(Kept((kept,)), how, 5)  # type: ignore[arg-type]
    assert len(drawn) == count
    if not count:
        return
    picture = next(array for array in kept.values() if array.shape[-1] == 3 or array.shape[1] == 3 or len(kept) == 1)
    assert drawn == [sample_pictures.write_address(sample_pictures.restore_pixels(each, how)) for each in picture]
    picture[1, 0, 0, 0], picture[2, 0, 0, 1] = np.nan, np.inf
    left = sample_pictures.draw_samples(Kept((kept,)), how, 5)  # type: ignore[arg-type]
    assert left == [drawn[0], drawn[3]]


def test_states_of_a_stream_are_no_pictures() -> None:
    kept = {"state": np.ones((4, 3, 8, 8), np.float32), "x": np.ones((4, 3, 6, 6), np.float32)}
    for how in (HOW, None):
        drawn = sample_pictures.draw_samples(Kept((kept,), {"state": "out"}), how, 5)  # type: ignore[arg-type]
        pictures = [sample_pictures.restore_pixels(each, how) for each in kept["x"]]
        assert drawn == [sample_pictures.write_address(each) for each in pictures]


def test_large_pictures_are_made_smaller() -> None:
    sample = np.random.default_rng(0).random((1, 300, 224)).astype(np.float32)
    pixels = sample_pictures.restore_pixels(sample, replace(HOW, colour="gray"))
    assert pixels.shape == (100, 74, 1)
    with Image.open(io.BytesIO(sample_pictures.encode_png(pixels))) as seen:
        np.testing.assert_array_equal(np.asarray(seen), pixels[..., 0])


def test_classes_of_the_confusion_matrix_have_their_names(made: Path, tmp_path: Path) -> None:
    proof = json.loads((made / "validate.json").read_text())
    (tmp_path / "v.json").write_text(json.dumps({**proof, "classes": ["ant", "bee", "<cow>", "dog"]}))
    report([made / "net.int8.onnx"], add=[tmp_path / "v.json"], output=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    for name in ("ant", "bee", "&lt;cow&gt;", "dog"):
        assert f'<th scope="row">{name}</th>' in page and f'<th scope="col" class="num">{name}</th>' in page
