"""Requests near to sound ones: heads, query strings, header values, forms and JSON, as bytes for a socket.

Knows nothing of what is answered.
"""

import json
import string
from typing import Any

from hypothesis import strategies as st

from tests.service.answers import B64, PNG

_ODD = ("", "0", "-1", "1e400", "nan", "null", "true", "٣", "a" * 300, "\x00", "%", "é", "​", "‮", "../..", "'\"<>&")
_NAMES = ("model", "depth", "page", "bands", "pyramid", "timeout_ms", "priority", "format", "crf", "crf_size",
          "crf_iterations", "crf_bilateral_sxy", "k", "alpha", "only", "nodata", "confidence", "x", "y", "include",
          "none")  # fmt: skip
_VALUES = ("tiny", "full", "minmax", "1", "4,3,2", "auto", "json", "png", "npy", "overlay", "color", "true", "fast",
           "source", "keep", "0.5", "0,1", "255", "centroids")  # fmt: skip
_value = st.one_of(st.sampled_from(_VALUES), st.sampled_from(_ODD), st.text(max_size=12), st.integers().map(str))
_safe = string.ascii_letters + string.digits + "-._~"


def _quoted(text: str) -> str:
    return "".join(
        c if c in _safe else "".join(f"%{byte:02x}" for byte in c.encode("utf-8", "surrogatepass")) for c in text
    )


_sound = st.sampled_from(
    [("depth", "minmax"), ("page", "0"), ("bands", "1"), ("bands", "3,2,1"), ("pyramid", "full"),
     ("timeout_ms", "9000"),
     ("priority", "-3"), ("format", "npy"), ("format", "overlay"), ("format", "json"), ("crf", "fast"), ("crf", "true"),
     ("crf_size", "source"), ("crf_iterations", "1"), ("k", "3"), ("alpha", "0.25"), ("only", "0,4"),
     ("nodata", "keep"),
     ("confidence", "true"), ("x", "5"), ("y", "7"), ("model", "tiny")]
)  # fmt: skip
_any = st.tuples(st.sampled_from(_NAMES), _value)
queries = st.one_of(  # nearer to what is sound: what is refused at its first option reaches nothing behind it
    st.lists(_sound, max_size=4, unique_by=lambda pair: pair[0]),
    st.tuples(st.lists(_sound, max_size=2), st.lists(_any, max_size=2)).map(lambda both: [*both[0], *both[1]]),
).map(lambda pairs: "&".join(f"{name}={_quoted(value)}" for name, value in pairs))
_routes = st.sampled_from(
    ["/segment", "/similar", "/classes", "/classes/0", "/classes/import",
     "/clusters", "/clusters/tree", "/clusters/0", "/clusters/0/exemplars/0", "/models",
     "/models/tiny", "/models/tiny/load", "/models/tiny/unload", "/healthz", "/readyz", "/openapi.json", "/",
     "/web/main.js"]
)  # fmt: skip
paths = st.one_of(
    _routes,
    st.tuples(_routes, _value).map(lambda both: both[0].rpartition("/")[0] + "/" + _quoted(both[1])),
    st.sampled_from(
        ["//", "/.", "/..", "/web/..%2f..", "/clusters/1_0", "/clusters/%D9%A3", "/clusters/-0", "*", "/%"]
    ),
)
_methods = st.sampled_from(["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"])
_header_value = st.one_of(
    st.sampled_from([b"*/*", b"image/*;q=x", b"text/html", b"image/webp,*/*;q=0", b"gzip", b"identity", b'W/"x"', b"*",
                     b"bytes=0-", b"bytes=9-1,,", b"Bearer", b"Bearer \xff", b"00-0-0-0", b"close, keep-alive",
                     b"multipart/form-data; boundary=", b"application/json; charset=utf-7", b"a" * 5000]),
    st.binary(max_size=40).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127).strip()),
)  # fmt: skip
_header_name = st.sampled_from(
    [b"Accept", b"Content-Type", b"Content-Encoding", b"X-Request-ID", b"traceparent", b"Authorization", b"X-API-Key",
     b"If-Match", b"If-None-Match", b"Range", b"Connection", b"Origin", b"Referer", b"Cookie",
     b"X-Forwarded-For", b"Accept-Encoding"]
)  # fmt: skip
headers = st.lists(st.tuples(_header_name, _header_value), max_size=5)

