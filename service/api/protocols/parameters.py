"""A dialect's parameters as the options of `POST /segment`.

Knows nothing of any dialect, of how an answer is made.
"""

from collections.abc import Mapping
from typing import Any

from service.api.request import checked, query_options
from service.errors import BadOption, quoted
from service.inference.options import Options

_ELSEWHERE = {
    "model": "the model stands in the path",
    "format": "answers have the protocol's own form here",
}
_LARGEST = 2**63


def options_of(given: Mapping[str, Any], query: bytes = b"", **own: str | None) -> Options:
    """The options that parameters name as `POST /segment` does.

    given  name → text, number or truth value, as JSON has them;  query  of the URL, which may name others
    own    what the dialect says in its own way, with the path's model

    Raises BadOption for one that is unknown, out of range, or given twice.
    """
    words = dict(query_options(Options, query)[0]) if query else {}
    for name, value in given.items():
        if name in words:
            raise BadOption(f"{quoted(name)}: given twice, in the query and in the body")
        words[name] = _word(name, value)
    for name in words:
        if name in _ELSEWHERE:
            raise BadOption(f"{name} is not an option here: {_ELSEWHERE[name]}")
    for name, word in own.items():
        if word is None:
            continue
        if name in words:
            raise BadOption(f"{name}: given twice, as the protocol has it and as `POST /segment` does")
        words[name] = word
    return checked(Options, words)


def _word(name: str, value: object) -> str:
    """A value as a query would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST):
        return repr(value)
    raise BadOption(f"{quoted(name)}: a parameter is a text, a number, true or false")
