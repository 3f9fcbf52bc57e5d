"""Bundles whose manifest is nearly one: numbers, names, lists and keys changed, or the text itself.

Knows nothing of the checks.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_LEAF: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from([2**31, 2**63, 10**30, 1e308, "../x", "/etc/passwd", "exemplars/000_0.webp", "#00ff00", "0" * 64,
                     [], {}]),
)  # fmt: skip


def _ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """To every value inside a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*way, key)
        yield from _ways(below, (*way, key))


@st.composite
def spoiled(draw: st.DrawFn, manifest: dict[str, Any]) -> bytes:
    """The manifest with one to three changes, as text."""
    changed = copy.deepcopy(manifest)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(sorted(_ways(changed), key=str)))
        at = changed
        for step in way[:-1]:
            at = at[step]
        how = draw(st.sampled_from(["value", "value", "gone", "key"]))
        if how == "value":
            at[way[-1]] = draw(_LEAF)
        elif how == "gone":
            del at[way[-1]]
        elif isinstance(at, dict):
            at[draw(st.text(max_size=6))] = draw(_LEAF)
        else:
            at.append(draw(_LEAF))
    text = json.dumps(changed).encode()
    if draw(st.integers(0, 5)) == 0:
        at_byte = draw(st.integers(0, len(text) - 1))
        text = text[:at_byte] + draw(st.binary(max_size=3)) + text[at_byte + draw(st.integers(0, 3)) :]
    return text