_IMAGE = b'Content-Disposition: form-data; name="image"; filename="a.png"'
_part_head = st.one_of(
    st.sampled_from(
        [b'Content-Disposition: form-data; name="image"; filename="a.png"', b'Content-Disposition: form-data; name="k"',
         b"Content-Disposition: form-data", b"Content-Disposition: form-data; name=", b"Content-Disposition:", b"X",
         b":",
         b'Content-Disposition: form-data; name="image"; filename*=utf-8\'\'%ff', b"Content-Type: text/plain",
         b"Content-Transfer-Encoding: base64"]
    ),
    st.binary(max_size=20),
)  # fmt: skip
_part = st.tuples(
    st.just([_IMAGE]) | st.lists(_part_head, max_size=3),
    st.sampled_from([PNG, PNG, b"5", b""]) | st.binary(max_size=30),
).map(lambda both: b"\r\n".join(both[0]) + b"\r\n\r\n" + both[1])
_line_end = st.sampled_from([b"\r\n"] * 19 + [b"\n", b""])


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A multipart body of the boundary `b`."""
    body = draw(st.sampled_from([b"", b"", b"\r\n", b"preamble\r\n"]))
    for part in draw(st.lists(_part, max_size=4)):
        body += b"--b" + draw(_line_end) + part + draw(_line_end)
    body += draw(st.sampled_from([b"--b--\r\n"] * 4 + [b"--b--", b"--b", b"", b"--b--\r\nepilogue"]))
    if draw(st.integers(0, 4)) == 0 and body:
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 4)) :]
    return body


_leaf: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from([B64, "#ff00aa", "road"])
)
_json = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["image", "images", "name", "color", "hidden", "merged_into", "default"]) | st.text(max_size=5),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON, or nearly."""
    known = st.fixed_dictionaries(
        {}, optional={"name": _leaf, "color": _leaf, "hidden": _leaf, "merged_into": _leaf, "default": _leaf}
    )
    text = json.dumps(draw(known | _json)).encode()
    how = draw(st.sampled_from(["as it is", "as it is", "cut", "mark", "deep", "twice", "bytes"]))
    if how == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if how == "mark":
        return b"\xef\xbb\xbf" + text
    if how == "deep":
        return b'{"images":' + b"[" * draw(st.sampled_from([5, 200, 5000]))
    if how == "twice":
        return b'{"name":"a","name":"b"}'
    return draw(st.binary(max_size=30)) if how == "bytes" else text


def request(method: str, target: str, lines: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """A whole request, its length told rightly."""
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    start = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n".encode(
        "latin-1", "replace"
    )
    return start + head + b"\r\n" + body


@st.composite
def asked(draw: st.DrawFn) -> bytes:
    """Any route, method, query, header and body."""
    query = draw(queries)
    target = draw(paths) + (f"?{query}" if query else "")
    body = draw(st.sampled_from([b"", PNG, b"{}"]) | documents() | st.binary(max_size=20))
    return request(draw(_methods), target, draw(headers), body)


@st.composite
def segmented(draw: st.DrawFn) -> bytes:
    """Sound images with odd options and headers."""
    return request("POST", f"/{draw(st.sampled_from(['segment', 'similar']))}?{draw(queries)}", draw(headers), PNG)


@st.composite
def form_sent(draw: st.DrawFn) -> bytes:
    """A form, under a content type that may not be its own."""
    others = [b"multipart/form-data", b'multipart/form-data; boundary="', b"multipart/mixed; boundary=b", b"text/plain"]
    kind = draw(st.sampled_from([b"multipart/form-data; boundary=b"] * 4 + others))
    return request("POST", f"/segment?{draw(queries)}", [(b"Content-Type", kind)], draw(forms()))


@st.composite
def json_sent(draw: st.DrawFn) -> bytes:
    """JSON for each of the routes that take it."""
    method, path = draw(
        st.sampled_from(
            [
                ("POST", "/segment"),
                ("PATCH", "/clusters/1"),
                ("PATCH", "/clusters/9"),
                ("PUT", "/classes/1"),
                ("PUT", "/classes/import"),
                ("POST", "/models/tiny/load"),
            ]
        )
    )
    lines = [(b"Content-Type", b"application/json"), (b"X-API-Key", b"admin")]
    return request(method, path, lines, draw(documents()))


@st.composite
def on_the_wire(draw: st.DrawFn) -> bytes:
    """Bytes that may be no HTTP at all: a sound request with pieces changed."""
    data = bytearray(draw(asked() | st.just(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(len(data), 200)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"\r\n", b"\n", b"\0", b" ", b":", b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff",
                             b"\t",
                             b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"HTTP/2.0",
                             b"HTTP/1.0"])
            | st.binary(max_size=5)
        )  # fmt: skip
    return bytes(data)
