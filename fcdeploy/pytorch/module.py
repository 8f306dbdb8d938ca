"""A PyTorch module as it comes from a user: built by a function, with weights from a file and inputs to try it on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.pytorch.checkpoint import FoundState, find_states, list_dicts
from fcdeploy.pytorch.unsafe_checkpoint import find_state
from fcdeploy.user_code import load_function, user_code
from fcdeploy.wording import list_some, quote_path, say_count

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
COLOURS = (3, 4)  # channels of a picture
INPUT_HINT = "--input 1,3,32,32 or --input NAME:1,16:int64; an axis of any length is LETTERS=LENGTH, as in 1,time=50,8"
UNSAFE = re.compile(
    r"Unsupported (?:global: GLOBAL|class) ([\w.]+)"
)  # in what torch.load says of other things than tensors
SAVE_STATE = "torch.save(module.state_dict(), 'weights.pt') writes one that does"


class FinalError(FcdeployError):
    """An error that stays when the module is exported with fixed shapes instead of free ones."""


@dataclass(frozen=True)
class Input:
    """One input: its ONNX name, the parameter of `forward` it is for (None: by position), an example, its free axes."""

    name: str
    parameter: str | None
    example: torch.Tensor
    free: dict[int, str]  # axis -> what its length is called

    def resize(self, lengths: Mapping[str, int]) -> torch.Tensor:
        """The example with its free axes at these lengths, repeated or cut."""
        tensor = self.example
        for axis, name in self.free.items():
            if name in lengths and lengths[name] != tensor.shape[axis]:
                tensor = tensor.index_select(axis, torch.arange(lengths[name]) % tensor.shape[axis])
        return tensor.contiguous()


def build_module(reference: str) -> tuple[nn.Module, ModuleType]:
    """What FILE.py:FUNCTION returns, and the file as a module."""
    function, namespace = load_function(reference)
    if isinstance(function, nn.Module):
        name = reference.rpartition(":")[2]
        raise FcdeployError(
            f"{reference} is a {type(function).__name__}, expected a function that returns one",
            f"write one into the file: def network(): return {name}",
        )
    with user_code(f"{reference} fails"):
        module = function()
    if not isinstance(module, nn.Module):
        hint = f"let {reference.rpartition(':')[2]} return the network itself, as an object"
        raise FcdeployError(
            f"{reference} returns a value of type {type(module).__name__}, expected a torch.nn.Module", hint
        )
    return module, namespace


def load_state(module: nn.Module, path: Path) -> str:
    """Put the weights of a checkpoint (.safetensors, or torch.save) into the module; nothing is unpickled.

    They may lie below any key and behind any prefix; FILE:KEY names the key.  Returns what to say where there was a choice.
    """
    path, wanted = _split_key(path)
    content = _read_checkpoint(path)

    own = module.state_dict()
    candidates = find_states(content, own)
    if wanted:
        candidates = [state for state in candidates if state.key == wanted]
    if not candidates:
        raise _explain_no_state(path, content, own, wanted)
    state = candidates[0]

    unexpected = [state.prefix + key for key in state.tensors if key not in own]
    if unexpected:
        raise FcdeployError(
            f"weights {str(path)!r}: has {_format_keys(unexpected)} that the module has not",
            "train and export the same network",
        )

    tensors = {key: value for key, value in state.tensors.items() if key in own}
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise FcdeployError(
                f"weights {str(path)!r}: {key!r} has shape {list(value.shape)}, expected {list(own[key].shape)}",
                "train and export the same network",
            )
    module.load_state_dict(tensors, strict=False)

    others = [other for other in candidates[1:] if not _same_tensors(state, other)]
    if not others:
        return ""
    named = ", ".join(other.where for other in others)
    return f"weights are those of {state.where}; {str(path)!r} has others too: {named} (--state {path}:KEY takes them)"


def _split_key(path: Path) -> tuple[Path, str]:
    """FILE and KEY of FILE:KEY."""
    file, colon, key = str(path).rpartition(":")
    return (Path(file), key) if colon and not path.exists() and Path(file).is_file() else (path, "")


def _same_tensors(a: FoundState, b: FoundState) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors
    )


def _explain_no_state(path: Path, content: Any, own: Mapping[str, torch.Tensor], wanted: str) -> FcdeployError:
    """Why no dict of tensors in a checkpoint is the module's: by the one that has most of its names."""
    dicts = [(key, tensors) for key, tensors in list_dicts(content) if not wanted or key == wanted]
    if not dicts:
        keys = [str(key) for key in content] if isinstance(content, Mapping) else []
        held = f"it holds {_format_keys(keys)}; " if keys else ""
        return FcdeployError(
            f"weights {str(path)!r} hold no state dict, expected name -> tensor", f"{held}{SAVE_STATE}"
        )
    key, tensors = max(dicts, key=lambda pair: len(own.keys() & pair[1].keys()))
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in own]
    parts = [f"misses {_format_keys(missing)}"] if missing else []
    parts += [f"has {_format_keys(unexpected)} that the module has not"] if unexpected else []
    below = f" below key {key!r}" if key else ""
    more = [other for other, _ in dicts if other != key]
    hint = f"it holds tensors below {_format_keys(more)} too; " if more else ""
    return FcdeployError(
        f"weights {str(path)!r}{below}: {', and '.join(parts)}", f"{hint}train and export the same network"
    )


