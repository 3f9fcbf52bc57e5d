"""Log lines: one JSON object each, bounded, with the request they are about; nothing that was sent is in them."""

import asyncio
import base64
import io
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanContext
from starlette.testclient import TestClient

from models.errors import UsageError
from service import logs
from service.logs import JsonLine, TextLine
from service.request_context import RequestContext, current
from service.scheduling.background import in_thread
from service.scheduling.batcher import Batch, Batcher, thread_pool
from tests.service.answers import B64, JPEG, PNG, TEXT
from tests.service.fakes import play, until
from tests.service.jobs_of import begun, settled
from tests.service.server import server_of

KEY, ADMIN = "s3cret-of-alice", "adm1n-of-all"


@pytest.fixture(scope="module")
def guarded(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that wants keys, with a file below a root."""
    root = tmp_path_factory.mktemp("photos")
    (root / "private.png").write_bytes(PNG)
    keys = f"alice={KEY},bob:infer=0ther-secret"
    start = server_of(tiny_bundle, tmp_path_factory.mktemp("state"))
    with start(keys=keys, admin_key=ADMIN, roots=(root,)) as client:
        yield client


class Lines:
    """What the log would say on stderr, in both formats."""

    def __init__(self) -> None:
        self.streams = {formatter: io.StringIO() for formatter in (JsonLine({"worker": 3}), TextLine({}))}
        self.handlers = []
        for formatter, stream in self.streams.items():
            handler = logging.StreamHandler(stream)
            handler.setFormatter(formatter)
            self.handlers.append(handler)

    @property
    def text(self) -> str:
        return "".join(stream.getvalue() for stream in self.streams.values())

    @property
    def json(self) -> list[dict[str, Any]]:
        stream = next(stream for formatter, stream in self.streams.items() if isinstance(formatter, JsonLine))
        lines = stream.getvalue().split("\n")
        assert lines.pop() == ""
        return [json.loads(line) for line in lines]


@contextmanager
def logged() -> Iterator[Lines]:
    lines = Lines()
    root, ours = logging.getLogger(), logging.getLogger("tessera")
    before = ours.level
    ours.setLevel(logging.DEBUG)
    for handler in lines.handlers:
        root.addHandler(handler)
    try:
        yield lines
    finally:
        ours.setLevel(before)
        for handler in lines.handlers:
            root.removeHandler(handler)


log = logging.getLogger("tessera")


def test_a_line_says_when_how_grave_who_and_what() -> None:
    with logged() as lines:
        log.warning("%d of %s", 3, "Straße")
    (line,) = lines.json
    assert abs(datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)) < timedelta(seconds=5)
    assert line == {
        "level": "WARNING", "logger": "tessera", "message": "3 of Straße", "pid": os.getpid(), "worker": 3,
    }  # fmt: skip


def written(message: str, *given: Any, error: Exception | None = None, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A line in both formats, which pytest does not get to see."""
    about = (type(error), error, error.__traceback__) if error else None
    record = log.makeRecord("tessera", logging.INFO, "a.py", 1, message, given, about, extra=fields)
    line = JsonLine({}).format(record)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 60_000
    return TextLine({}).format(record) if "%" not in message else "", json.loads(line)


def test_nothing_breaks_a_line_turns_it_around_or_has_no_end() -> None:
    text, told = written("a\r\n{}\x1b[2J\u202eb\ud800\x00\u2028c" + "ä" * 100_000)
    assert told["message"].startswith("a\\r\\n{}\\x1b[2J\\u202eb\\ud800\\x00\\u2028cä")
    assert told["message"].endswith(" of 100015 characters")
    assert text.endswith(told["message"])
    assert text.isprintable()
    assert len(told["message"]) < 9000
    assert "'%d images', which cannot be filled in" in written("%d images", "three")[1]["message"]
    assert written("x", fields={"path": Path("a")})[1]["path"] == "'a'"


def test_a_traceback_is_one_text_whose_ends_are_kept() -> None:
    try:
        raise ValueError("first\nsecond\x1b" + "z" * 100_000)
    except ValueError as error:
        text, told = written("failed", error=error)
    assert told["exception"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: first\nsecond\\x1bz" in told["exception"]
    assert len(told["exception"]) < 17_000
    assert text.endswith("failed\n" + told["exception"])


def test_a_line_for_people_says_of_which_worker_it_is() -> None:
    record = logging.LogRecord("tessera", logging.INFO, "x.py", 1, "serves %s", ("on",), None)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    \[2\] serves on", TextLine({"worker": 2}).format(record))
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    serves on", TextLine({"replica": "a"}).format(record))


def test_what_is_no_format_is_refused() -> None:
    with pytest.raises(UsageError, match="TESSERA_LOG: 'jsno' is neither text nor json; did you mean 'json'"):
        logs.set_up("jsno")


def test_set_up_takes_the_place_of_an_earlier_one_and_tells_what_python_would_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    for name in ("stderr", "excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, stream if name == "stderr" else getattr(sys, name))
    monkeypatch.setattr("threading.excepthook", threading.excepthook)
    try:
        logs.set_up("json", {"worker": 1})
        logs.set_up("json", {"worker": 2})
        assert logs.in_json()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old\nway", stacklevel=1)
        sys.excepthook(KeyError, KeyError("gone"), None)
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("httpx").info("HTTP Request: GET http://a/?token=secret")
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level = before[0], before[1]
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["logger"], line["worker"]) for line in told] == [
        ("py.warnings", 2), ("tessera", 2), ("uvicorn.error", 2),
    ]  # fmt: skip
    assert "old\\nway" in told[0]["message"]
    assert "KeyError: 'gone'" in told[1]["exception"]


def test_a_line_in_a_thread_is_about_the_request_that_the_work_is_for() -> None:
    pool = thread_pool("worker", 1)

    async def asked(id: str) -> None:
        current.set((RequestContext(id),))
        await pool.submit(lambda: log.info("in a thread"))
        await in_thread(lambda: log.info("in one of its own"), "own")
        await asyncio.to_thread(log.info, "in asyncio's")

    async def scenario() -> None:
        await asyncio.gather(*(asyncio.create_task(asked(id)) for id in "abc"))
        await pool.submit(lambda: log.info("nobody's"))

    with logged() as lines:
        play(pool, scenario)
    told = [(line["message"], line.get("request_id")) for line in lines.json]
    assert sorted(told[:-1]) == sorted(
        (what, id) for id in "abc" for what in ("in a thread", "in one of its own", "in asyncio's")
    )
    assert told[-1] == ("nobody's", None)


def test_a_line_of_a_batch_is_about_all_whom_it_serves() -> None:
    opened = threading.Event()

    def run(jobs: Any) -> Any:
        assert opened.wait(10)
        log.info("%d", len(jobs))
        return jobs

    requests = {
        id: RequestContext(id, span=SpanContext(1, 2, False)) for id in "abc"
    }  # which cannot be hashed, as real ones
    batcher: Batcher[int, int] = Batcher(run, name="network", max_size=8)

    async def asked(id: str) -> Batch | None:
        current.set((requests[id],))
        return (await batcher.submit(0)).batch

    async def scenario() -> list[Batch | None]:
        first = asyncio.create_task(asked("a"))
        await until(lambda: batcher.running == 1)
        others = [asyncio.create_task(asked(id)) for id in "bcb"]
        await until(lambda: batcher.waiting == 3)
        opened.set()
        return await asyncio.gather(first, *others)

    with logged() as lines:
        alone, shared, *others = play(batcher, scenario)
    assert [(line["message"], line.get("request_id"), line.get("request_ids")) for line in lines.json] == [
        ("1", "a", None), ("3", None, ["b", "c"]),
    ]  # fmt: skip
    assert alone is None
    assert shared.size == 3
    assert others == [shared, shared]


def test_a_line_about_a_jobs_image_names_the_job(guarded: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("service.jobs.answers.pipeline.segment", broken)
    with logged() as lines:
        job = begun(guarded, headers={"x-api-key": KEY})
        settled(guarded, job, headers={"x-api-key": KEY})
    failed = [line for line in lines.json if "exception" in line]
    assert len(failed) == 3
    assert {line.get("job_id") for line in failed} == {job}
    assert not any("request_id" in line for line in failed)


def test_every_request_has_a_line_that_programs_read(guarded: TestClient) -> None:
    client = guarded
    with logged() as lines:
        sent = {"x-api-key": KEY}
        client.post("/segment?format=png", content=PNG, headers={**sent, "x-request-id": "mine-1"})
        client.get("/clusters/77?token=abc", headers=sent)
        client.get("/clusters")
        client.get("/readyz")
    done, nothing, refused = [line for line in lines.json if "status" in line]
    assert done["took_ms"] > 0
    assert done["response_bytes"] > 50
    told = {name: done[name] for name in ("method", "path", "route", "status", "request_id", "key")}
    assert told == {
        "method": "POST", "path": "/segment", "route": "/segment", "status": 200, "request_id": "mine-1",
        "key": "alice",
    }  # fmt: skip
    assert done["model"].startswith("tiny@")
    assert done["message"].startswith("POST /segment 200 ")
    assert (nothing["status"], nothing["path"], nothing["route"]) == (422, "/clusters/77", "/clusters/{id:id}")
    assert (refused["status"], "key" in refused, "model" in refused) == (401, False, False)
    assert "abc" not in lines.text


def test_nothing_that_was_sent_is_in_the_log(guarded: TestClient) -> None:
    client = guarded
    damaged = [B64[:-7], B64[:100] + "*" + B64[100:], B64 * 3, f"data:image/png;base64,{B64[5:]}"]
    with logged() as lines:
        keys = ({"x-api-key": KEY}, {"authorization": f"Bearer {ADMIN}"}, {"x-api-key": KEY + "x"}, {"token": KEY})
        for path in ("/segment", "/segment?format=png", "/hf", "/similar?x=1&y=1", f"/segment?api_key={KEY}"):
            for sent, image in [*((key, B64) for key in keys), *((keys[0], image) for image in damaged)]:
                client.post(path, json={"image": image}, headers=sent)
                client.post(path, json={"inputs": image}, headers=sent)
            for body in (PNG, PNG[:-9], PNG[7:], JPEG[:80], TEXT, PNG + TEXT):
                client.post(path, content=body, headers=keys[0])
            client.post(path, files=[("image", ("private.png", PNG)), ("image", ("b", PNG[:60]))], headers=keys[0])
        task = {"tasks": [{"id": 1, "data": {"image": f"data:image/png;base64,{B64[:-9]}"}}], "label_config": "<View/>"}
        for path in ("/predict", "/label-studio/predict", "/v2/models/tiny/infer", "/clusters/1"):
            client.post(path, json=task, headers=keys[0])
            client.patch(path, json={"name": B64}, headers=keys[0])
            client.post(path, json={"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [B64]}]})
        client.post("/segment", json={"path": "private.png"}, headers=keys[0])
        client.post("/segment", json={"path": "../elsewhere/private.png"}, headers=keys[0])
        client.post("/models/tiny/load", json={"key": ADMIN}, headers=keys[1])
        job = begun(client, headers=keys[0])
        settled(client, job, headers=keys[0])
        client.delete(f"/jobs/{job}", headers=keys[0])
    text = lines.text
    assert len(lines.json) > 100
    assert {line["status"] for line in lines.json if "status" in line} >= {200, 202, 400, 401, 404, 422}
    for secret in (KEY, ADMIN, "0ther-secret"):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text
    for data in (B64, repr(PNG), PNG.hex()):
        for start in range(0, len(data) - 16, 8):
            assert data[start : start + 16] not in text, data[start : start + 16]
    assert "private" not in text
    assert not any("exception" in line for line in lines.json)


def test_of_a_failure_nobody_foresaw_the_log_tells_the_traceback_with_its_request(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"cannot write {PNG * 500!r}")

    monkeypatch.setattr("service.inference.pipeline.region_stats.compute", broken)
    with logged() as lines:
        answer = client.post("/segment", content=PNG)
    assert answer.status_code == 500
    failure = next(line for line in lines.json if "exception" in line)
    assert failure["request_id"] == answer.headers["x-request-id"]
    assert "RuntimeError" in failure["exception"]
    assert "in finish" in failure["exception"]
    assert len(failure["exception"]) < 17_000
