"""Where the weights lie in a checkpoint that also holds other objects, found without running anything of the file.

Whatever class or function such a file names, an empty one stands for it: nothing is imported, called or computed.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fcdeploy.pytorch.checkpoint import AVERAGED, DEEPEST

HEADS = 3  # pickles in front of the content, in files of torch.save before 1.6: a number, a version, a system
DICTS = {"OrderedDict", "defaultdict"}
TENSOR = "_rebuild_"  # what torch calls the functions that make a tensor, or a parameter, begins so


class _Object:
    """An object of the file, of which only the state is known."""

    state: object = None  # where nothing sets it; __init__ is not always called

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *_: object, **__: object) -> _Object:
        return _Object()

    def __setitem__(self, *_: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    def extend(self, _: object) -> None:
        pass


class _Tensor(_Object):
    pass


class _Dict(dict[Any, Any]):
    """A dict of any class, filled item by item."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, _: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, _: str, name: str) -> Any:
        return _Dict if name in DICTS else _Tensor if name.startswith(TENSOR) else type(name, (_Object,), {})

    def persistent_load(self, saved: Any) -> Any:
        return (
            saved[1] if saved[0] == "module" else _Object()
        )  # a module's class beside its source; or a tensor's numbers


def find_state(path: Path) -> str:
    """Python for the state dict in `checkpoint`, what torch.load of the file gives; empty where none can be found."""
    try:
        content = _read(path)
        places = list(_list_states(content, "checkpoint"))
    except Exception:  # a damaged file may make anything fail, and the caller says that it is damaged
        return ""
    averaged = tuple(f"checkpoint[{key!r}]" for key in AVERAGED)
    return max(places, key=lambda place: (place[1], place[0].startswith(averaged)), default=("", 0))[0]


def _read(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(HEADS):
                _Unpickler(file).load()
            return _Unpickler(file).load()
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            return _Unpickler(file).load()


def _list_states(content: Any, place: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Every state dict as Python for it, and how many tensors with a name are in it; of a module, that it can be asked for."""
    if isinstance(content, _Object) and isinstance(content.state, Mapping) and "_parameters" in content.state:
        yield f"{place}.state_dict()", _count_parameters(content.state)
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    tensors = sum(isinstance(name, str) and isinstance(value, _Tensor) for name, value in content.items())
    if tensors == len(content):
        yield place, tensors
    elif tensors:
        yield f"{{name: one for name, one in {place}.items() if torch.is_tensor(one)}}", tensors
    for name, value in content.items():
        if isinstance(name, str | int):
            yield from _list_states(value, f"{place}[{name!r}]", depth + 1)


def _count_parameters(state: Mapping[Any, Any]) -> int:
    """The parameters and buffers of a module and of those in it."""
    own = sum(isinstance(one, _Tensor) for key in ("_parameters", "_buffers") for one in state.get(key, {}).values())
    inner = (module.state for module in state.get("_modules", {}).values() if isinstance(module, _Object))
    return own + sum(_count_parameters(each) for each in inner if isinstance(each, Mapping))