def _read_checkpoint(path: Path) -> Any:
    if not path.is_file():
        raise FcdeployError(f"weights {str(path)!r} do not exist", "--state takes a .safetensors or a torch.save file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FcdeployError(
            f"weights {str(path)!r} cannot be read: {error.strerror or error}", f"ls -l {quote_path(path)}"
        ) from error
    except Exception as error:  # zip, pickle and safetensors errors have no base in common
        held = UNSAFE.search(str(error))
        if held is None:
            why, hint = "the file is damaged or holds more than tensors", SAVE_STATE
        else:  # what such a file names is code, which loading it would run
            why = f"it holds {held[1]!r}, a whole module or other objects, and loading those would run code of the file"
            state = find_state(path) or "checkpoint.state_dict()"
            load = f"checkpoint = torch.load({str(path)!r}, weights_only=False)"
            hint = f"where you trust it: {load}; torch.save({state}, 'weights.pt')"
        raise FcdeployError(f"weights {str(path)!r} cannot be loaded safely: {why}", hint) from error


def read_inputs(
    module: nn.Module, given: Sequence[str | Sequence[int] | torch.Tensor | Array], namespace: ModuleType | None
) -> tuple[Input, ...]:
    """The module's inputs from shapes, tensors or arrays, or from `example_inputs()` of its file, in `forward`'s order."""
    example = getattr(namespace, "example_inputs", None)
    drafts = [_draft_input(item) for item in given] if given else _inputs_from_example(example, namespace)
    for draft in drafts:
        if draft.example.ndim == 0:
            raise FcdeployError(f"input {draft.name or 0!r} has no axes, expected a leading batch axis", INPUT_HINT)
    inputs = _bind_parameters(module, drafts)
    lengths_of(inputs)
    return inputs


def lengths_of(inputs: Sequence[Input]) -> dict[str, int]:
    """The lengths of the free axes in the examples; one name is one length."""
    lengths: dict[str, tuple[int, str]] = {}
    for item in inputs:
        for axis, name in item.free.items():
            length = item.example.shape[axis]
            other, first = lengths.setdefault(name, (length, item.name))
            if other != length:
                raise FcdeployError(
                    f"inputs {first!r} and {item.name!r} differ in the length of {name}: {other} and {length}",
                    "the first axis of every input is the batch; give all the same length",
                )
    return {name: length for name, (length, _) in lengths.items()}


def parse_input(text: str) -> Input:
    """`[NAME:]SHAPE[:DTYPE]`: SHAPE is lengths with commas; `time=50` is an axis of any length, tried with 50."""
    parts = text.split(":")
    name = parts.pop(0) if len(parts) > 1 and re.fullmatch(r"[^\W\d][\w.]*", parts[0]) else ""
    dtype = parts.pop() if len(parts) > 1 else "float32"
    if len(parts) != 1:
        raise FcdeployError(f"input {text!r} is not of the form [NAME:]SHAPE[:DTYPE]", INPUT_HINT)
    if dtype not in DTYPES:
        raise FcdeployError(
            f"input {text!r}: dtype {dtype!r} is unknown, expected one of {', '.join(DTYPES)}", INPUT_HINT
        )

    free, shape = {0: "batch"}, []
    for axis, token in enumerate(parts[0].split(",")):
        match = re.fullmatch(r"\s*(?:(?P<name>[^\W\d]\w*)=)?0*(?P<length>[1-9]\d*)\s*", token)
        if match is None:
            raise FcdeployError(
                f"input {text!r}: {token!r} is no length of axis {axis}, expected a number from 1 up", INPUT_HINT
            )
        if match["name"]:
            free[axis] = match["name"]
        shape.append(int(match["length"]))
    return Input(name, None, _draw(shape, getattr(torch, dtype)), free)


