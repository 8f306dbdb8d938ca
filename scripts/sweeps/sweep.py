"""Operators and public models through the whole line: see scripts/sweep.

An operator's sandwich is good where the int8 file is as near to the float one as exact arithmetic on the same plan, within a
decibel; a public model where the prepared model answers as the file does, and quantizing it ends with a file or one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import fcdeploy
from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import read_model, refuse_unsupported
from fcdeploy.prepare.pipeline import prepare
from scripts.sweeps.exact import in_floats
from scripts.sweeps.public import PublicModel, list_public_models
from scripts.sweeps.sandwiches import SWEPT, Sandwich, draw_sandwich

Array = np.ndarray[Any, Any]
WITHIN = 1.0  # dB that kernels may lose against exact arithmetic on the same plan
MANY = 1024  # samples on which a sandwich that lost more is measured again
IRRELEVANT = 55.0  # dB against float from which on a dB more or less is last bits
EQUAL = 1e-6  # of the largest number, that preparing may change
NOT_RUN = "onnxruntime does not run it"


@dataclass(frozen=True)
class Verdict:
    """What became of a sandwich: `good`, and why not."""

    good: bool
    what: str
    sqnr_db: float = math.nan
    exact_db: float = math.nan


def judge(sandwich: Sandwich, folder: Path, *, effort: str = "balanced") -> Verdict:
    """Quantize with every integer kernel there is, and hold the file against float and against exact arithmetic."""
    path, out = folder / "model.onnx", folder / "int8.onnx"
    onnx.save(sandwich.model, path)
    np.savez(folder / "data.npz", **sandwich.data)  # type: ignore[arg-type]
    try:
        expected = _answers(path, sandwich.data)
    except Exception:
        return Verdict(True, NOT_RUN)
    try:
        fcdeploy.quantize(path, output=out, data=folder / "data.npz", costs="none", effort=effort, force=True)
    except FcdeployError as error:
        return Verdict(False, f"refused: {error.message}")
    except Exception as error:
        return Verdict(False, f"internal error: {type(error).__name__}: {error}")
    exact = in_floats(onnx.load(out))
    verdict = _compare(expected, _answers(out, sandwich.data), _answers(exact, sandwich.data, optimize=False))
    if verdict.good or math.isnan(verdict.sqnr_db):
        return verdict
    # on few samples a decibel may hang on one rounding: counted again on many
    many = {key: np.random.default_rng(8).standard_normal((MANY, *x.shape[1:])) for key, x in sandwich.data.items()}
    feeds = {key: x.astype(sandwich.data[key].dtype) for key, x in many.items()}
    return _compare(_answers(path, feeds), _answers(out, feeds), _answers(exact, feeds, optimize=False))


def _compare(expected: list[Array], real: list[Array], exact: list[Array]) -> Verdict:
    """The worst output of the int8 file and of exact arithmetic on its plan, against float."""
    worst, ideal = math.inf, math.inf
    for a, b, c in zip(expected, real, exact, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return Verdict(False, f"{b.dtype} of shape {b.shape} instead of {a.dtype} of {a.shape}")
        if a.dtype.kind == "f":
            worst, ideal = min(worst, _sqnr(a, b)), min(ideal, _sqnr(a, c))
    good = worst >= min(ideal - WITHIN, IRRELEVANT)
    return Verdict(good, "good" if good else "kernels differ from exact arithmetic", worst, ideal)


def _sqnr(a: Array, b: Array) -> float:
    return measure_fidelity(a, b).sqnr_db


def _answers(model: Path | onnx.ModelProto, data: dict[str, Array], *, optimize: bool = True) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    found: list[Array] = ort.InferenceSession(content, options).run(None, data)
    return found


def draw_all(count: int, number: int, operators: list[str]) -> Iterator[Sandwich]:
    """`count` sandwiches of each operator, from a seed."""
    for op in operators:
        yield from _draw_of(op, count, number)


def _draw_of(op: str, count: int, number: int) -> list[Sandwich]:
    drawn: list[Sandwich] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def keep(data: st.DataObject) -> None:
        drawn.append(draw_sandwich(data.draw, op))

    keep()
    return drawn[:count]


def sweep_operators(count: int, number: int, operators: list[str]) -> int:
    """How many are not good; each is printed."""
    seen, begin = Counter[str](), time.time()
    for sandwich in draw_all(count, number, operators):
        with tempfile.TemporaryDirectory() as folder:
            verdict = judge(sandwich, Path(folder))
        seen["good" if verdict.good else "bad"] += 1
        seen["not run by onnxruntime"] += verdict.what == NOT_RUN
        if not verdict.good:
            figures = f"{verdict.sqnr_db:.1f} dB, exact {verdict.exact_db:.1f} dB"
            print(f"{sandwich.op}: {verdict.what}, {figures}; {sandwich.said}", flush=True)
    print(f"{sum(seen.values()) - seen['not run by onnxruntime']} sandwiches of {len(operators)} operators: {dict(seen)}, "
          f"{time.time() - begin:.0f} s")  # fmt: skip
    return seen["bad"]


def sweep_public(names: list[str], share: tuple[int, int], *, quantized: bool) -> int:
    """How many models of the suite are prepared otherwise than they answer, or end in anything but a file or a sentence."""
    seen, begin = Counter[str](), time.time()
    for public in list_public_models(names, share):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(public.content)
            what = check_prepared(path, public)
            if what == "equal" and quantized:
                what = check_line(path, public, Path(folder))
        seen[what.partition(":")[0]] += 1
        if what.partition(":")[0] not in ("equal", "quantized", "one sentence"):
            print(f"{public.name}: {what}", flush=True)
    print(f"{sum(seen.values())} models: {dict(seen)}, {time.time() - begin:.0f} s")
    return sum(count for what, count in seen.items() if what not in ("equal", "quantized", "one sentence"))


def check_prepared(path: Path, public: PublicModel) -> str:
    """'equal', 'one sentence: ...' where it is refused, or what is wrong."""
    wanted = public.run(public.content)
    try:
        model = read_model(path)
        refuse_unsupported(model, path.name)
        prepare(model)
        found = public.run(ir.to_proto(model).SerializeToString())
    except FcdeployError as error:
        return f"one sentence: {error.message}"
    except Exception as error:
        return f"internal error: {type(error).__name__}: {error}"
    return "equal" if all(map(_is_equal, wanted, found)) else "prepared otherwise"


def check_line(path: Path, public: PublicModel, folder: Path) -> str:
    """'quantized', 'one sentence: ...' or what is wrong, of quantize and validate on the model's own inputs, repeated."""
    # no file of samples holds sequences: what is said then is one sentence, too
    arrays = {name: value for name, value in public.feeds.items() if isinstance(value, (np.ndarray, np.generic))}
    rows = {name: np.stack([np.asarray(value)] * 4) for name, value in arrays.items()}
    axes = [f"{name}=none" for name in rows]
    np.savez(folder / "data.npz", **rows)  # type: ignore[arg-type]
    out = folder / "int8.onnx"
    try:
        fcdeploy.quantize(path, output=out, data=folder / "data.npz", costs="none", effort="fast", batch_axes=axes)
        fcdeploy.validate(out, against=path, data=folder / "data.npz", same_data=True)
    except FcdeployError as error:
        return f"one sentence: {error.message}"
    except Exception as error:
        return f"internal error: {type(error).__name__}: {error}"
    return "quantized"


