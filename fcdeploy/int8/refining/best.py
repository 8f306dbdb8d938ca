"""Of a few ways to quantize a model, the one that is nearest to float on samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from fcdeploy.int8.fidelity import decibels
from fcdeploy.int8.given import Given
from fcdeploy.int8.refining.correct import correct_layers
from fcdeploy.int8.refining.refine import with_tools
from fcdeploy.int8.refining.rescaled import rescaled
from fcdeploy.int8.refining.smooth import smoothing_factors
from fcdeploy.records.progress import OnStep

METHODS = ("mse", "minmax")


def best(given: Given, *, choose_ranges: bool, on_step: OnStep | None = None) -> tuple[Given, str]:
    """The start, among those tried, whose int8 model has the largest SQNR on the samples, and a sentence on them.

    Tried are the model as it is and smoothed, each with the ranges that were asked for, or, with `choose_ranges`, with
    every method of METHODS.  A smoothed model is calibrated again, on DATA if there is any, else on the samples.
    Weights are rounded again and biases corrected in each; with several outputs the mean of their dB counts.  Without
    samples, and for types of other kernels, nothing is tried.
    """
    if not given.samples or given.types.other != "int8":
        return given, ""
    tried = []
    candidates = list(_candidates(given, choose_ranges))
    for done, (name, start) in enumerate(candidates, start=1):
        plan = with_tools(start, start.plan({}))
        int8 = start.build(plan, correctable=True)
        correct_layers(start.graph, int8, plan, start.samples, target=start.row)
        tried.append((float(np.mean(decibels(given.graph, int8, start.samples))), name, start))
        if on_step:
            on_step("trying scales and ranges", done, len(candidates))
    tried.sort(key=lambda row: -row[0])
    text = "; ".join(f"{name} {db:.1f}" for db, name, _ in tried)
    return tried[0][2], f"tried on {len(next(iter(given.samples.values())))} samples, SQNR in dB: {text}"


def _candidates(given: Given, choose_ranges: bool) -> Iterator[tuple[str, Given]]:
    starts = [("as trained", given)]
    if factors := smoothing_factors(given.graph, given.samples):
        with suppress(ValueError):  # float32 cannot hold such weights
            starts.append(("smoothed", rescaled(given, factors)))
    for name, start in starts:
        for method in METHODS if choose_ranges else (given.ranges,):
            yield f"{name}, {method}", replace(start, ranges=method)
