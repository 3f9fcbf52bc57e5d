r"""What a cluster may be called: letters that are seen, and nothing that makes a name look like another one.

Knows nothing of who gives the names, a bundle's maker or a person.

Refused are control characters (C0, C1, DEL, line and paragraph separators), those that turn the direction of text, all
others without a shape of their own, private ones and lone surrogates. The two joiners and the variation selectors,
which many scripts and emoji need, are taken where they do something: after a letter or sign beyond Latin, and in
keycaps.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, GetJsonSchemaHandler, StringConstraints
from pydantic_core import core_schema

_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\uf8ff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\uffff"
)
_UNSEEN_BEYOND = (  # of the planes above the first; the last character of each plane is none
    r"\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
    + "".join(rf"\U000{plane:x}fffe\U000{plane:x}ffff" for plane in range(1, 14))
)
_JOINERS = r"\u200c\u200d\ufe00-\ufe0f"
_NAME = re.compile(
    r"(?:[0-9#*]\ufe0f\u20e3"
    rf"|[^\u0250-\U0010ffff{_UNSEEN}]"
    rf"|[^\x00-\u024f{_UNSEEN}{_UNSEEN_BEYOND}{_JOINERS}][{_JOINERS}]{{0,2}})*"
)


def _seen(name: str) -> str:
    """The same name. Raises ValueError where it holds something that is not seen."""
    good = _NAME.match(name)
    assert good is not None
    if good.end() < len(name):
        raise ValueError(
            f"U+{ord(name[good.end()]):04X} has no place in a name: it is not seen, or turns or hides what is"
        )
    return name


class _Pattern:
    """Says in the JSON schema what of `_seen` a pattern can say to every reader."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": rf"^[^{_UNSEEN}]*$"}


ClusterName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80), AfterValidator(_seen), _Pattern()
]


def cleaned(name: str) -> str:
    """A name without what `ClusterName` refuses; empty where nothing is left."""
    kept, position = "", 0
    while position < len(name):
        good = _NAME.match(name, position)
        assert good is not None
        kept += good[0]
        position = good.end() + 1
    return kept.strip()[:80].strip()
