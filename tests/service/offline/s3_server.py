"""As much of S3 as s3fs asks for, over loopback, for tests: objects in memory, listed, read, written and removed.

Knows nothing of keys: whoever asks is answered.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_ENTRY = (
    '<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"{}"</ETag><Size>{}</Size>'
    "<StorageClass>STANDARD</StorageClass></Contents>"
)


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, bytes], dict[str, str]]]:
    """Objects by `bucket/key`, and what a process finds them with in its environment."""
    objects: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            bucket, _, key = unquote(where.path).strip("/").partition("/")
            query = {name: values[0] for name, values in parse_qs(where.query, keep_blank_values=True).items()}
            if key:
                self._object(f"{bucket}/{key}", body=True)
            else:
                self._listing(bucket, query.get("prefix", ""))

        def do_HEAD(self) -> None:
            self._object(unquote(urlsplit(self.path).path).strip("/"), body=False)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert "aws-chunked" not in self.headers.get("Content-Encoding", "")
            objects[unquote(urlsplit(self.path).path).strip("/")] = body
            self._answer(200, b"", ETag=f'"{len(body)}"')

        def do_DELETE(self) -> None:
            objects.pop(unquote(urlsplit(self.path).path).strip("/"), None)
            self._answer(204, b"")

        def _object(self, name: str, *, body: bool) -> None:
            if name not in objects:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if body else b"")
                return
            data = objects[name]
            dated = {"ETag": f'"{len(data)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            self._answer(200, data, body=body, **dated)

        def _listing(self, bucket: str, prefix: str) -> None:
            found = sorted(name.partition("/")[2] for name in objects if name.startswith(f"{bucket}/{prefix}"))
            entries = "".join(
                _ENTRY.format(escape(key), abs(hash(objects[f"{bucket}/{key}"])), len(objects[f"{bucket}/{key}"]))
                for key in found
            )
            about = f"<Name>{bucket}</Name><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
            self._answer(200, f"<ListBucketResult>{about}{entries}</ListBucketResult>".encode())

        def _answer(self, status: int, data: bytes, *, body: bool = True, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *told: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield (
            objects,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            },
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
