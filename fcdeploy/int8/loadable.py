"""When onnxruntime does not load or run what was made: which layers have to stay in float for that, found by leaving each out.

Its rewrites take layers on bytes into a layout of their own, and move transposes through what stands between them.  Some
operators do not bear that: a cubic Resize finds its scales on other axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fcdeploy.errors import LoadError
from fcdeploy.graph.nodes import operator_of
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.problem import Problem
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.runtime.session import LoadOptions, Session, read_versions
from fcdeploy.samples.kept_samples import split_into_chunks

MOST = 100  # layers that are tried one by one, each in some tenths of a second


def leave_out_unloadable(problem: Problem) -> Problem:
    """The problem with the layers in float that keep its int8 model from loading: one if one is enough, else all tried.

    Those with the fewest multiplications are tried first.  Raises LoadError where none helps.
    """
    why = _why_not_loaded(problem, {})
    if why is None:
        return problem  # it was another model, tried on the way, that did not load
    reason = f"onnxruntime {read_versions()['onnxruntime']} does not load or run the model with it as integers: {why.message}"
    macs = count_macs_by_node(problem.model)
    roles = {node.name or "": operator_of(node).role for node in problem.model.graph}
    layers = [row.node for row in problem.plan().nodes if row.kind == "int8" and roles[row.node] == "multiply"]
    layers.sort(key=lambda name: macs.get(name, 0))
    for name in layers[:MOST]:
        if _why_not_loaded(problem, {name: reason}) is None:
            return replace(problem, left_float={**problem.left_float, name: reason})
    everything = dict.fromkeys(layers, reason)
    if _why_not_loaded(problem, everything) is None:
        return replace(problem, left_float={**problem.left_float, **everything})
    raise why


def _why_not_loaded(problem: Problem, left: Mapping[str, str]) -> LoadError | None:
    try:
        int8 = problem.build(problem.plan(Overrides(left)))
        session = Session(int8, threads=1, load=LoadOptions(prepack=False))
        if problem.samples:
            session.run(next(split_into_chunks(problem.model, problem.samples))[1])
    except LoadError as error:
        return error
    return None
