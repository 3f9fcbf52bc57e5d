"""ETags, and requests that depend on them (RFC 9110, section 13): If-Match, If-None-Match.

Knows nothing of what is answered: a tag is made of the answer's bytes, so two servers that say the same give the same.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.datastructures import Headers

from service.errors import PreconditionFailed

_TAGS = re.compile(r'(?:[ \t]*,)*[ \t]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')

RESPONSE_HEADERS: dict[str, Any] = {
    "ETag": {"schema": {"type": "string"}, "description": "changes whenever the answer does, on every server alike"}
}


def parameters(*names: str) -> dict[str, Any]:
    """Conditional headers as parameters of an operation."""
    described = {
        "If-Match": "ETags, or *: do it only while one of them is what is there; else 412",
        "If-None-Match": "ETags, or *: 304 where the answer has not changed since; of a change, do it only where"
        " none of them is what is there",
    }
    return {
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": described[name],
            }
            for name in names
        ]
    }


def tagged(request: Request, answer: BaseModel) -> Response:
    """What GET answers: the answer with its ETag, or 304 for who has it. Raises PreconditionFailed."""
    content, tag = _rendered(answer)
    headers = {"etag": tag, "cache-control": "no-cache"}
    check_match(request.headers, tag)
    if _matches(request.headers, "if-none-match", tag, weak=True):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


def changed(answer: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """What PATCH answers: what is there now, with its ETag."""
    content, tag = _rendered(answer)
    return Response(content, status, {"etag": tag, **(headers or {})}, "application/json")


def check_unchanged(headers: Headers, answer: BaseModel | None) -> None:
    """Before a change: is what is there what the request has seen? None: nothing is. Raises PreconditionFailed."""
    if answer is None:
        if "if-match" in headers:
            raise PreconditionFailed("If-Match: nothing is there; leave it out to make it")
        return
    if not {"if-match", "if-none-match"} & set(headers.keys()):
        return
    tag = _rendered(answer)[1]
    check_match(headers, tag)
    if _matches(headers, "if-none-match", tag, weak=True):
        raise PreconditionFailed(f"If-None-Match: {tag} is what is there; nothing was changed")


def check_match(headers: Headers, tag: str) -> None:
    """Raises PreconditionFailed where If-Match is there and names other tags. Weak ones never match."""
    if "if-match" in headers and not _matches(headers, "if-match", tag, weak=False):
        raise PreconditionFailed(
            f"If-Match: what is there now has the ETag {tag}, not one of those given (weak ones, W/, never match); get"
            " it again, look at what is new, and send your change with its ETag"
        )


def _matches(headers: Headers, name: str, tag: str, *, weak: bool) -> bool:
    value = ",".join(headers.getlist(name))
    if value.strip() == "*":
        return True
    position = 0
    while found := _TAGS.match(value, position):
        if found[2] == tag and (weak or not found[1]):
            return True
        position = found.end()
    return False


def _rendered(answer: BaseModel) -> tuple[bytes, str]:
    content = answer.model_dump_json(exclude_unset=True, by_alias=True).encode()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
