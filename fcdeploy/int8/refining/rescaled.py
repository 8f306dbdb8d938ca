"""What quantizing starts from, with the channels of its network rescaled: calibrated again, since every range is another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fcdeploy.graph.model import input_specs
from fcdeploy.int8.given import Given
from fcdeploy.int8.recording.observe import observe
from fcdeploy.int8.refining.smooth import Factors, rescale
from fcdeploy.samples.kept import Arrays
from fcdeploy.samples.source import Load, Source


def rescaled(given: Given, factors: Factors) -> Given:
    """The same network with channels divided by `factors`, observed on DATA if there is any, else on the samples kept.

    Raises ValueError, with a sentence, where the network cannot have such factors.
    """
    graph = given.graph.clone()
    rescale(graph, factors)
    if given.scratch is not None:
        given.scratch.settle(graph)
    recorded = observe(graph, given.source or held(given), model_hash=given.recorded.model)
    written = {name: tuple(factor) for name, factor in factors.items()}
    return replace(given, graph=graph, recorded=replace(recorded, seen=given.recorded.seen), rescaled=written)


def held(given: Given) -> Source:
    """The samples that tools may run the model on, as a source."""

    def read() -> Iterator[tuple[str, Load]]:
        for index in range(count):
            yield f"sample {index}", partial(_sample, given.samples, index)

    count = len(next(iter(given.samples.values())))
    return Source("the samples kept", tuple(input_specs(given.graph)), read, count, labelled=False)


def _sample(samples: Arrays, index: int) -> Arrays:
    return {name: array[index] for name, array in samples.items()}
