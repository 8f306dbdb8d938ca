"""Train the reference networks on handwritten digits: `python -m models.train [NETWORK ...]`, or `scripts/train`.

Those of other data are passed on to train_families.py.  Writes models/NETWORK.safetensors and the network's row in
models/README.md.  One thread and fixed seeds: the same CPU
and torch give the same weights again.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from calib_data.make import Digits, split
from models import train_families

FOLDER = Path(__file__).parent
BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; `size` is the side of its square images, whatever shape it takes them in."""

    name: str
    task: str
    size: int
    flat: bool
    epochs: int
    rate: float  # the highest learning rate of the one-cycle schedule (L. Smith, arXiv:1708.07120)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("lenet5", "digits, 10 classes", size=32, flat=False, epochs=50, rate=4e-3),
        Recipe("dense", "digits, 10 classes", size=8, flat=True, epochs=80, rate=1e-2),
        Recipe("resnet", "digits, 10 classes", size=32, flat=False, epochs=16, rate=1e-2),
    )
}


def train(recipe: Recipe, digits: Digits) -> nn.Module:
    """The trained network, in eval mode."""
    torch.manual_seed(0)
    network = build(recipe)().train()
    images = as_images(recipe, digits)
    label = torch.from_numpy(digits.label)
    steps = len(label) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    for _ in track(range(recipe.epochs), description=recipe.name):
        for chosen in batches(len(label)):
            x = augment(images[chosen])
            logits = network(x.flatten(1) if recipe.flat else x)
            loss = functional.cross_entropy(logits, label[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def build(recipe: Recipe) -> Callable[[], nn.Module]:
    """The function that makes the network with random weights."""
    return getattr(importlib.import_module(f"models.{recipe.name}"), recipe.name)


def as_images(recipe: Recipe, digits: Digits) -> torch.Tensor:
    """(count, 1, size, size)."""
    return torch.from_numpy(digits.images() if recipe.size == 32 else digits.pixels.reshape(-1, 1, 8, 8))


def batches(count: int) -> Iterator[torch.Tensor]:
    """Shuffled indices, whole batches only: batch normalization is noisy on small ones."""
    order = torch.randperm(count)
    return iter(order[: count // BATCH * BATCH].split(BATCH))


def augment(images: torch.Tensor) -> torch.Tensor:
    """Each image turned by up to 9 degrees, scaled by up to 10 % and shifted by up to 5 % of its side."""
    count = len(images)
    angle, size, dx, dy = (
        (torch.rand(count) * 2 - 1) * most + middle for middle, most in ((0, np.pi / 20), (1, 0.1), (0, 0.1), (0, 0.1))
    )
    rows = (size * angle.cos(), -size * angle.sin(), dx, size * angle.sin(), size * angle.cos(), dy)
    grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@torch.inference_mode()
def count_right(recipe: Recipe, network: nn.Module, digits: Digits) -> int:
    """How many digits are classified right."""
    images = as_images(recipe, digits)
    answer = network(images.flatten(1) if recipe.flat else images).argmax(1)
    return int((answer == torch.from_numpy(digits.label)).sum())


def write_row(recipe: Recipe, network: nn.Module, right: int, count: int) -> None:
    """Replace the network's row in the README's table."""
    name = recipe.name
    shape = str(recipe.size**2) if recipe.flat else f"1x{recipe.size}x{recipe.size}"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    said = f"{right} ({right / count:.1%})"
    row = f"| {name} | [{name}.py]({name}.py) | {parameters:,} | {shape} | {recipe.task} | {said} |"
    readme = FOLDER / "README.md"
    text = readme.read_text()
    readme.write_text(re.sub(rf"^\| {name} \|.*$", row, text, count=1, flags=re.MULTILINE))


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    training, evaluation = split()
    others = [name for name in names if name not in RECIPES]
    for name in [name for name in names if name in RECIPES] or (RECIPES if not names else ()):
        recipe = RECIPES[name]
        network = train(recipe, training)
        right = count_right(recipe, network, evaluation)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        path = FOLDER / f"{name}.safetensors"
        save_file(state, path, metadata={"network": f"models/{name}.py:{name}", "torch": torch.__version__})
        path.chmod(0o644)
        write_row(recipe, network, right, len(evaluation.label))
        print(f"{name}: {right} of {len(evaluation.label)} held-out digits right, {path}")  # noqa: T201
    if others or not names:
        train_families.main(others)


if __name__ == "__main__":
    main(sys.argv[1:])
