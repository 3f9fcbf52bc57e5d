"""API keys as the operator writes them: TESSERA_KEYS and TESSERA_ADMIN_KEY, or the files that hold them.

Secrets leave this module as digests, and are part of no message, log line or repr.

Knows nothing of requests.
"""

import hashlib
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from service.errors import quoted
from service.settings import Settings, SettingsError

log = logging.getLogger("tessera")

Scope = Literal["infer", "edit", "admin"]
SCOPES: tuple[Scope, ...] = ("infer", "edit", "admin")
ADMIN = "admin"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GIVEN: dict[str, frozenset[Scope]] = {
    "": frozenset({"infer", "edit"}),
    "infer": frozenset({"infer"}),
    "edit": frozenset({"edit"}),
    "infer+edit": frozenset({"infer", "edit"}),
    "edit+infer": frozenset({"infer", "edit"}),
}
_MOST_BYTES = 2**20


class Caller(NamedTuple):
    """Who asks: a name for queues and counters, `` where nobody needs a key, and what it may do."""

    name: str
    scopes: frozenset[Scope]


class Key(NamedTuple):
    """A secret's digest, and whom it lets in."""

    digest: bytes
    caller: Caller


def read_keys(settings: Settings) -> tuple[Key, ...]:
    """Every key of these settings, the admin's last. Raises SettingsError, showing no part of a secret."""
    keys: list[Key] = []
    source = "TESSERA_KEYS_FILE" if settings.keys_file else "TESSERA_KEYS"
    for place, entry in _entries("TESSERA_KEYS", settings.keys, settings.keys_file):
        keys.append(_key(f"{source}: {place}", entry, keys))
    source = "TESSERA_ADMIN_KEY_FILE" if settings.admin_key_file else "TESSERA_ADMIN_KEY"
    for i, secret in enumerate(_admin_secrets(settings)):
        digest = digest_of(secret)
        if i > 0:
            raise SettingsError(f"{source} holds more than one key; there is one")
        if any(key.digest == digest for key in keys):
            raise SettingsError(
                f"{source} is also in TESSERA_KEYS: who may only ask could load and unload models; use another"
            )
        keys.append(Key(digest, Caller(ADMIN, frozenset(SCOPES))))
    return tuple(keys)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _key(place: str, entry: str, earlier: list[Key]) -> Key:
    label, equals, secret = (part.strip() for part in entry.partition("="))
    if not equals:
        raise SettingsError(f"{place} has no '='; write name=secret, separated by commas")
    name, colon, scopes = (part.strip() for part in label.partition(":"))
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{place} needs a name before the '=': up to 64 of A-Z a-z 0-9 . _ -")
    if scopes not in _GIVEN or (colon and not scopes):
        raise SettingsError(
            f"{place} has no scope we know after the ':'; name:infer=…, name:edit=… or name:infer+edit=…"
        )
    if not secret:
        raise SettingsError(f"{place} has no secret after the '='")
    if name == ADMIN:
        raise SettingsError(f"{place} is called {ADMIN!r}; that is the caller with TESSERA_ADMIN_KEY")
    key = Key(digest_of(secret), Caller(name, _GIVEN[scopes]))
    if any(name == other.caller.name for other in earlier):
        raise SettingsError(f"{place} has the name of an earlier one; names are given once")
    if any(key.digest == other.digest for other in earlier):
        raise SettingsError(f"{place} has the secret of an earlier one; each name needs its own")
    return key


def _entries(variable: str, text: str, file: Path | None) -> Iterator[tuple[str, str]]:
    """Where each entry stands, for a message, and the entry."""
    if file is None:
        for i, entry in enumerate(text.split(",") if text.strip() else [], 1):
            yield f"entry {i}", entry
        return
    found = False
    for i, line in enumerate(_lines(variable, text, file), 1):
        if not line or line.startswith("#"):
            continue
        for entry in line.removesuffix(",").split(","):
            found = True
            yield f"line {i}", entry
    if not found:  # without keys everybody may ask: that is not what a file of keys is for
        raise SettingsError(f"{variable}_FILE: {quoted(str(file), 200)} holds no key")


def _admin_secrets(settings: Settings) -> list[str]:
    if settings.admin_key_file is None:
        return [secret] if (secret := settings.admin_key.strip()) else []
    return [entry for _, entry in _entries("TESSERA_ADMIN_KEY", settings.admin_key, settings.admin_key_file)]


def _lines(variable: str, text: str, file: Path) -> list[str]:
    shown = f"{variable}_FILE: {quoted(str(file), 200)}"
    if text:
        raise SettingsError(f"{variable} and {variable}_FILE are both set; keep one of them")
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(file.stat().st_mode)
            data = opened.read(_MOST_BYTES + 1)
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise SettingsError(f"{shown} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{shown} is not UTF-8 text") from None
    if len(data) > _MOST_BYTES or b"\0" in data:
        raise SettingsError(f"{shown} is no file of keys: it is larger than 1 MiB, or binary")
    if mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this machine; chmod 600 it (mode 0400 of a mounted secret)", shown)
    return [line.strip() for line in lines]
