"""Pages in a headless Chromium, wide and narrow, light and dark: nothing leaves, nothing is cut off, axe finds nothing.

scripts/pages fetches axe and keeps the pictures; without a Chromium there is nothing to look with.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import AXE, Browser, Page, find_chromium
from colour_models import make_colour_classifier
from networks import Net
from PIL import Image
from servers import serving

from fcdeploy.commands.bench import bench
from fcdeploy.commands.bundle import bundle
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.report import report
from fcdeploy.commands.validate import validate

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ["PAGES"]) if "PAGES" in os.environ else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a bundle with everything that can be said of it."""
    folder = tmp_path_factory.mktemp("report")
    net = Net()
    y = net.op("Flatten", net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8, name="first"), name="relu"))
    net.outputs = [net.op("Gemm", y, net.constant(net.normal(512, 4, size=0.1)), name="last")]
    net.save(folder / "net.onnx")
    random = np.random.default_rng(1)
    images = random.normal(size=(60, 4, 8, 8)).astype(np.float32)
    np.savez(folder / "train.npz", x=images[:20])
    np.savez(folder / "held.npz", x=images[20:], label=random.integers(0, 4, 40))
    int8, both = folder / "net.int8.onnx", {"against": folder / "net.onnx"}
    calibrate(folder / "net.onnx", data=folder / "train.npz", output=folder / "net.calib")
    quantize(folder / "net.onnx", calibration=folder / "net.calib", output=int8, costs="none", floor="none",
             save_plan=folder / "plan.json")  # fmt: skip
    proof = validate(int8, data=folder / "held.npz", max_drop=90, layers=True, **both)
    times = bench(int8, seconds=0.05, per_node=True, **both)
    for name, made in (("validation", proof), ("bench", times)):
        (folder / f"{name}.json").write_text(json.dumps(made.to_json()))
    bundle(int8, output=folder / "net.fcd", plan=folder / "plan.json", validation=folder / "validation.json",
           bench=folder / "bench.json", calibration=folder / "net.calib")  # fmt: skip
    report([folder / "net.fcd"], add=[folder / "net.calib"], output=folder / "net.html")
    return folder / "net.html"


def look(page: Page, width: int, own: str) -> None:
    """What holds of every page: it asks nothing of others, nothing is wider than the window, and nobody complains."""
    assert all(address.startswith((own, "data:", "blob:")) for address in page.list_requests())
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.list_errors() == []
    if AXE.exists():
        assert page.check_accessibility() == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS, ids=str)
def test_a_report(browser: Browser, page_file: Path, pictures: Path, width: int, scheme: str) -> None:
    with browser.open(page_file.as_uri(), width, scheme) as page:
        look(page, width, page_file.as_uri())
        background = page.run("getComputedStyle(document.body).backgroundColor")
        levels = [int(part) for part in background.strip("rgba()").split(",")[:3]]
        assert (sum(levels) > 384) == (scheme == "light"), background
        page.take_picture(pictures / f"report-{width}-{scheme}.png")
        if width == 1280:
            page.print_pdf(pictures / f"report-{scheme}.pdf")
            assert (pictures / f"report-{scheme}.pdf").read_bytes().startswith(b"%PDF-")
    with Image.open(pictures / f"report-{width}-{scheme}.png") as seen:
        assert seen.width == width
        assert len(np.unique(np.asarray(seen.convert("L")))) > 20  # letters and lines


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose model knows six colours by name."""
    folder = tmp_path_factory.mktemp("served")
    colours = make_colour_classifier(folder / "m.onnx", 3, "normal")
    for at, name in enumerate(("apple", "berry", "corn", "date", "egg", "fig")):
        (folder / "train" / name).mkdir(parents=True)
        for k in range(3):
            draw_picture(folder / "train" / name / f"{k}.png", colours[at], k)
    calibrate(folder / "m.onnx", data=folder / "train", output=folder / "c.calib", preprocess="torchvision-imagenet")
    quantize(
        folder / "m.onnx",
        calibration=folder / "c.calib",
        output=folder / "fruit.int8.onnx",
        floor="none",
        effort="fast",
    )
    bundle(folder / "fruit.int8.onnx", output=folder / "fruit.fcd")
    with serving(folder / "fruit.fcd") as server:
        yield f"http://127.0.0.1:{server.port}/"


def draw_picture(path: Path, colour: np.ndarray, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 9, (40, 40, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(255 * colour + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    path.write_bytes(file.getvalue())


@pytest.mark.parametrize(("width", "scheme"), VIEWS, ids=str)
def test_a_picture_on_the_server_s_page(
    browser: Browser, address: str, pictures: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    colours = make_colour_classifier(tmp_path / "m.onnx", 3, "normal")
    draw_picture(tmp_path / "what is this.png", colours[2], 77)
    with browser.open(address, width, scheme) as page:
        page.wait_for("document.getElementById('model').options.length === 1")
        page.choose_files("#file", tmp_path / "what is this.png")
        page.wait_for("document.querySelector('figure table tr:last-child')?.textContent.includes('ms in all')")
        rows = page.run("[...document.querySelectorAll('figure table tr')].map(row => row.cells[0].textContent)")
        assert rows[0] == "corn"
        assert len(rows) == 6  # five classes and the time
        look(page, width, address)
        page.take_picture(pictures / f"classify-{width}-{scheme}.png")
