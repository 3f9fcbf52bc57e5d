"""The workers of one host, who ask each other over unix sockets in a folder that is theirs alone.

Knows nothing of what is asked. Nobody else on the host gets in: the folder is of mode 0700, and who connects has to be
of this process's user. A worker that is started anew has the name, and the socket, of the one before.
"""

import asyncio
import fcntl
import json
import logging
import os
import shutil
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from models.errors import TesseraError
from models.files import write_atomically
from service.fleet import messages
from service.fleet.counts import Count, Marks, Tally
from service.fleet.fleet import Call, Fleet, Reply, reply_of
from service.fleet.page import Page

log = logging.getLogger("tessera")

_LONGEST_PATH = 100  # of a unix socket; Linux takes 107 bytes
_SEND_S = 5.0
_POLL_S = 0.05


class UnixFleet(Fleet):
    """One of several workers.

    folder   theirs, of mode 0700, with their pages (`page.create`);  members  the names of all;  member  this one's
    """

    def __init__(self, folder: Path, members: Sequence[str], member: str) -> None:
        super().__init__()
        assert member in members, member
        self.folder: Path = folder
        self.member, self.members = member, tuple(members)
        self._server: asyncio.Server | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        if len(os.fsencode(self._socket(member))) > _LONGEST_PATH:
            raise TesseraError(f"{folder} is too long a name for sockets in it; set TMPDIR to a shorter one")
        self.late = self.kept("ready") is not None
        self._page = Page(folder, members, member)
        self._parent, self._there = os.getppid(), -1

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._there = os.open(self.folder / "there.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._there, fcntl.LOCK_SH)
        path = self._socket(self.member)
        path.unlink(missing_ok=True)  # of the worker before this one
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def close(self) -> None:
        """Let nobody in any more, and end the calls that are being answered."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._socket(self.member).unlink(missing_ok=True)
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def leave(self) -> None:
        """The last one deletes the folder where the parent, which else does, was killed."""
        if self._there >= 0 and os.getppid() != self._parent:
            with suppress(BlockingIOError):
                fcntl.flock(self._there, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.folder, ignore_errors=True)

    async def ask(self, call: str, arguments: Call | None = None, *, limit_s: float = 5.0) -> list[Reply]:
        """All others at once."""
        others = [member for member in self.members if member != self.member]
        message = {"call": call, "arguments": arguments or {}}
        return list(await asyncio.gather(*(self._ask(member, message, limit_s) for member in others)))

    @asynccontextmanager
    async def one_at_a_time(self, what: str) -> AsyncIterator[None]:
        """Waits until no other does it; a worker that dies meanwhile lets go."""
        with (self.folder / f"{what}.lock").open("wb") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL_S)
            yield

    def under_way(self, what: str) -> bool:
        """Whether some worker holds the lock."""
        try:
            with (self.folder / f"{what}.lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def keep(self, what: str, value: Any) -> None:
        """In a file of the folder. Raises OSError."""
        text = json.dumps(value).encode()
        write_atomically(self.folder / f"{what}.json", lambda file: file.write(text))

    def kept(self, what: str) -> Any:
        """What the file says."""
        try:
            return json.loads((self.folder / f"{what}.json").read_text())
        except FileNotFoundError:
            return None

    def count(self, name: str) -> Count:
        """In the workers' pages."""
        return self._page.count(name)

    def tally(self, name: str) -> Tally:
        """The same."""
        return self._page.tally(name)

    def marks(self, name: str) -> Marks:
        """The same."""
        return self._page.marks(name)

    def _socket(self, member: str) -> Path:
        return self.folder / f"{member}.sock"

    async def _ask(self, member: str, message: Call, limit_s: float) -> Reply:
        writer = None
        try:
            async with asyncio.timeout(limit_s):
                reader, writer = await asyncio.open_unix_connection(self._socket(member))
                await messages.send(writer, message)
                return reply_of(member, await messages.receive(reader))
        except TimeoutError:
            return Reply(member, error=f"it has not answered within {limit_s:g} s")
        except OSError as error:
            return Reply(member, error=f"it cannot be reached: {(error.strerror or str(error)).lower()}")
        except TesseraError as error:
            return Reply(member, error=str(error))
        finally:
            if writer is not None:
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            if not _of_this_user(writer):
                log.warning("another user's process tried to speak to the workers of this server, and was refused")
                return
            async with asyncio.timeout(_SEND_S):
                message = await messages.receive(reader)
            answer = await self.replied(message)
            async with asyncio.timeout(_SEND_S):
                await messages.send(writer, answer)
        except (OSError, TesseraError, TimeoutError) as error:
            log.debug("a call of another worker: %s", error)
        finally:
            self._under_way.discard(task)
            with suppress(OSError):
                writer.close()


def _of_this_user(writer: asyncio.StreamWriter) -> bool:
    if sys.platform != "linux":
        return True  # the folder's mode has to do
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as peer:
        _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.getuid())
