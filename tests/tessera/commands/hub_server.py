"""A stand-in of the Hugging Face Hub: the endpoints that huggingface_hub calls for a model repository, on loopback."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LFS_SUFFIXES = (".onnx", ".npy", ".npz", ".webp")


@dataclass
class Repository:
    """Branches hold files; `private` ones are seen with the token alone."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})


@dataclass
class Hub:
    """What it holds, and what it was asked. The next downloads of `broken` files end half way."""

    url: str = ""
    token: str = "hf_secret"
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: Any = b"", **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def known(self) -> bool:
            return self.headers.get("authorization") == f"Bearer {state.token}"

        def repository(self, name: str) -> Repository | None:
            found = state.repositories.get(name)
            if found is None or (found.private and not self.known()):
                self.answer(401 if found is None and not self.known() else 404, {"error": "Repository not found"},
                            x_error_code="RepoNotFound")  # fmt: skip
                return None
            return found

        def handle_any(self) -> None:
            path, data = self.path.partition("?")[0], self.body()
            state.asked.append(f"{self.command} {path}")
            if path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif path.startswith("/lfs/"):  # an address that was signed, as their storage has it
                assert hashlib.sha256(data).hexdigest() == path[5:]
                state.objects[path[5:]] = data
                self.answer(200)
            elif self.command in ("POST", "PUT") and not self.known():
                self.answer(401, {"error": "Invalid token"})
            elif path == "/api/repos/create":
                self.create(json.loads(data))
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path):
                self.change(found[1], found[2], found[3], data)
            elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                self.batch(json.loads(data))
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                self.info(found[1], found[2] or "main")
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
                self.tree(found[1], found[2])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve(*found.groups())
            else:
                self.answer(404, {"error": f"no {path}"})

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            if name in state.repositories:
                self.answer(409, {"error": "You already created this model repo", "url": f"{state.url}/{name}"})
                return
            private = asked.get("private") or asked.get("visibility") == "private"
            state.repositories[name] = Repository(bool(private))
            self.answer(200, {"url": f"{state.url}/{name}"})

        def change(self, name: str, what: str, revision: str, data: bytes) -> None:
            repository = self.repository(name)
            if repository is None:
                return
            if what == "branch":
                repository.branches.setdefault(revision, {})
                self.answer(201)
            elif what == "preupload":
                files = [
                    {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LFS_SUFFIXES) else "regular",
                     "shouldIgnore": False}
                    for one in json.loads(data)["files"]
                ]  # fmt: skip
                self.answer(200, {"files": files})
            else:
                files_now = repository.branches[revision]
                for line in map(json.loads, data.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files_now[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        files_now[value["path"]] = state.objects[value["oid"]]
                    elif line["key"] == "deletedFile":
                        del files_now[value["path"]]
                sha = commit_of(files_now)
                url = f"{state.url}/{name}/commit/{sha}"
                self.answer(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

        def batch(self, asked: dict[str, Any]) -> None:
            objects = [
                {"oid": one["oid"], "size": one["size"]}
                | ({} if one["oid"] in state.objects
                   else {"actions": {"upload": {"href": f"{state.url}/lfs/{one['oid']}", "header": {
                       "Authorization": f"Bearer {state.token}"}}}})
                for one in asked["objects"]
            ]  # fmt: skip
            self.answer(200, {"transfer": "basic", "objects": objects},
                        content_type="application/vnd.git-lfs+json")  # fmt: skip

        def files(self, repository: Repository, revision: str) -> dict[str, bytes] | None:
            for branch, files in repository.branches.items():
                if revision in (branch, commit_of(files)):
                    return files
            self.answer(404, {"error": f"Invalid rev id: {revision}"}, x_error_code="RevisionNotFound")
            return None

        def info(self, name: str, revision: str) -> None:
            repository = self.repository(name)
            if repository and (files := self.files(repository, revision)) is not None:
                siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
                self.answer(200, {"id": name, "sha": commit_of(files), "private": repository.private,
                                  "siblings": siblings})  # fmt: skip

        def tree(self, name: str, revision: str) -> None:
            repository = self.repository(name)
            if repository and (files := self.files(repository, revision)) is not None:
                self.answer(200, [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ])  # fmt: skip

        def resolve(self, name: str, revision: str, path: str) -> None:
            repository = self.repository(name)
            if repository is None or (files := self.files(repository, revision)) is None:
                return
            data = files[path]
            headers = {"x_repo_commit": commit_of(files), "etag": f'"{hashlib.sha256(data).hexdigest()}"'}
            if self.command == "GET" and path in state.broken:
                state.broken.discard(path)
                self.send_response(200)
                for header, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(header.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            elif asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", "")):
                state.ranges.append(f"{path} {asked[1]}")
                start = int(asked[1])
                self.answer(206, data[start:], content_range=f"bytes {start}-{len(data) - 1}/{len(data)}", **headers)
            else:
                self.answer(200, data, **headers)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        server.shutdown()
        thread.join(5)


def commit_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha1(files[name]).digest())
    return digest.hexdigest()
