"""A binary request that was asked before, but for its numbers, of a model that answers within the call that brought it.

What `fcdeploy.serve.routes` does with any request, one thing after the other, is here done in one go: what a request of a small
network costs is the number of Python's steps.  Whatever is unusual, in the request or around it, is left to the usual way.
"""

from __future__ import annotations

from fcdeploy.serve.http_request import RequestHead
from fcdeploy.serve.models import PIECE
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.routes import make_answer
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.tensors import BinaryLayout, slice_inputs


def answer_at_once(state: ServerState, head: RequestHead, data: bytes, start: int) -> bytes | None:
    """The answer as it goes over the wire to a request whose body begins at `start`; None where it takes the usual way."""
    engine = state.engine
    if not head.plain or head.header_length is None or len(data) > PIECE:
        return None
    if engine.requests or engine.held or state.draining or state.log is not None:
        return None
    body = start + head.header_length
    try:
        served = engine.models.find(head.route.name, head.route.version)
        model = served.model
        layout = model.layouts.get(data[start:body])
        if type(layout) is not BinaryLayout or not layout.wanted.heads or layout.wanted.timeout is not None:
            return None
        ran = served.queue.run_at_once(slice_inputs(layout, data, body), layout.rows)
    except RefusedError:  # the usual way says why
        return None
    if ran is None:
        return None
    outputs, seconds = ran
    answer = make_answer(model, outputs, layout.wanted)
    if answer.whole is None:
        return None
    state.metrics.on_run_at_once(model, layout.rows, seconds)
    return b"".join((answer.whole, *answer.parts))
