"""Whose work is being done: what log lines and traces say of it, wherever it is done.

Knows nothing of HTTP, of logs, of traces. A task has it from the one that began it; threads are told with their job.
"""

from contextvars import ContextVar
from typing import Any, NamedTuple


class RequestContext(NamedTuple):
    """A request, or a job, that work is done for.

    id      the request's;  job_id  the job's: one of the two
    span    of OpenTelemetry, the context of the request's, where it is traced
    """

    id: str = ""
    job_id: str = ""
    span: Any = None


# Several while a batch runs that serves several; none at work that nobody asked for.
current: ContextVar[tuple[RequestContext, ...]] = ContextVar("tessera_request", default=())
