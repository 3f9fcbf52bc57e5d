"""Where a server listens: which addresses, with which certificate, and under which path a proxy shows it.

Knows nothing of what is served, and keeps nothing open.
"""

import errno
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models.errors import TesseraError, UsageError
from service.errors import quoted

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class Binding(NamedTuple):
    """Where the server of an app listens, as far as the app has to know.

    loopback   this machine alone reaches it;  tls  it speaks https itself
    root_path  the path under which a proxy shows it, such as /tessera; `` for none
    """

    loopback: bool = False
    tls: bool = False
    root_path: str = ""


class PortTaken(TesseraError):
    """Some program listens there already."""


def is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is this machine's loopback. `` and `::` stand for all there are.

    Raises UsageError for a name that stands for none.
    """
    return all(_is_loopback(address) for _, address in _resolved(host, 0))


def check_free(host: str, port: int) -> None:
    """Raises PortTaken, and TesseraError where it is not allowed, or no address of this machine."""
    for family, address in _resolved(host, port):
        with _bound(family, address) as probe, _refused(address):
            probe.listen(1)


def shared(host: str, port: int) -> list[socket.socket]:
    """Sockets for every address that `host` stands for, bound beside those of other processes of this user: Linux deals
    connections out among all that listen. Raises PortTaken, TesseraError."""
    return [_bound(family, address, shared=True) for family, address in _resolved(host, port)]


def check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Raises UsageError when a server could not speak https with these; None, None: it shall not."""
    if certfile is None:
        if keyfile is not None:
            raise UsageError("--keyfile needs --certfile, the certificate that belongs to it")
        return
    for option, file in (("--certfile", certfile), ("--keyfile", keyfile)):
        if file is not None:
            try:
                file.read_bytes()
            except OSError as error:
                raise UsageError(f"{option}: {quoted(str(file), 200)} cannot be read: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password=_no_password)
    except (ssl.SSLError, ValueError) as error:  # ValueError: a password is wanted
        why = (getattr(error, "reason", None) or "ENCRYPTED_KEY").replace("_", " ").lower()
        raise UsageError(
            "--certfile and --keyfile: no certificate in PEM, or not the key that belongs to it, without a password"
            f" ({why}); the key may lie in the certificate's file"
        ) from None


def check_root_path(root_path: str) -> str:
    """The same path, without a slash at its end. Raises UsageError."""
    path = root_path.rstrip("/")
    if not _ROOT_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise UsageError(f"--root-path: {quoted(root_path)} is no path; write for instance /tessera")
    return path


def _resolved(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--host: {quoted(host)} is no address and no name that stands for one") from None
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _bound(family: socket.AddressFamily, address: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """A socket with an address; `shared`: others of this user may have it as well. Raises PortTaken, TesseraError."""
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no reason
    if shared:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        with _refused(address):
            door.bind(address)
    except TesseraError:
        door.close()
        raise
    return door


@contextmanager
def _refused(address: tuple[str, int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        kind = PortTaken if error.errno == errno.EADDRINUSE else TesseraError
        raise kind(f"cannot listen on {address[0]} port {address[1]}: {reason}; choose another") from None


def _is_loopback(address: tuple[str, int]) -> bool:
    ip = ipaddress.ip_address(address[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _no_password() -> str:
    raise ValueError
