"""Bodies that come and go compressed, within limits: gzip and deflate, for the dialects whose clients do that.

Knows nothing of requests, of what is in a body.
"""

import zlib
from collections.abc import Iterable

from zlib_ng import zlib_ng

from service.errors import BadBody, BodyTooLarge, UnsupportedEncoding, quoted

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib: with gzip's frame, or with its own
_STEP = 2**20
_FREE_BYTES = 2**24  # that any body may unfold to; beyond them no more than _MAX_RATIO times its size
_MAX_RATIO = 256
_SMALL_BYTES = 1024  # an answer that is not worth it
_LEVEL = 1


def encoding_of(header: str) -> str:
    """The one encoding that a Content-Encoding names, "" for none. Raises UnsupportedEncoding for all that are not
    opened."""
    name = header.strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in _WINDOW:
        raise UnsupportedEncoding(f"Content-Encoding {quoted(name, 40)} is not opened; gzip, deflate and identity are")
    return name


def unfold(data: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """What was compressed, of at most `max_bytes`; `deflate` is zlib's format, or bare as some write it.

    Raises BodyTooLarge as soon as there is more, or more than a photo's pixels can be compressed; BadBody.
    """
    if not encoding:
        return data
    bare = encoding == "deflate" and not _is_zlib(data)
    stream = zlib.decompressobj(-15 if bare else _WINDOW[encoding])
    most = min(max_bytes, max(_FREE_BYTES, _MAX_RATIO * len(data)))
    parts: list[bytes] = []
    size, left = 0, data
    try:
        while not stream.eof:
            part = stream.decompress(left, min(_STEP, most + 1 - size))
            left = stream.unconsumed_tail
            if not (part or left or stream.eof):
                raise BadBody(f"the body is cut off: its {encoding} stream has no end")
            parts.append(part)
            size += len(part)
            if size > most:
                raise BodyTooLarge(
                    f"the body unfolds to more than the {most / 2**20:.0f} MiB that may come of it"
                    f" (TESSERA_MAX_BODY_BYTES; {_MAX_RATIO} times its size where that is less); send it uncompressed,"
                    " or less of it"
                )
    except zlib.error:
        raise BadBody(f"the body is not what its Content-Encoding, {encoding}, says; send it as it is") from None
    if stream.unused_data:
        raise BadBody(f"{len(stream.unused_data)} bytes stand behind the body's {encoding} stream")
    return b"".join(parts)


def chosen(accept: str, size: int) -> str:
    """What an Accept-Encoding wants of an answer of this size: `gzip`, `deflate`, or "" for as it is."""
    if size < _SMALL_BYTES:
        return ""
    weights: dict[str, float] = {}
    for part in accept.lower().split(",")[:32]:
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name] = float(quality)
        except ValueError:
            continue
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, 0.0))
    return best if weights.get(best, 0.0) > weights.get("identity", 0.0) else ""


def folded(parts: Iterable[bytes], encoding: str) -> list[bytes]:
    """The parts of an answer, compressed: fast rather than small."""
    stream = zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, _WINDOW[encoding])
    return [*(stream.compress(part) for part in parts), stream.flush()]


def _is_zlib(data: bytes) -> bool:
    """RFC 1950, 2.2: method, window, and a check over both."""
    return len(data) > 1 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and int.from_bytes(data[:2], "big") % 31 == 0
