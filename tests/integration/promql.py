"""Which metrics and labels a PromQL query names, read from its text.

Knows nothing of what the query computes: it takes words apart, and a real Prometheus says whether they make sense.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>\d[\w.]*)
    |(?P<name>[a-zA-Z_:$][\w:]*)
    |(?P<sign>=~|!~|!=|>=|<=|==|[-+*/%^=<>(){}\[\],@:]))""",
    re.VERBOSE,
)
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


@dataclass(frozen=True)
class Names:
    """metrics: each with the labels its selector matches;  grouped: labels of `by (…)` and their like."""

    metrics: list[tuple[str, frozenset[str]]]
    grouped: frozenset[str]


def names(query: str) -> Names:
    """Raises ValueError for a character that PromQL does not have."""
    tokens, metrics, grouped, at = _tokens(query), [], set(), 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "name":
            continue
        if text in _LISTS:
            if following == "(":
                end = tokens.index(("sign", ")"), at)
                grouped.update(name for kind, name in tokens[at:end] if kind == "name")
                at = end
        elif text.lower() not in _WORDS and following not in ("(", "by", "without") and not text.startswith("$"):
            labels: set[str] = set()
            if following == "{":
                end = tokens.index(("sign", "}"), at)
                labels = {name for kind, name in tokens[at:end] if kind == "name"}
                at = end
            metrics.append((text, frozenset(labels)))
            if at < len(tokens) and tokens[at][1] == "}":
                at += 1
    return Names(metrics, frozenset(grouped))


def _tokens(query: str) -> list[tuple[str, str]]:
    found, at = [], 0
    query = query.rstrip()
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None:
            raise ValueError(f"no PromQL at {query[at : at + 20]!r}")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found
