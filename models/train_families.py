"""Train the networks of families.py: `python -m models.train_families [NETWORK ...]`, or `scripts/train`.

Writes models/NETWORK.safetensors, in half precision: what a network loses by that is far below what training leaves
open, and the files are half as large.  One thread and fixed seeds: the same CPU and torch give the same weights again.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from fcdeploy.user_code import load_file, load_function

FOLDER = Path(__file__).parent
BATCH = 32
CALM = 64  # batches whose statistics are averaged at the end
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Tensors = Mapping[str, torch.Tensor]


def train(family: Any) -> nn.Module:
    """The trained network, in eval mode, its weights as they are shipped."""
    torch.manual_seed(0)
    build, namespace = load_function(str(FOLDER.parent / family.function))
    network = fresh(build()).train()
    data = tensors(family.draw(family.train, load_file(FOLDER / "families.py").TRAINING))
    inputs = list(namespace.example_inputs())
    count = len(data[inputs[0]])
    steps = count // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=family.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, family.rate, total_steps=family.epochs * steps)
    for _ in track(range(family.epochs), description=family.name):
        for chosen in torch.randperm(count)[: steps * BATCH].split(BATCH):
            batch = {name: values[chosen] for name, values in data.items()}
            total = loss(network(**{name: batch[name] for name in inputs}), batch)
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    settle(network, [{name: data[name][i : i + BATCH] for name in inputs} for i in range(0, count - BATCH + 1, BATCH)])
    return network.eval().half().float()


def fresh(network: nn.Module) -> nn.Module:
    """Torch's own initial weights: networks that are timed come with random ones made for that."""
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, NORMS):
            module.momentum = 0.1
    return network


@torch.no_grad()
def settle(network: nn.Module, batches: list[Tensors]) -> None:
    """Batch normalization's means and variances once more, of the final weights."""
    norms = [module for module in network.eval().modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches[:CALM] if norms else []:
        network(**batch)


def loss(answer: Any, batch: Tensors) -> torch.Tensor:
    """What fits the labels: cross entropy for classes, of pixels and words too, squared errors for numbers and boxes."""
    if isinstance(answer, tuple):  # an auxiliary head counts 0.3 (arXiv:1409.4842)
        return loss(answer[0], batch) + 0.3 * loss(answer[1], batch)
    if isinstance(answer, dict):
        box = functional.smooth_l1_loss(answer["box"], batch["label.box"], beta=0.05)
        return functional.cross_entropy(answer["scores"], batch["label.scores"]) + 10 * box
    label = batch["label"]
    if label.is_floating_point():
        return functional.mse_loss(answer, label)
    if answer.shape[1:] == (1, *label.shape[1:]):
        return functional.binary_cross_entropy_with_logits(answer[:, 0], label.float())
    return functional.cross_entropy(answer.flatten(0, -2), label.flatten())  # -100 is left out


def tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@torch.inference_mode()
def score(family: Any, network: nn.Module) -> str:
    """What the network reaches on its evaluation samples, in words."""
    data = tensors(family.evaluation())
    scores = load_file(FOLDER / "scores.py")
    inputs = [name for name in data if name in load_function(str(FOLDER.parent / family.function))[1].example_inputs()]
    answer = network(**{name: data[name] for name in inputs})
    if isinstance(answer, dict):
        right = (answer["scores"].argmax(1) == data["label.scores"]).float().mean()
        overlap = scores.box_iou({"box": answer["box"].numpy()}, {"label.box": data["label.box"].numpy()}).mean()
        return f"{right:.1%}, IoU {overlap:.3f}"
    label = data["label"]
    if "unusual" in data:
        errors = (answer - label).square().mean(1).numpy()
        return f"AUC {scores.auc(errors, data['unusual'].numpy()):.3f}"
    if label.is_floating_point():
        return f"RMSE {(answer - label).square().mean().sqrt():.4f}"
    if family.metric:
        return f"IoU {scores.mask_iou({'output': answer.numpy()}, {'label': label.numpy()}).mean():.3f}"
    counted = label != -100
    return f"{(answer.argmax(-1) == label)[counted].float().mean():.1%}"


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    families = load_file(FOLDER / "families.py").FAMILIES
    for name in names or families:
        began = time.process_time()
        family = families[name]
        network = train(family)
        state = {
            key: value.half().contiguous() for key, value in network.state_dict().items() if "num_batches" not in key
        }
        path = FOLDER.parent / family.weights
        save_file(state, path, metadata={"network": family.function, "torch": torch.__version__})
        path.chmod(0o644)
        said = score(family, network)
        write_row(family, sum(parameter.numel() for parameter in network.parameters()), said)
        seconds = time.process_time() - began
        print(f"{name}: {said}, {path.stat().st_size / 1000:.0f} kB, {seconds:.0f} s of CPU", flush=True)  # noqa: T201


def write_row(family: Any, parameters: int, said: str) -> None:
    """Replace the network's row in the README's table."""
    file = family.source.partition(":")[0] or f"{family.name}.py"
    row = f"| {family.name} | [{file}]({file}) | {parameters:,} | {family.task} | {said} |"
    readme = FOLDER / "README.md"
    text = readme.read_text()
    readme.write_text(re.sub(rf"^\| {family.name} \|.*$", row, text, count=1, flags=re.MULTILINE))


if __name__ == "__main__":
    main(sys.argv[1:])
