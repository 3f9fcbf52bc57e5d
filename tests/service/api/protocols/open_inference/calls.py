"""Bodies of …/infer, as the tests write them by hand."""

import json
from typing import Any

from tests.service.answers import B64, PHOTO, PNG

INFER = "/v2/models/tiny/infer"
PIXELS = PHOTO[None]


def image(**changes: Any) -> dict[str, Any]:
    """One file in base64."""
    return {"inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [B64], **changes}]}


def pixels(**changes: Any) -> dict[str, Any]:
    """One image in numbers."""
    return {
        "inputs": [
            {"name": "PIXELS", "shape": [1, 60, 100, 3], "datatype": "UINT8", "data": PIXELS.tolist(), **changes}
        ]
    }


def elements(*files: bytes) -> bytes:
    """A tensor of BYTES."""
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def binary(tensor: bytes = elements(PNG), name: str = "IMAGE", **changes: Any) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and bytes, and its header."""
    known = {"IMAGE": {"shape": [1], "datatype": "BYTES"}, "PIXELS": {"shape": [1, 60, 100, 3], "datatype": "UINT8"}}
    given = {"name": name, **known[name], "parameters": {"binary_data_size": len(tensor)}, **changes}
    head = json.dumps({"inputs": [given]}).encode()
    return head + tensor, {"inference-header-content-length": str(len(head))}
