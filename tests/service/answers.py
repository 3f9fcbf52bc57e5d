"""A photo to send, and what the tests of the routes ask of an answer."""

import base64
import io
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from models.io.encode import encode
from tests.tiny import bands

ROOT = Path(__file__).resolve().parents[2]
PHOTO = bands(60, 100)
PNG = encode(PHOTO, "png")
JPEG = encode(PHOTO, "jpeg", 95)
B64 = base64.b64encode(PNG).decode()
TEXT = b"this is a text file, not an image\n" * 40


def labels(answer: Any) -> np.ndarray[Any, Any]:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


def problem(answer: Any, status: int) -> str:
    """The detail of a sound problem document of this status."""
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    for leak in ("Traceback", str(ROOT), gettempdir(), "site-packages", "0x", ".py"):
        assert leak not in answer.text
    return str(document["detail"])
