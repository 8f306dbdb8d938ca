"""Checks that a sample fits the model: one function and one error message for each way it may not.

Every message names the input, the sample, the value and what the model wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import ml_dtypes
import numpy as np

from fcdeploy.arrays import Array, Arrays, make_texts
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.signature import format_shape, is_shape_alike

FREE_SIZES = "fcdeploy transform dense-to-conv MODEL -o OUT frees the sizes of a network of convolutions"
SEE_INPUTS = "fcdeploy inspect MODEL shows the inputs the model declares"


def is_label(name: str) -> bool:
    """`label`, or `label.<output>` where a model has several outputs."""
    return name == "label" or name.startswith("label.")


def fit_sample(
    arrays: Mapping[str, Any], specs: Sequence[TensorSpec], place: str, source: str
) -> tuple[Arrays, Arrays]:
    """The inputs in the model's order and dtypes, and the labels, of one sample. Raises FcdeployError."""
    check_names(arrays, specs, source)
    inputs = {}
    for spec in specs:
        value = to_array(spec.name, arrays[spec.name], place, source)
        check_shape(spec, value.shape, place, source)
        inputs[spec.name] = cast(value, spec, place, source)
    labels = {name: check_label(name, value, place, source) for name, value in arrays.items() if is_label(name)}
    return inputs, labels


def to_array(name: str, value: Any, place: str, source: str) -> Array:
    """Convert what a generator yielded to an array."""
    try:
        return np.asarray(value)
    except Exception as error:  # lists of unequal lengths, foreign arrays on another device, ...
        raise FcdeployError(
            f"{source}: {name!r} of {place} is no array, but a {type(value).__name__}", "yield NumPy arrays of numbers"
        ) from error


def check_names(names: Iterable[str], specs: Sequence[TensorSpec], source: str) -> None:
    """Every input of the model is there, and nothing else but labels."""
    given = list(names)
    expected = [spec.name for spec in specs]
    wants = "the model wants " + quote_names(expected)
    for name in expected:
        if name not in given:
            has = "it has " + quote_names(given) if given else "it has none"
            raise FcdeployError(f"{source}: input {name!r} is missing, {has}", f"{wants}, and optionally 'label'")
    for name in given:
        if name not in expected and not is_label(name):
            raise FcdeployError(
                f"{source}: array {name!r} is no input of the model, {wants}, and optionally 'label'",
                f"remove {name!r}, or call it 'label' where it holds labels",
            )


def get_only_input(inputs: Sequence[TensorSpec], what: str) -> TensorSpec:
    """The model's one input; `what` can feed no more than that."""
    if len(inputs) != 1:
        raise FcdeployError(
            f"{what} feed one input, the model has {len(inputs)}: {quote_names(spec.name for spec in inputs)}",
            "give an .npz with one array per input",
        )
    return inputs[0]


def check_shape(spec: TensorSpec, shape: tuple[int, ...], place: str, source: str) -> None:
    """The shape of one sample against the input's without its axis of samples. An input without a shape takes any."""
    wanted = spec.sample_shape
    where = f"input {spec.name!r}: {place} has shape {format_shape(shape)}"
    if spec.shape and not is_shape_alike(shape, wanted):
        order = _find_order(shape, wanted)
        correct = f"correct {source}; {FREE_SIZES if _differ_in_size(shape, wanted) else SEE_INPUTS}"
        hint = f"array.transpose{order} moves its axes, of all samples" if order else correct
        raise FcdeployError(f"{where}, the model wants {format_shape(wanted)}", hint)
    if 0 in shape:
        raise FcdeployError(f"{where}, expected at least one element", f"leave the sample out of {source}")


