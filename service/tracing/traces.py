"""What is told of a request and its images to whoever keeps traces.

Knows nothing of OpenTelemetry, which is imported where traces are on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from starlette.datastructures import Headers

from service.scheduling.batcher import Batch
from service.timings import Span

Attributes = Mapping[str, str | int | float | bool]


class ImageTrace(NamedTuple):
    """What was done for an image, once it is done.

    attributes  what is told of it: no pixels, no file's name
    batch       the run of the network that it shared with others
    error       the name of what kept it from an answer
    """

    spans: Sequence[Span]
    attributes: Attributes
    batch: Batch | None = None
    error: str = ""


class RequestTrace(Protocol):
    """A request that is being answered.

    id          of the trace, 32 hexadecimal digits;  span  this request's in it, for links and log lines
    attributes  that are told at its end;  images  the same
    """

    id: str
    span: Any
    attributes: dict[str, str | int | float | bool]
    images: list[ImageTrace]

    def note(self, name: str, start: float, end: float) -> None:
        """Something of it took from one moment to another, of time.perf_counter()."""

    def end(self, route: str | None, status: int | None, error: str = "") -> None:
        """It is answered, or its client has left: then there is no status."""


class Tracer(Protocol):
    """That of one server."""

    def request(self, method: str, headers: Headers, started: float, attributes: Attributes) -> RequestTrace:
        """A request that began at a moment of time.perf_counter(), whose trace its headers may name."""
        ...

    def image(self, name: str, image: ImageTrace) -> None:
        """An image that no request waited for is done: a trace of its own."""

    async def close(self) -> None:
        """What is not delivered yet is, within a second."""
