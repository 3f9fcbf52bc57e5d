"""Messages on a stream between two servers: four bytes that say how long, then a JSON object.

Knows nothing of addresses, or of who is at the other end: whoever opens the stream has made sure of that.
"""

import asyncio
import json
import struct
from typing import Any

from models.errors import TesseraError

MOST_BYTES = 16 * 2**20
_LENGTH = struct.Struct(">I")


class NoMessage(TesseraError):
    """What came is no message, or too large for one."""


async def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Returns once it has left. Raises NoMessage, OSError; whoever sends bounds the time."""
    data = json.dumps(message).encode()
    if len(data) > MOST_BYTES:
        raise NoMessage(f"a message of {len(data)} bytes is more than the {MOST_BYTES} that one may have")
    writer.write(_LENGTH.pack(len(data)) + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next one. Raises NoMessage, OSError; whoever reads bounds the time."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MOST_BYTES:
            raise NoMessage(f"a message of {length} bytes is announced, more than the {MOST_BYTES} that one may have")
        message = json.loads(await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        raise NoMessage("the connection ended within a message") from None
    except (ValueError, RecursionError):
        raise NoMessage("what came is no JSON") from None
    if not isinstance(message, dict):
        raise NoMessage("what came is JSON, but no object")
    return message