def _differ_in_size(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether samples (channels, ...) have as many channels as the model wants, in another height, width or length."""
    return len(shape) == len(wanted) > 1 and is_shape_alike(shape[:1], wanted[:1])


def _find_order(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> tuple[int, ...]:
    """The axes of an array of samples in the order that the model wants, where only the channels are in the wrong place."""
    if len(shape) != 3 or len(wanted) != 3:
        return ()
    return next(
        (
            (0, *(axis + 1 for axis in order))
            for order in ((2, 0, 1), (1, 2, 0))
            if is_shape_alike([shape[axis] for axis in order], wanted)
        ),
        (),
    )


def check_dtype(spec: TensorSpec, dtype: np.dtype[Any], place: str, source: str) -> None:
    """Accept text for text, numbers for numbers, and no cast that changes their kind: float to int, complex to float."""
    if is_number(dtype) and is_number(spec.dtype) and _is_same_kind(dtype, spec.dtype):
        return
    if spec.dtype.kind == "O" and dtype.kind in "UO":
        return
    wanted = "text" if spec.dtype.kind == "O" else spec.dtype
    raise FcdeployError(
        f"input {spec.name!r}: {place} is {dtype}, the model wants {wanted}", f"convert {source}; {SEE_INPUTS}"
    )


def cast(value: Array, spec: TensorSpec, place: str, source: str) -> Array:
    """The sample in the model's dtype, finite; integers that the dtype cannot hold exactly are an error."""
    check_dtype(spec, value.dtype, place, source)
    if spec.dtype.kind == "O":
        return _cast_text(value, spec, place, source)
    floats = value.dtype.kind == "f" or _is_small_float(value.dtype)
    absent = np.isnan(value) if spec.missing and floats else None
    _check_finite(value, f"input {spec.name!r}: {place}", source, absent)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is found by looking at the result
        result = np.ascontiguousarray(value, dtype=spec.dtype).reshape(value.shape)
        if not _holds(result, value, absent):
            raise FcdeployError(
                f"input {spec.name!r}: {place} is {value.dtype} up to {_find_unheld(result, value)}, "
                f"which {spec.dtype} cannot hold",
                f"scale or convert {source}",
            )
    return result


def _cast_text(value: Array, spec: TensorSpec, place: str, source: str) -> Array:
    texts = value.reshape(-1).tolist()
    other = next((text for text in texts if not isinstance(text, str)), None)
    if other is not None:
        raise FcdeployError(
            f"input {spec.name!r}: {place} holds {other!r}, the model wants text", f"convert {source}; {SEE_INPUTS}"
        )
    return make_texts(texts, value.shape)


def _holds(result: Array, value: Array, absent: Array | None = None) -> bool:
    """Whether `result` is `value` in another dtype: integers exactly, floats rounded and finite but where `absent`."""
    if not _is_finite(result if absent is None else result[~absent]):
        return False
    if value.dtype.kind not in "iu":
        return True
    low, high = int(value.min()), int(value.max())
    if result.dtype.kind in "iu":  # a way there and back hides what wraps around in both
        ends = np.iinfo(result.dtype)
        return bool(ends.min <= low and high <= ends.max)
    # the way back is undefined for a float beyond the integers, and rounding keeps the order: so the ends first
    return (int(result.min()), int(result.max())) == (low, high) and bool(np.all(result.astype(value.dtype) == value))


def _find_unheld(result: Array, value: Array) -> Any:
    """A number that `result` does not hold: the least or the greatest of `value`, or the first one that was rounded."""
    size = value.astype(np.float64)
    rounded = result.astype(value.dtype).ravel() != value.ravel()
    for at in (np.nanargmin(size), np.nanargmax(size), np.argmax(rounded)):
        one = slice(int(at), int(at) + 1)
        if not _holds(result.flat[one], value.flat[one]):
            break
    return value.flat[int(at)]


def check_label(name: str, value: Any, place: str, source: str) -> Array:
    """Accept any array of finite numbers as a label."""
    array = to_array(name, value, place, source)
    if not is_number(array.dtype):
        raise FcdeployError(
            f"{name!r} of {place} is {array.dtype}, expected numbers",
            f"write class indices, counted from 0, in {source}",
        )
    _check_finite(array, f"{name!r}: {place}", source)
    return array


def check_same_labels(expected: Set[str], labels: Mapping[str, Array], place: str, source: str) -> None:
    """Raise unless a sample carries the labels that the first one has."""
    if set(labels) != expected:
        has, first = quote_names(sorted(labels)) or "none", quote_names(sorted(expected)) or "none"
        raise FcdeployError(
            f"{source}: {place} has labels: {has}; the first sample has: {first}",
            f"label all samples of {source}, or none",
        )


def check_counts(counts: Mapping[str, int], source: str) -> int:
    """The number of samples that all arrays agree on, at least one."""
    (first, count), *others = counts.items()
    for name, other in others:
        if other != count:
            raise FcdeployError(
                f"{source}: {first!r} has {count} samples and {name!r} has {other}, expected the same number",
                "write as many rows along the first axis of every array",
            )
    if count == 0:
        raise make_no_samples_error(source)
    return count


def make_no_samples_error(source: str) -> FcdeployError:
    return FcdeployError(f"{source} holds no samples, expected at least one", "give data with --data")


def make_ragged_error(batch: int, seen: int, left: int, source: str) -> FcdeployError:
    even = seen - left
    return FcdeployError(
        f"the model runs batches of exactly {batch}; after {even} of {seen} samples of {source}, {left} are left over",
        f"--samples {even} takes the first {even}" if even else f"give at least {batch} samples of equal shapes",
    )


def is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" or _is_small_float(dtype)


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    """bfloat16 and the 8-bit floats, which NumPy knows as kind V: the name tells them from raw bytes."""
    return dtype.kind == "V" and hasattr(ml_dtypes, dtype.name)


def _is_same_kind(have: np.dtype[Any], want: np.dtype[Any]) -> bool:
    rank = {"b": 0, "u": 1, "i": 1}
    return rank.get(have.kind, 2) <= rank.get(want.kind, 2)


def _is_finite(value: Array) -> bool:
    return value.dtype.kind in "biu" or bool(np.isfinite(value).all())


def _check_finite(value: Array, where: str, source: str, absent: Array | None = None) -> None:
    """Raise unless every number is finite, but for those that are `absent`."""
    if _is_finite(value):
        return
    bad = ~np.isfinite(value) if absent is None else ~(np.isfinite(value) | absent)
    if not bad.any():
        return
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    raise FcdeployError(
        f"{where} has {value[at]} at {format_shape(at)}, and {int(bad.sum())} such values in all, expected finite numbers",
        f"repair or remove the sample in {source}; fcdeploy calibrate --skip-bad leaves such samples out",
    )
