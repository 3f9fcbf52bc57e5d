"""Tests 5 to 8 and 10: what a hostile client can do with a request: its lengths, encodings, forms, names, ids.

Knows nothing of pictures but one.
"""

import gzip
import itertools
import zlib
from contextlib import suppress

from tests.torture.client import BROKEN, Answer, close, connect, following, read, request, said
from tests.torture.pictures import PNG
from tests.torture.process import plain
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory

SEGMENT = "/segment?format=png"
PHOTO = request("POST", SEGMENT, PNG)
_CLOSED = None


@torture("5", "Content-Length missing, wrong, negative, huge; chunked over the limit; refused before it is held")
async def lengths(place: Place, found: Found) -> None:
    limit = 4 * 2**20
    async with plain(
        place.bundle, place.folder("state"), PNG, max_body_bytes=limit, header_timeout_s=3, body_timeout_s=3
    ) as (server, right):
        post = b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        bad = {
            "none": (post + b"\r\n" + PNG, (400,)),
            "0 with a body": (post + b"Content-Length: 0\r\n\r\n" + PNG, (400,)),
            "negative": (post + b"Content-Length: -1\r\n\r\n" + PNG, (400, 413)),
            "10³⁰": (post + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n", (400, 413)),
            "over the limit": (post + b"Content-Length: %d\r\n\r\n" % (limit + 1), (413,)),
            "no number": (post + b"Content-Length: many\r\n\r\n" + PNG, (400,)),
            "hexadecimal": (post + b"Content-Length: 0x10\r\n\r\n" + PNG, (400,)),
            "plus sign": (post + b"Content-Length: +10\r\n\r\n" + PNG, (400,)),
            "two that differ": (post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", (400,)),
            "with chunked": (post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
            "of a chunk, no number": (post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n", (400,)),
            "of a chunk, negative": (post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n", (400,)),
            "of a chunk, 10³⁰": (post + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 25 + b"\r\nx", (400, 413)),
            "twice chunked": (post + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", (400,)),
        }
        for name, (payload, statuses) in bad.items():
            answer = await said(server.port, payload)
            seen = answer and answer.status
            found.must(seen in statuses, f"{name}: {seen}, not {' or '.join(map(str, statuses))}")
        short = await said(server.port, post + b"Content-Length: 1000\r\n\r\n" + PNG[:100], end=True)
        found.must(short is _CLOSED or short.status in (400, 408), f"shorter than it says: {short and short.status}")
        reader, writer = await connect(server.port)
        writer.write(PHOTO + b"junk that follows a whole request\r\n\r\n")
        first, then = await read(reader), await following(reader)
        found.must(first.status in (200, 400) and (then is _CLOSED or then.status == 400), f"longer: {first.status}")
        await close(writer)
        for name, chunks in (("1 MiB", [bytes(2**20)] * 64), ("1 byte", [b"x"] * (limit // 64))):
            with memory(server, 0.02) as held:
                answer = await _chunked(server.port, post, chunks)
            want = 413 if name == "1 MiB" else 400
            found.must(answer is not _CLOSED and answer.status == want, f"chunks of {name}: {answer and answer.status}")
            found.must(held.rise_mb < 40, f"chunks of {name}: {held.rise_mb:.0f} MB were held")
            found.figure(f"chunks of {name}: + {held.rise_mb:.0f} MB")
        after = await server.ask("POST", SEGMENT, PNG)
        found.must(after.body == right, "the same photo has another answer afterwards")


async def _chunked(port: int, head: bytes, chunks: list[bytes]) -> Answer | None:
    reader, writer = await connect(port)
    try:
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(*BROKEN):
            for chunk in chunks:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        return await following(reader)
    finally:
        await close(writer)


@torture("6", "compressed bodies, twice too: refused unopened, whatever they hold")
async def encodings(place: Place, found: Found) -> None:
    async with plain(place.bundle, place.folder("state"), PNG) as (server, _):
        large = bytes(20_000_000)
        once = gzip.compress(large)
        bodies = {"gzip": once, "deflate": zlib.compress(large), "gzip, gzip": gzip.compress(once), "br": PNG}
        bodies |= {"zstd": PNG, "identity, gzip": gzip.compress(PNG), "x\u00e9": PNG}
        for encoding, body in bodies.items():
            with memory(server, 0.02) as held:
                head = {"Content-Encoding": encoding}
                answer = await said(server.port, _latin("POST", "/segment", body, head))
            seen = answer and answer.status
            found.must(seen == 415 and answer is not None and answer.is_problem, f"{encoding}: {seen}, not 415")
            found.must(held.rise_mb < 20, f"{encoding}: {held.rise_mb:.0f} MB were held")
        found.not_built("Inference-Header-Content-Length, which comes with the protocol V2 of the tools' issue")


def _latin(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1")
        + body
    )


def forms() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Multipart bodies by what is wrong with them, and the statuses that are right."""

    def part(name: bytes, data: bytes, more: bytes = b"") -> bytes:
        return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, data)

    file = b'; filename="a.png"'
    image = part(b"image", PNG, file)
    return {
        "no end": (image, (400,)),
        "ends in a part's head": (b"--b\r\nContent-Dispo", (400,)),
        "only its end": (b"--b--\r\n", (400,)),
        "10⁴ parts": (b"".join(part(b"f%d" % i, b"") for i in range(10_000)) + b"--b--\r\n", (400, 413)),
        "10⁴ images": (image * 200 + b"--b--\r\n", (413,)),
        "a part's head of 1 MB": (b"--b\r\nX: " + b"x" * 2**20 + b"\r\n\r\n\r\n--b--\r\n", (400, 413)),
        "10⁴ heads of a part": (b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\n\r\n--b--\r\n", (400, 413)),
        "an option of 1 MB": (image + part(b"k", b"1" * 2**20) + b"--b--\r\n", (413, 422)),
        "an epilogue of 8 MB": (image + b"--b--\r\n" + b"x" * 8_000_000, (200, 400)),
        "a preamble of 8 MB": (b"x" * 8_000_000 + b"\r\n" + image + b"--b--\r\n", (400, 413)),
        "no disposition": (b"--b\r\n\r\n" + PNG + b"\r\n--b--\r\n", (400,)),
        "a name of bytes": (part(b"\xff\xfe", b"1") + image + b"--b--\r\n", (422,)),
        "another name": (part(b"photo", PNG, file) + b"--b--\r\n", (422,)),
        "no boundary in the body": (PNG, (200, 400)),
        "nothing": (b"", (400,)),
    }  # fmt: skip


@torture("7", "multipart without end, boundary or measure: 400, 413 or 422, memory back")
async def multipart(place: Place, found: Found) -> None:
    async with plain(place.bundle, place.folder("state"), PNG) as (server, _):
        kinds = {
            "": "multipart/form-data; boundary=b",
            " no boundary named": "multipart/form-data",
            " an empty boundary": "multipart/form-data; boundary=",
            " a boundary of 10 kB": f"multipart/form-data; boundary={'b' * 10_000}",
        }
        for (name, (body, statuses)), (how, kind) in itertools.product(forms().items(), kinds.items()):
            answer = await said(server.port, request("POST", SEGMENT, body, {"Content-Type": kind}))
            seen = answer.status if answer else 0
            right = seen in statuses if not how else 200 <= seen < 500
            found.must(right, f"{name},{how or ' its own boundary'}: {seen}, not {statuses}")
            found.must(answer is not None and answer.seconds < 5, f"{name}: {answer and answer.seconds:.1f} s")
        grown = server.rss_mb()
        found.figure(f"memory at the end {grown:.0f} MB")


@torture("8", "file names, model names and paths with line ends, NUL, .., devices: no header, no file, no 500")
async def names(place: Place, found: Found) -> None:
    models = place.folder("models")
    async with plain(place.bundle, place.folder("state"), PNG, models=models, admin_key="k") as (server, _):
        hostile = [
            "..", "../..", "..%2f..%2fetc", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2fetc", "%2fdev%2fzero",
            "/dev/zero", "CON", "%00", "a%00b", "a%0d%0aX-Injected:%20yes", "%0aX-Injected:yes", "%ff%fe", "~", ".",
            "a" * 5000, "%E2%80%AEevil", "-rf", "{}", "%25%32%65", "..;/", "\\..\\..",
        ]  # fmt: skip
        places = (
            ("GET", "/models/{}"), ("POST", "/models/{}/load"), ("POST", "/models/{}/unload"),
            ("GET", "/clusters?model={}"), ("GET", "/clusters/{}"), ("GET", "/clusters/0/exemplars/{}"),
            ("GET", "/web/{}"), ("GET", "/{}"), ("POST", "/segment?model={}"), ("POST", "/segment?only={}"),
        )  # fmt: skip
        for (method, path), name in itertools.product(places, hostile):
            raw = request(method, path.format(name), PNG if "segment" in path else b"", {"X-API-Key": "k"})
            answer = await said(server.port, raw)
            what = f"{method} {path.format(name[:40])}"
            allowed = (200,) if path in ("/{}", "/web/{}", "/models/{}") else ()
            sound = answer is not None and (400 <= answer.status < 500 or answer.status in allowed)
            found.must(sound, f"{what}: {answer and answer.status}")
            if answer:
                clean = "x-injected" not in answer.headers and b"root:" not in answer.body
                found.must(clean, f"{what}: {answer.headers}")
        for name in (b'a"b', b"a\r\nX-Injected: yes", b"..\\..\\x", b"/etc/passwd", b"\0", b"\xff", b"x" * 9000):
            body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n%b\r\n--b--\r\n' % (
                name,
                PNG,
            )
            head = {"Content-Type": "multipart/form-data; boundary=b", "X-API-Key": "k"}
            answer = await said(server.port, request("POST", SEGMENT, body, head))
            sound = answer is not None and answer.status in (200, 400, 413, 422) and "x-injected" not in answer.headers
            found.must(sound, f"file name {name[:30]!r}: {answer and answer.status}")
        found.must(not list(models.iterdir()), "a file appeared in the models' folder")


@torture("10", "the request's id on every answer: the caller's where it is well formed, refusals below the app too")
async def ids(place: Place, found: Found) -> None:
    settings = {"keys": "a=k", "max_body_bytes": 1_000_000, "header_timeout_s": 2, "body_timeout_s": 2}
    async with plain(place.bundle, place.folder("state"), PNG, **settings) as (server, _):
        key = {"X-API-Key": "k"}
        asked = {
            "200": ("POST", SEGMENT, PNG, key), "200 of a probe": ("GET", "/livez", b"", {}),
            "400": ("POST", "/segment", b"not a picture", key), "401": ("POST", "/segment", PNG, {}),
            "403": ("POST", "/models/x/load", b"", key), "404": ("GET", "/absent", b"", {}),
            "404 of a file": ("GET", "/web/absent.js", b"", {}), "200 of a file": ("GET", "/web/main.js", b"", {}),
            "405": ("DELETE", "/segment", b"", {}), "413": ("POST", "/segment", bytes(1_000_001), key),
            "415": ("POST", "/segment", b"%PDF-1.7", key), "422": ("POST", "/segment?no=1", PNG, key),
        }  # fmt: skip
        trace = "0af7651916cd43dd8448eb211c80319c"
        given = {
            "X-Request-ID: abc-1.2:3": ({"X-Request-ID": "abc-1.2:3"}, "abc-1.2:3"),
            "traceparent": ({"traceparent": f"00-{trace}-b7ad6b7169203331-01"}, trace),
            "one of 500 letters": ({"X-Request-ID": "a" * 500}, None),
            "one with a space": ({"X-Request-ID": "a b"}, None),
            "one with markup": ({"X-Request-ID": "<script>"}, None),
            "none": ({}, None),
        }
        for (what, (method, path, body, headers)), (how, (more, want)) in itertools.product(
            asked.items(), given.items()
        ):
            answer = await said(server.port, request(method, path, body, {**headers, **more}))
            got = answer.headers.get("x-request-id") if answer else None
            sent = more.get("X-Request-ID")
            found.must(bool(got) and (got == want if want else got != sent), f"{what}, {how}: the id is {got!r}")
            if answer and answer.status >= 400:
                found.must(answer.is_problem, f"{what}: no problem document: {answer.body[:80]!r}")
        many = "".join(f"X-{i}: y\r\n" for i in range(200))
        below = {
            "no HTTP": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\r\n" * 4, 400),
            "no method": (b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
            "a header without a name": (b"GET /livez HTTP/1.1\r\n: x\r\n\r\n", 400),
            "a request line of 100 kB": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 431),
            "a header of 100 kB": (request("GET", "/livez", headers={"X": "a" * 100_000}), 431),
            "200 headers": (f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n{many}\r\n".encode(), 431),
        }  # fmt: skip
        for what, (payload, status) in below.items():
            answer = await said(server.port, payload)
            found.must(
                answer is not None and answer.status == status, f"{what}: {answer and answer.status}, not {status}"
            )
            found.must(answer is not None and answer.is_problem, f"{what}: no problem document with an id")
