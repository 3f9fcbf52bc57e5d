"""Refusals in the words of whoever asks: one table from path to shape, RFC 9457 for all the rest.

A dialect's clients read its own error documents and no others: theirs stand here, for every refusal under its paths,
also for those that no route of the dialect makes (no such path, no key, a full queue). To add one write a function from
a problem document to the dialect's, and its row in SHAPES.

Knows nothing of what is refused, or why.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from service.api.problems import PROBLEM

Document = Mapping[str, Any]


class Shape(NamedTuple):
    """What becomes of a problem document, and as what it is sent."""

    render: Callable[[Document], Document]
    media_type: str = "application/json"


def sentence(problem: Document) -> str:
    """What a problem says, for documents that have one text and no place for the request's id."""
    return f"{problem['detail']}: {problem['request_id']}" if problem["status"] == 500 else str(problem["detail"])


def lone(problem: Document) -> Document:
    """`{"error": "…"}`: the Open Inference Protocol, Hugging Face, Label Studio."""
    return {"error": sentence(problem)}


def unsuccessful(problem: Document) -> Document:
    """`{"success": false, …}`: X-AnyLabeling, whose own server has the message in `error`."""
    message = sentence(problem)
    return {"success": False, "message": message, "error": {"code": problem["title"], "message": message}}


RFC_9457 = Shape(lambda problem: problem, PROBLEM)
LONE = Shape(lone)
SHAPES: dict[str, Shape] = {
    "/v2": LONE,
    "/hf": LONE,
    "/label-studio": LONE,
    "/predict": LONE,
    "/setup": LONE,
    "/validate": LONE,
    "/versions": LONE,
    "/webhook": LONE,
    "/x-anylabeling": Shape(unsuccessful),
}


def shape_of(path: str) -> Shape:
    """The shape of refusals at a path below the root: its dialect's, where the first of its names is one's."""
    end = path.find("/", 1)
    return SHAPES.get(path if end < 0 else path[:end], RFC_9457)
