"""What quantizing starts from, with its network rescaled or shifted: calibrated again, since every range is another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fcdeploy.arrays import Arrays
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.problem import Given
from fcdeploy.int8.refining.absorb import Shifts, absorb
from fcdeploy.int8.refining.smooth import Factors, rescale
from fcdeploy.samples.source import Load, Source


def rescaled(given: Given, factors: Factors, shifts: Shifts) -> Given:
    """The same network with channels divided by `factors`, then `shifts` absorbed by biases.

    It is observed on DATA if there is any, else on the samples kept.  `given` is as it was prepared.  Raises ValueError,
    with a sentence, where the network cannot have such factors or shifts.
    """
    graph = given.graph.clone()
    if factors:
        rescale(graph, factors)
    absorb(graph, shifts)
    if given.scratch is not None:
        given.scratch.settle(graph)
    recorded = observe(graph, given.source or held(given), model_hash=given.recorded.model)
    divided, taken = ({name: tuple(row) for name, row in rows.items()} for rows in (factors, shifts))
    recorded = replace(recorded, seen=given.recorded.seen)
    return replace(given, graph=graph, recorded=recorded, rescaled=divided, absorbed=taken)


def held(given: Given) -> Source:
    """The samples that tools may run the model on, as a source."""

    def read() -> Iterator[tuple[str, Load]]:
        for index in range(count):
            yield f"sample {index}", partial(_sample, given.samples, index)

    count = len(next(iter(given.samples.values())))
    return Source("the samples kept", tuple(input_specs(given.graph)), read, count, labelled=False)


def _sample(samples: Arrays, index: int) -> Arrays:
    return {name: array[index] for name, array in samples.items()}
