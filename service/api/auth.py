"""API keys: who asks, and what their key opens.

Only digests of the secrets are kept, and nothing here puts a secret into a message, a log line or a repr.

Knows nothing of routes, of images, of how many a caller may send (`admission.py`).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from hmac import compare_digest
from typing import Literal, NamedTuple

from service.errors import KeyMissing, NotAllowed
from service.settings import Settings, SettingsError

Scope = Literal["infer", "admin"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ADMIN = "admin"
_HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


class Caller(NamedTuple):
    """Who asks: a name for queues and counters, `` where nobody needs a key, and what it may do."""

    name: str
    scopes: frozenset[Scope]


_ANYBODY = Caller("", frozenset({"infer"}))


class ApiKeys:
    """The keys of one server."""

    def __init__(self, secrets: Mapping[str, str], admin_secret: str = "") -> None:
        """secrets  name → secret, of those who may infer; none: everybody may. admin_secret  empty: nobody is admin."""
        self._callers = [(_digest(secret), Caller(name, frozenset({"infer"}))) for name, secret in secrets.items()]
        self._open = not self._callers
        self._has_admin = bool(admin_secret)
        if admin_secret:
            self._callers.append((_digest(admin_secret), Caller(_ADMIN, frozenset({"infer", "admin"}))))

    def __repr__(self) -> str:
        return f"ApiKeys({', '.join(caller.name for _, caller in self._callers)})"

    @classmethod
    def from_settings(cls, settings: Settings) -> "ApiKeys":
        """The keys of TESSERA_KEYS and TESSERA_ADMIN_KEY. Raises SettingsError, showing no part of them."""
        secrets: dict[str, str] = {}
        entries = settings.keys.split(",") if settings.keys.strip() else []
        for i, entry in enumerate(entries, 1):
            name, equals, secret = (part.strip() for part in entry.partition("="))
            if not equals:
                raise _malformed(i, "has no '='; write name=secret, separated by commas")
            if not _NAME.fullmatch(name):
                raise _malformed(i, "needs a name before the '=': up to 64 of A-Z a-z 0-9 . _ -")
            if not secret:
                raise _malformed(i, "has no secret after the '='")
            if name == _ADMIN:
                raise _malformed(i, f"is called {_ADMIN!r}; that is the caller with TESSERA_ADMIN_KEY")
            if name in secrets:
                raise _malformed(i, "has the name of an earlier one; names are given once")
            if secret in secrets.values():
                raise _malformed(i, "has the secret of an earlier one; each name needs its own")
            secrets[name] = secret
        admin = settings.admin_key.strip()
        if admin in secrets.values():
            raise SettingsError(
                "TESSERA_ADMIN_KEY is also in TESSERA_KEYS: who may only ask could load and unload models; use another"
            )
        return cls(secrets, admin)

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Who sent a request with these headers (names in any case, as starlette's, or in lower case).

        Raises KeyMissing where keys are configured and none of them came.
        """
        if not self._callers:
            return _ANYBODY
        sent = False
        for secret in _sent(headers):
            sent = True
            digest = _digest_of_header(secret)
            known = [caller for own, caller in self._callers if compare_digest(own, digest)]
            if known:
                return known[0]
        if self._open:
            return _ANYBODY
        raise KeyMissing(f"this key is not known here; {_HOW}" if sent else f"a key is needed; {_HOW}")

    def admin(self, headers: Mapping[str, str]) -> Caller:
        """Who sent a request that only an admin may. Raises KeyMissing, NotAllowed."""
        if not self._has_admin:
            raise NotAllowed("nobody may do this here; set TESSERA_ADMIN_KEY and restart the server to open it")
        caller = self.authenticate(headers)
        if "admin" in caller.scopes:
            return caller
        if caller is _ANYBODY:
            raise KeyMissing(f"this needs the key in TESSERA_ADMIN_KEY; {_HOW}")
        raise NotAllowed(f"the key of {caller.name!r} opens {', '.join(caller.scopes)}; this needs TESSERA_ADMIN_KEY")


def _sent(headers: Mapping[str, str]) -> Iterator[str]:
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        yield token.strip()
    if key := headers.get("x-api-key", "").strip():
        yield key


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _digest_of_header(value: str) -> bytes:
    """Of the bytes that were sent: a header's text is its bytes read as latin-1."""
    return hashlib.sha256(value.encode("latin-1", "backslashreplace")).digest()


def _malformed(i: int, what: str) -> SettingsError:
    return SettingsError(f"TESSERA_KEYS: entry {i} {what}")
