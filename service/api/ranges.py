"""Parts of an answer (RFC 9110, section 14): one range of bytes, for a client that was cut off.

Knows nothing of what is answered.
"""

import re

from starlette.datastructures import Headers

_ONE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


def wanted_range(headers: Headers, size: int, tag: str) -> tuple[int, int] | None:
    """The bytes from one place to before another; None for all: where none is asked for, or several are.

    If-Range with another tag than the answer's asks for all. Raises ValueError for a range behind the end.
    """
    found = _ONE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", tag) != tag or found[1] == found[2] == "":
        return None
    if not found[1]:
        length = int(found[2])
        if not length:
            raise ValueError("an empty range")
        return max(0, size - length), size
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    if start >= size:
        raise ValueError("a range behind the end")
    return None if stop <= start else (start, stop)
