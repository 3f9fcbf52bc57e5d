"""uvicorn's server, with an end that loses nothing: it says `not ready`, serves on, closes its door, finishes its work.

One clock counts from SIGTERM: for TESSERA_LAME_DUCK_S everything is served as always and only /readyz says no. Then who
already waits at the door is let in, and the door is closed; requests that came are finished, further ones on open
connections are refused. At TESSERA_DRAIN_S whatever is left is ended.

Knows nothing of what is served.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

import uvicorn

from service.api.connections import Connections
from service.api.state import AppState, Lifecycle
from service.metrics import tessera_version
from service.scheduling.background import spawn

log = logging.getLogger("tessera")

_STEP_S = 0.02
_DOOR_S = 1.0  # at most, until nobody waits at the door any more
_HANDSHAKE_S = 0.1  # for clients elsewhere whose connection is being made
_LOOPBACK_S = 0.01  # for those of this machine, whose processor may be busy
_APP_S = 3.0  # for the app's own end, and the interpreter's
_LATE_S = 0.45  # for the same where the time is up already
_SO_ATTACH_FILTER = 26
# Classic BPF over a TCP header, 13 bytes into it the flags: of SYN and ACK, SYN alone is dropped.
_LOAD_13, _AND, _IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_NO_SYN = b"".join(
    struct.pack("HBBI", *line)
    for line in (
        (_LOAD_13, 0, 0, 13),
        (_AND, 0, 0, 0x12),
        (_IF_EQUAL, 0, 1, 2),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 2**32 - 1),
    )
)


class Server(uvicorn.Server):
    """uvicorn, that says `not ready` and finishes its work before it ends.

    connections  those its protocol counts;  lame_duck_s  as the settings say, or what suits the address
    """

    def __init__(
        self, config: uvicorn.Config, state: AppState, connections: Connections, lame_duck_s: float = 0.0
    ) -> None:
        super().__init__(config)
        self._state = state
        self._connections = connections
        self._lame_duck_s = min(lame_duck_s, state.settings.drain_s)
        self._told_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says where it listens once it does."""
        if self._state.settings.crf == "dense":
            self._state.runtime.warmup.look()
        await super().startup(sockets)
        self._watching = spawn(self._connections.watch(), "watch over connections")
        if self.started and self._state.lifecycle is not Lifecycle.FAILED:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host or "[::]"
            where = f"http{'s' if self.config.is_ssl else ''}://{host}:{self.config.port}/"
            if not self._state.fleet.late:
                log.info("tessera %s on %s — POST /segment, or open it in a browser", tessera_version(), where)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains; Ctrl-C does without the lame duck; a second signal ends what is running."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        if self._told_at is not None:
            self.should_exit = self.force_exit = True
            return
        self._told_at = time.monotonic()
        if self._state.lifecycle is not Lifecycle.FAILED:
            self._state.lifecycle = Lifecycle.LEAVING

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to close?"""
        if self._state.lifecycle is Lifecycle.FAILED:
            return True
        if self._told_at is not None and time.monotonic() >= self._told_at + self._lame_duck_s:
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the door, finishes what came in, ends what is left when the time is up."""
        failed = self._state.lifecycle is Lifecycle.FAILED
        ends_at = (self._told_at or time.monotonic()) + (0 if failed else self._state.settings.drain_s)
        if self._state.starting is not None:
            self._state.starting.cancel()  # what waits for the CRF's code is answered without
        await self._close_door()
        if not failed:
            log.info("draining: new work is refused, what is in the house is finished")
            self._state.drain()
        self._connections.drain()
        while (len(self._connections) or self.server_state.tasks) and not self.force_exit:
            if time.monotonic() >= ends_at:
                break
            await asyncio.sleep(_STEP_S)
        await self._end(1 if failed else 0)

    async def _close_door(self) -> None:
        """Who has connected is let in; from then on nobody can: closing on waiting connections would reset them."""
        doors = [_same(door) for server in self.servers for door in server.sockets]
        for door in doors:
            _admit_nobody_new(door)
        await asyncio.sleep(_HANDSHAKE_S if self._lame_duck_s else _LOOPBACK_S)
        latest = time.monotonic() + _DOOR_S
        await asyncio.sleep(0)
        while any(map(_waiting, doors)) and time.monotonic() < latest:
            await asyncio.sleep(0.001)
        for door in doors:
            door.close()
        for server in self.servers:
            server.close()

    async def _end(self, code: int) -> None:
        """The time is up, or nothing is left."""
        tasks = self.server_state.tasks
        leave_within(_LATE_S if tasks else _APP_S, code)
        self._watching.cancel()
        if tasks:
            why = "told to end at once" if self.force_exit else "the time is up (TESSERA_DRAIN_S)"
            log.warning("%s: %d requests that are not finished are ended", why, len(tasks))
        self._connections.end()
        if left := list(tasks):  # most of them end by themselves, as their clients seem to be gone
            await asyncio.wait(left, timeout=_LATE_S / 3)
        await self.lifespan.shutdown()
        self._state.fleet.leave()
        log.info("ended")
        if not self._captured_signals:  # of Ctrl-C the interpreter makes what shells expect
            leave(code)  # threads that still load a network are not waited for, and not in the way


def leave_within(seconds: float, code: int) -> None:
    """Ends this process with a code, unless it has ended by itself: a thread that hangs does not keep it."""
    timer = threading.Timer(seconds, leave, (code,))
    timer.daemon = True
    timer.start()


def leave(code: int) -> None:
    """Ends this process now."""
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _same(door: socket.socket) -> socket.socket:
    """The event loop shows its sockets without most of their methods: another handle of the same one."""
    return socket.socket(fileno=os.dup(door.fileno()))


def _admit_nobody_new(door: socket.socket) -> None:
    """From now on the first packet of a connection is dropped, as if it were lost, where the system can do that."""
    lines = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    program = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(lines))
    if sys.platform == "linux":
        with suppress(OSError):
            door.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _waiting(door: socket.socket) -> int:
    """How many connections wait to be accepted (Linux: tcp_info.tcpi_unacked of a listening socket)."""
    if sys.platform != "linux":
        return 0
    try:
        return int(struct.unpack_from("I", door.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0])
    except OSError:
        return 0
