"""The log on stderr: lines for people, or with TESSERA_LOG=json one JSON object a line for programs.

Knows nothing of what is told. Every process of a server calls `set_up` once; what it writes is one line, bounded, and
without characters that no reader sees.

An object's names are plain words with their units; `trace_id` and `span_id` are those that OpenTelemetry gives them in
logs of other formats. In this order, and only where they say something:

    time, level, logger, message         time in UTC, RFC 3339, with milliseconds
    request_id, trace_id, span_id        of the request that the line is about, also deep down and in threads;
    job_id                               or of the job; request_ids of a run of the network that served several requests
    method, path, route, status, took_ms, response_bytes, model, key    of the line for each request; no query
    exception                            type, message and traceback in one text
    pid, and what `set_up` was given     of the process
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, get_args

from models.errors import UsageError
from service.errors import nearest, printable, quoted
from service.request_context import current

log = logging.getLogger("tessera")

LogFormat = Literal["text", "json"]
_MESSAGE = 8192  # characters of a line
_EXCEPTION = 16384  # of a traceback, whose ends say most
_CUT = "… [cut] …"


def set_up(how: str, always: Mapping[str, str | int] | None = None) -> None:
    """From now on this process logs to stderr, as TESSERA_LOG says: `text`, the same as ``, or `json`.

    always  what every JSON line tells besides, such as the worker, which lines for people tell as [1]

    Raises UsageError for anything else.
    """
    how = how or "text"
    if how not in get_args(LogFormat):
        known = " nor ".join(get_args(LogFormat))
        raise UsageError(f"TESSERA_LOG: {quoted(how)} is neither {known}{nearest(how, get_args(LogFormat))}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine(always or {}) if how == "json" else TextLine(always or {}))
    root = logging.getLogger()
    for earlier in [earlier for earlier in root.handlers if isinstance(earlier.formatter, JsonLine | TextLine)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells the query of all it fetches
    if how == "json":  # what else Python itself would print in lines of its own
        logging.captureWarnings(True)
        sys.excepthook = _excepthook
        threading.excepthook = _thread_excepthook
        sys.unraisablehook = _unraisable


def in_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonLine) for handler in logging.getLogger().handlers)


class TextLine(logging.Formatter):
    """A clock, a level, which worker, a message; what somebody wrote breaks no line, and turns none around."""

    def __init__(self, always: Mapping[str, str | int]) -> None:
        worker = f"[{always['worker']}] " if "worker" in always else ""
        super().__init__(f"%(asctime)s %(levelname)-7s {worker}%(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before a traceback."""
        record.message = _line(record.message)
        return super().formatMessage(record)

    def formatException(self, error: Any) -> str:
        """A traceback, bounded."""
        return _lines(super().formatException(error))


class JsonLine(logging.Formatter):
    """One object: ASCII, without a line break. `always` goes with each."""

    def __init__(self, always: Mapping[str, str | int]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """The line. What cannot be said in a line, of a message whose arguments do not fit, is said of the message."""
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!r}, which cannot be filled in: {type(error).__name__}"
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _line(message),
            **_whose(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = _lines(self.formatException(record.exc_info))
        if record.stack_info:
            told["stack"] = _lines(record.stack_info)
        return json.dumps({**told, "pid": os.getpid(), **self._always}, default=_told_as)


def _whose() -> dict[str, Any]:
    """The request, or the job, that is worked on here."""
    requests = current.get()
    if len(requests) != 1:
        return {"request_ids": [request.id or request.job_id for request in requests]} if requests else {}
    request = requests[0]
    if request.job_id:
        return {"job_id": request.job_id}
    told = {"request_id": request.id}
    if request.span is not None:
        told |= {"trace_id": f"{request.span.trace_id:032x}", "span_id": f"{request.span.span_id:016x}"}
    return told


def _line(text: str) -> str:
    return printable(text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]}{_CUT[:-2]} of {len(text)} characters")


def _lines(text: str) -> str:
    if len(text) > _EXCEPTION:
        text = f"{text[: _EXCEPTION // 4]}\n{_CUT}\n{text[-_EXCEPTION * 3 // 4 :]}"
    return "\n".join(printable(line) for line in text.split("\n"))


def _told_as(value: object) -> str:
    return quoted(str(value))


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, traceback))


def _thread_excepthook(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit or failed.exc_value is None:
        return
    name = failed.thread.name if failed.thread is not None else "a thread"
    log.error("%s ended: %s", name, failed.exc_value, exc_info=failed.exc_value)


def _unraisable(failed: "sys.UnraisableHookArgs") -> None:
    log.error("%s", failed.err_msg or "an exception that nobody could be told", exc_info=failed.exc_value)