def call_module(module: nn.Module, inputs: Sequence[Input], tensors: Sequence[torch.Tensor]) -> Any:
    """forward(...) without gradients; whatever it raises becomes one error that shows the inputs."""
    args, kwargs = split_arguments(inputs, tensors)
    shapes = ", ".join(
        f"{item.name} {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        for item, tensor in zip(inputs, tensors, strict=True)
    )
    failure = f"{type(module).__name__} raises on {shapes}"
    with torch.no_grad(), user_code(failure, f"{_find_misreading(tensors)}give the shapes it wants: {INPUT_HINT}"):
        return module(*args, **kwargs)


def _find_misreading(tensors: Sequence[torch.Tensor]) -> str:
    """What a module that raises was probably given otherwise than it wants it; empty where nothing looks like that."""
    for tensor in tensors:
        if tensor.ndim == 4 and tensor.shape[3] in COLOURS and tensor.shape[1] not in (1, *COLOURS):
            return "images with their channels last are to be (n, channels, height, width); else "
    if tensors and all(tensor.dtype == torch.uint8 for tensor in tensors):
        return "bytes are to be float32, scaled as in training; else "
    return ""


def split_arguments(inputs: Sequence[Input], values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Values, one per input, as the positional and keyword arguments of `forward`."""
    pairs = list(zip(inputs, values, strict=True))
    args = tuple(value for item, value in pairs if item.parameter is None)
    return args, {item.parameter: value for item, value in pairs if item.parameter is not None}


def flatten_outputs(value: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """The tensors in what `forward` returned, in order, each with where it was: "" alone, "0", "boxes", "state.1"."""
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    if value is None:
        return []
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple | list):
        items = list(zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True))
    else:
        raise FcdeployError(
            f"the module's output {path or 'output'!r} is a {type(value).__name__}, expected tensors",
            "return a tensor, or a tuple or dict of tensors",
        )
    return [pair for key, item in items for pair in flatten_outputs(item, f"{path}.{key}" if path else key)]


def _draft_input(item: str | Sequence[int] | torch.Tensor | Array) -> Input:
    if isinstance(item, str):
        return parse_input(item)
    if isinstance(item, torch.Tensor):
        return Input("", None, item, {0: "batch"})
    if isinstance(item, np.ndarray):
        return Input("", None, torch.from_numpy(np.require(item, requirements="C")), {0: "batch"})
    return parse_input(",".join(str(length) for length in item))


def _inputs_from_example(function: Callable[[], Any] | None, namespace: ModuleType | None) -> list[Input]:
    """Inputs from what `example_inputs()` returns."""
    if function is None:
        where = "no input shapes are given" + (", and the file has no example_inputs()" if namespace else "")
        raise FcdeployError(where, INPUT_HINT)
    with user_code("example_inputs() fails"):
        value = function()
    pairs = list(value.items()) if isinstance(value, Mapping) else []
    if not pairs:
        pairs = [("", item) for item in (value if isinstance(value, tuple | list) else [value])]
    for key, item in pairs:
        if not isinstance(item, torch.Tensor):
            which = f"input {key!r}" if key else "an input"
            raise FcdeployError(
                f"example_inputs(): {which} is a {type(item).__name__}, expected a tensor",
                "return a tensor, a tuple of tensors, or a dict of name -> tensor",
            )
    return [Input(str(key), None, item, {0: "batch"}) for key, item in pairs]


def _bind_parameters(module: nn.Module, drafts: list[Input]) -> tuple[Input, ...]:
    """Give each input a parameter of `forward`: the one of its own name, else the next that is free."""
    parameters = inspect.signature(module.forward).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}:  # they have no names to go by
        return tuple(replace(item, name=item.name or f"input_{i}") for i, item in enumerate(drafts))

    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    named = [key for key, parameter in parameters.items() if parameter.kind in by_name]
    unclaimed = [key for key in named if key not in {item.name for item in drafts}]
    given = f"{say_count(len(drafts), 'input')} {'is' if len(drafts) == 1 else 'are'} given"
    bound = []
    for item in drafts:
        parameter = item.name if item.name in named else next(iter(unclaimed), None)
        if parameter is None:
            takes = ", ".join(parameters) or "nothing"
            raise FcdeployError(f"{given}, forward takes {takes}", "give one --input for each")
        if parameter in unclaimed:
            unclaimed.remove(parameter)
        bound.append(replace(item, name=item.name or parameter, parameter=parameter))

    needed = [key for key in unclaimed if parameters[key].default is inspect.Parameter.empty]
    if needed:
        raise FcdeployError(f"{given}, forward also needs {', '.join(needed)}", "give one --input for each")
    return tuple(sorted(bound, key=lambda item: named.index(item.parameter or "")))


def _draw(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Standard normal numbers; 0 and 1 for integers, which index every table and are in range for every type."""
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(*shape, generator=generator).to(dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)


def _format_keys(keys: Sequence[str], most: int = 3) -> str:
    return list_some([repr(key) for key in keys], most)
