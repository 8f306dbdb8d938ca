"""Preprocessing against the originals: how many of 400 pictures of odd sizes differ by a bit.

pip install --no-deps --target PACKAGES torchvision==0.28.0 opencv-python-headless==5.0.0.93 timm==1.0.31
python -m scripts.pictures.compare_preprocessing PACKAGES [N]

The operators that torchvision's wheel compiles want CUDA; its transforms use none, so only their names are declared.
"""

from __future__ import annotations

import io
import math
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fcdeploy.preprocessing.apply import read_picture
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.signature import TensorSpec

Original = Callable[[bytes], np.ndarray]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPECIAL = [
    (224, 224),
    (256, 256),
    (448, 448),
    (1, 50),
    (257, 256),
    (259, 300),
    (640, 640),
    (1280, 1280),
    (48, 97),
    (333, 2000),
]
COMPOSE = """
import torch
from torchvision import transforms
from torchvision.models import EfficientNet_B0_Weights
from torchvision.transforms import v2
MEAN = [0.485, 0.456, 0.406]
plain = transforms.Compose([
    transforms.Resize(232, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop((224, 200)),
    transforms.Pad((3, 1), fill=7), transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=[0.2, 0.3, 0.4])])
def weights():
    return EfficientNet_B0_Weights.DEFAULT.transforms()
gray = v2.Compose([v2.Resize((96, 128)), v2.Grayscale(), v2.PILToTensor(),
    v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])])
late = v2.Compose([v2.PILToTensor(), v2.CenterCrop(300), v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])])
longest = v2.Compose([v2.Resize(100, max_size=150), v2.CenterCrop(160), v2.ToTensor()])
"""


def make_pictures(count: int) -> list[bytes]:
    """Smooth pictures as PNG and JPEG, gray, with alpha, and turned by EXIF."""
    random = np.random.default_rng(18)
    made = []
    for at in range(count):
        height, width = SPECIAL[at // 10 % 10] if at % 10 == 0 else map(int, random.integers(17, 700, 2))
        coarse = random.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if at % 6 == 3:
            exif[0x0112] = int(random.integers(1, 9))
        file = io.BytesIO()
        mode = {1: "L", 2: "RGBA"}.get(at % 6, "RGB")
        picture.convert(mode).save(file, "PNG" if at % 6 in (0, 2) else "JPEG", quality=90, exif=exif)
        made.append(file.getvalue())
    return made


def with_pillow(transform: Any) -> Original:
    """As torchvision's ImageFolder opens a file."""
    return lambda file: transform(Image.open(io.BytesIO(file)).convert("RGB")).numpy()


def make_opencv_originals(cv2: Any) -> dict[str, Original]:
    """The published functions of Ultralytics and PaddleOCR, on OpenCV."""

    def decode(file: bytes) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[no-any-return]

    def letterbox(file: bytes) -> np.ndarray:
        image = decode(file)
        rows, columns = image.shape[:2]
        ratio = min(640 / rows, 640 / columns)
        new = (round(columns * ratio), round(rows * ratio))
        dw, dh = (640 - new[0]) / 2, (640 - new[1]) / 2
        if (columns, rows) != new:
            image = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR)
        ends = round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1)
        image = cv2.copyMakeBorder(image, *ends, cv2.BORDER_CONSTANT, value=(114,) * 3)
        return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float().div(255).numpy()

    def detection(file: bytes) -> np.ndarray:
        image = decode(file)
        ratio = 960 / max(image.shape[:2]) if max(image.shape[:2]) > 960 else 1.0
        rows, columns = (max(round(int(side * ratio) / 32) * 32, 32) for side in image.shape[:2])
        image = cv2.resize(image, (columns, rows)).astype("float32")
        mean, std = (np.array(row).reshape(1, 1, 3).astype("float32") for row in (MEAN, STD))
        return ((image * np.float32(1.0 / 255.0) - mean) / std).transpose(2, 0, 1)  # type: ignore[no-any-return]

    def recognition(file: bytes) -> np.ndarray:
        image = decode(file)
        width = min(320, math.ceil(48 * (image.shape[1] / float(image.shape[0]))))
        line = cv2.resize(image, (width, 48)).astype("float32").transpose(2, 0, 1) / 255
        line -= 0.5
        line /= 0.5
        whole = np.zeros((3, 48, 320), np.float32)
        whole[:, :, :width] = line
        return whole

    return {"yolo-letterbox": letterbox, "paddle-ocr-det": detection, "paddle-ocr-rec": recognition}


def import_torchvision(packages: Path) -> None:
    sys.path.insert(0, str(packages))
    source = (packages / "torchvision" / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', source))):
        library.define(f"{name}(Tensor a) -> Tensor")
    globals()["kept"] = library  # its names go when it does
    import torchvision  # noqa: F401


def main() -> None:
    """Print a line for each original."""
    packages, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 400
    import_torchvision(packages)
    import cv2
    from timm.data import create_transform
    from torchvision import transforms
    from torchvision.models import ResNet18_Weights

    files = make_pictures(count)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "compose.py"
        script.write_text(COMPOSE)
        scope: dict[str, Any] = {}
        exec(COMPOSE, scope)
        sizes = {"plain": (3, 226, 206), "weights": (3, 224, 224), "gray": (1, 96, 128), "late": (3, 300, 300)}
        sizes["longest"] = (3, 160, 160)
        usual = create_transform(input_size=(3, 224, 224), interpolation="bicubic", crop_pct=0.875)
        cases = [
            ("torchvision-imagenet", with_pillow(ResNet18_Weights.IMAGENET1K_V1.transforms()), (3, 224, 224)),
            ("timm", with_pillow(usual), (3, 224, 224)),
            ("scale-0-1", with_pillow(transforms.Compose([transforms.Resize((64, 80)), transforms.ToTensor()])), (3, 64, 80)),
            *((name, make, {"yolo-letterbox": (3, 640, 640), "paddle-ocr-rec": (3, 48, 320)}.get(name, (3, None, None)))
              for name, make in make_opencv_originals(cv2).items()),
            *((f"{script}:{name}", with_pillow(scope[name]() if name == "weights" else scope[name]), size)
              for name, size in sizes.items()),
        ]  # fmt: skip
        for name, original, size in cases:
            spec = TensorSpec("x", np.dtype(np.float32), (None, *size))
            how = read_preprocessing(name, spec)
            differ = sum(not np.array_equal(original(file), read_picture(file, how, spec)[0]) for file in files)
            sys.stdout.write(f"{Path(name).name:24} {differ} of {count} differ\n")


if __name__ == "__main__":
    main()