def _is_equal(one: Any, other: Any) -> bool:
    """The same types, shapes and numbers, sequences and maps item by item."""
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_is_equal, one, other))
    if not isinstance(one, np.ndarray) or one.dtype.kind in "OSU":
        return bool(np.all(one == other))
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        least = np.finfo(one.dtype).eps if one.dtype.kind == "f" else 0.0  # float16 tells no more apart
        room = max(EQUAL, float(least)) * max(1e-30, float(np.abs(a[np.isfinite(a)]).max(initial=0)))
        return bool(((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= room)).all())


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/sweep")
    parser.add_argument("what", choices=["operators", "backend"])
    parser.add_argument("names", nargs="*", help="operators, or parts of names of models")
    parser.add_argument("--count", type=int, default=15, help="sandwiches of each operator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", default="1/1", metavar="K/N", help="the K-th of N parts of all operators or models")
    parser.add_argument("--quantize", action="store_true", help="backend: quantize and validate too")
    given_ = parser.parse_args()
    k, n = map(int, given_.share.split("/"))
    if not 1 <= k <= n:
        parser.error(f"--share {given_.share}: expected K/N with K from 1 to N")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as cache, contextlib.suppress(KeyboardInterrupt):
        os.environ.setdefault("FCDEPLOY_CACHE", cache)
        if given_.what == "operators":
            return min(1, sweep_operators(given_.count, given_.seed, (given_.names or SWEPT)[k - 1 :: n]))
        return min(1, sweep_public(given_.names, (k - 1, n), quantized=given_.quantize))
    return 1


if __name__ == "__main__":
    sys.exit(main())
