"""Modules to export, and how tests run what is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fcdeploy.commands.export import export
from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.session import Session


class Convolutional(nn.Module):
    """What networks are made of, with random weights and statistics that are not the initial ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(8, 5)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.conv(x)))
        x = nn.functional.hardtanh(self.depthwise(x), 0, 6)
        return self.dense(self.drop(x.mean((2, 3)))).softmax(1)


class Several(nn.Module):
    """Two inputs of different types, three outputs, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.dense = nn.Linear(6, 3)

    def forward(self, features: Any, tokens: Any) -> dict[str, Any]:
        found = self.table(tokens).mean(1)  # (batch, 4)
        logits = self.dense(features)
        return {"logits": logits, "parts": (found, torch.cat([found, logits], 1)), "nothing": None}


class Tagger(nn.Module):
    """A two-way LSTM over any length: an answer for every step, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.dense = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        y, (state, _) = self.lstm(x)
        return self.dense(self.gru(y)[0]), state


class Noisy(nn.Module):
    def forward(self, x: Any) -> Any:
        return x, x + torch.rand_like(x)


class TwoFaced(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * (2 if torch.compiler.is_exporting() else 1)


class Masked(nn.Module):
    """What the hint on pack_padded_sequence shows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        y, _ = self.lstm(x)
        return y * (torch.arange(y.shape[1]) < lengths[:, None])[..., None]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        lengths = torch.full((x.shape[0],), 3)
        return self.lstm(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x


def run(path: Path, **feeds: Any) -> list[np.ndarray]:
    return Session(path).run({name: tensor.numpy() for name, tensor in feeds.items()})


def assert_same(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def fails(match: str, hint: str, **arguments: Any) -> FcdeployError:
    """Run export, expect an error with this message (whole, a pattern) and a hint that contains that text."""
    with pytest.raises(FcdeployError) as caught:
        export(**arguments)
    assert re.fullmatch(match, caught.value.message, re.DOTALL), caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    return caught.value
