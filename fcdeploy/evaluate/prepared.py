"""Is the prepared model the user's?  Float against float, on samples, before anything is built on it.

Preparing folds, fuses and rescales, which moves last bits.  What is beyond that is a fault of ours, unless the model is
that sensitive itself: where a last bit decides which box survives or which branch runs, its own answers move as far when
its input is moved by a last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import read_model
from fcdeploy.graph.nodes import opset_of
from fcdeploy.graph.opset import LOWEST
from fcdeploy.graph.weights import is_large
from fcdeploy.prepare.pipeline import PASSES, prepare
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import Batch, Source, choose_batch_size, get_fixed_batch, make_batches

FEW = 2  # samples
CLOSE = 1e-4  # root mean square of the difference, of that of the answers: 80 dB; folding moves 1e-7 to 1e-6
HALF = 3e-2  # where the file computes in half precision, which rounds every result to 8 or 11 bits
MOVED = 1e-6  # an input that is moved by so much of itself is the same input
TOGETHER = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)  # rows that make one sample: views of an image, frames of a clip
ALIKE = 10.0  # times as far as the model's own answers move then is the model's doing


def check_prepared(path: Path, prepared: ir.Model, feeds: Mapping[str, Array]) -> None:
    """Raise FcdeployError, naming the pass at fault, where a prepared model answers otherwise than its file.

    `feeds` is one batch.  A model of a gigabyte and more is not run as a whole for this, nor is one that is random.
    """
    if is_large(prepared):
        return
    half = _is_half(path)
    try:
        file = Session(path, optimize=False)
    except FcdeployError:
        if half:  # onnxruntime has few kernels for bfloat16; the prepared model computes in float32
            return
        raise
    answers = file.run(feeds)
    limit = HALF if half else CLOSE
    distance = measure_distance(answers, Session(prepared, optimize=False).run(feeds))
    if distance <= limit:
        return
    moved = {name: _move(array) for name, array in feeds.items()}
    own = max(
        measure_distance(answers, again) for again in (file.run(feeds), file.run(moved), Session(path).run(feeds))
    )
    if distance <= ALIKE * own:
        return
    culprit = _find_culprit(path, answers, feeds, limit)
    raise FcdeployError(
        f"preparing {str(path)!r} changed its answers by {distance:.2g} of their size, which is a fault of fcdeploy: "
        f"{culprit}",
        "please report it with the model",
    )


def check_on_first(path: Path, prepared: ir.Model, source: Source, *, skip_bad: bool = False) -> None:
    """`check_prepared` on the first batch of a source: two samples, or as many as the model insists on.

    Raises FcdeployError, too, for rows of which only several together make a sample.
    """
    size = choose_batch_size(source.inputs, FEW)
    first = source.without_bad() if skip_bad else source.first(size)
    for batch in make_batches(first, size):
        if get_fixed_batch(source.inputs) is None and not is_large(prepared):
            _refuse_lone_rows(path, batch)
        check_prepared(path, prepared, batch.inputs)
        return


def _refuse_lone_rows(path: Path, batch: Batch) -> None:
    """Raise FcdeployError where a model does not run on one sample of a batch, and does on several: they are rows of one."""
    try:
        session = Session(path, optimize=False)
    except FcdeployError:  # said where it is loaded again
        return
    rows = next((count for count in (1, *TOGETHER) if _runs(session, batch.pick([0] * count))), 1)
    if rows == 1:
        return
    sample = batch.sample(0)
    shapes = [f"{spec.name} (samples, {', '.join(map(str, (rows, *sample[spec.name].shape)))})" for spec in batch.specs]
    axes = [f"--batch-axis {spec.name}=none" for spec in batch.specs]
    raise FcdeployError(
        f"model {path.name!r} does not run on one sample of these data, and does on {rows}: it makes one answer of {rows} rows",
        f"put the {rows} rows that belong together into one sample: {', '.join(shapes)}, and add {' '.join(axes)}",
    )


def _runs(session: Session, batch: Batch) -> bool:
    try:
        session.run(batch.inputs)
    except FcdeployError:
        return False
    return True


def measure_distance(answers: list[Array], others: list[Array]) -> float:
    """How far apart the outputs of two runs are, the worst of them: 0 for equal ones, infinite for other shapes.

    Of numbers it is the root mean square of the difference over that of `answers`, of all else the share that differs.
    """
    return max((_distance(a, b) for a, b in zip(answers, others, strict=True)), default=0.0)


def _distance(a: Array, b: Array) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind != "f":
        return float(np.mean(a != b)) if a.size else 0.0
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference = np.where(same, 0.0, a.astype(np.float64) - b)
        finite = np.where(np.isfinite(a), a, 0.0).astype(np.float64)
    if same.all():
        return 0.0
    if not np.isfinite(difference).all():
        return float("inf")
    size = np.sqrt(np.mean(finite**2))
    return float(np.sqrt(np.mean(difference**2)) / size) if size else float("inf")


def _move(array: Array) -> Array:
    """The same input but for its last bits."""
    if array.dtype.kind != "f":
        return array
    signs = np.where(np.arange(array.size) % 2, MOVED, -MOVED).reshape(array.shape)
    return np.require(array * (1 + signs), array.dtype, "C")


def _is_half(path: Path) -> bool:
    """Whether any weight or input of the file is of half precision."""
    model = read_model(path)
    values = (*model.graph.inputs, *model.graph.initializers.values())
    computed = (value for node in model.graph.all_nodes() for value in node.outputs)
    return any(value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) for value in (*values, *computed))


def _find_culprit(path: Path, answers: list[Array], feeds: Arrays | Mapping[str, Array], limit: float) -> str:
    """The pass without which the answers stay, in words."""
    names = [run.__name__ for run in PASSES]
    for name in dict.fromkeys(names):
        model = read_model(path)
        prepare(model, without=name)
        try:
            if measure_distance(answers, Session(model, optimize=False).run(feeds)) <= limit:
                return f"without the pass {name} they are the same"
        except FcdeployError:
            continue
    opset = opset_of(read_model(path))
    return f"operator set {opset} as {LOWEST}, perhaps" if opset < LOWEST else "more than one pass changes them"
