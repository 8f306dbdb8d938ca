"""LSTM slot tagger: the words of a request -> what each is for, 404,955 parameters; sentences of any length.

Source: K. Yao, B. Peng, Y. Zhang, D. Yu, G. Zweig, Y. Shi, "Spoken Language Understanding Using Long Short-Term Memory
Neural Networks", IEEE SLT 2014: an embedding, one LSTM layer of 300 units, a dense layer for every word.  The requests
are drawn (drawn.py).
"""

from __future__ import annotations

import torch
from torch import nn

WORDS, EMBEDDING, UNITS, SLOTS = 64, 32, 300, 7


class LstmTagger(nn.Module):
    """`tokens` (batch, time) int64, 0 to 63 -> scores (batch, time, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, SLOTS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        return self.output(states)


def lstm_tagger() -> nn.Module:
    """The network with random weights, ready for inference."""
    return LstmTagger().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"tokens": torch.zeros(1, 20, dtype=torch.int64)}
