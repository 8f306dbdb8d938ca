"""Which tensors of a checkpoint are a module's: below which key of the file, and behind which prefix of their names.

Training code keeps weights beside the optimizer's state and much else, under keys of its own ("state_dict", "model", "net",
"ema"), and wrappers put a word before each name ("module." by DataParallel, "_orig_mod." by torch.compile, "model." by
Lightning).  So every dict of tensors in the file is looked at, with every prefix behind which all of the module's own
names are found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

DEEPEST = 3  # dicts within dicts
AVERAGED = ("ema", "model_ema", "state_dict_ema", "params_ema", "ema_state_dict")
"""Keys of averaged weights, which training code evaluates with where it has them."""
COMPILED = "_orig_mod."  # torch.compile puts it wherever a module was compiled


@dataclass(frozen=True)
class FoundState:
    """A dict of tensors in a checkpoint: its key (dotted, "" for the file itself), the prefix taken off, the tensors."""

    key: str
    prefix: str
    tensors: Mapping[str, torch.Tensor]

    @property
    def where(self) -> str:
        """In words."""
        parts = [f"key {self.key!r}"] if self.key else []
        parts += [f"prefix {self.prefix!r}"] if self.prefix else []
        return " and ".join(parts) or "the file itself"


def find_states(content: Any, own: Collection[str]) -> list[FoundState]:
    """Every place of a checkpoint that holds all of a module's tensors: averaged ones first, then in the file's order.

    `own` are the names in the module's state dict.  Of one dict the shortest prefix counts.
    """
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    states = []
    for key, tensors in list_dicts(content):
        fitting = [_strip(tensors, prefix) for prefix in _prefixes(tensors, needed)]
        fitting = [(prefix, part) for prefix, part in fitting if needed <= set(part)]
        if fitting:
            prefix, part = min(fitting, key=lambda pair: len(pair[0]))
            states.append(FoundState(key, prefix, part))
    return sorted(states, key=lambda state: state.key.split(".")[0] not in AVERAGED)


def list_dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Every dict with tensors in it, by its key; names without what torch.compile put into them."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield key, {name.replace(COMPILED, ""): value for name, value in tensors.items()}
    for name, value in content.items():
        yield from list_dicts(value, f"{key}.{name}" if key else str(name), depth + 1)


def _prefixes(tensors: Mapping[str, torch.Tensor], needed: Collection[str]) -> list[str]:
    """What may stand in front of the module's names: of one of them, all that is in front of it anywhere."""
    if not needed:
        return [""]
    first = min(needed)
    return [name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")]


def _strip(tensors: Mapping[str, torch.Tensor], prefix: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The tensors behind a prefix, their names without it."""
    return prefix, {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
