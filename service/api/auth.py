"""API keys: who asks, and what their key opens.

Only digests of the secrets are kept, and nothing here puts a secret into a message, a log line or a repr.

Knows nothing of routes, of images, of how many a caller may send (`admission.py`).
"""

import base64
import hashlib
import logging
from collections.abc import Mapping
from hmac import compare_digest

from service.api.key_settings import ADMIN, SCOPES, Caller, Key, Scope, read_keys
from service.api.wrong_keys import WrongKeys
from service.errors import KeyMissing, NotAllowed
from service.fleet.fleet import Fleet
from service.settings import Settings, SettingsError

log = logging.getLogger("tessera")

_HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_ANYBODY = Caller("", frozenset({"infer", "edit"}))


class ApiKeys:
    """The keys of one server."""

    def __init__(self, settings: Settings, fleet: Fleet | None = None) -> None:
        """Those of TESSERA_KEYS, TESSERA_ADMIN_KEY, or their files. Raises SettingsError, showing no part of them.

        fleet  the servers that count wrong keys together
        """
        self._settings = settings
        self._keys: tuple[Key, ...] = read_keys(settings)
        self._wrong = WrongKeys(fleet=fleet)

    def __repr__(self) -> str:
        return f"ApiKeys({', '.join(key.caller.name for key in self._keys)})"

    @property
    def needed(self) -> bool:
        """Whether only who has a key may ask."""
        return bool(self._keys) and self._keys[0].caller.name != ADMIN

    def reload(self) -> None:
        """Read the files again. What cannot be used changes nothing, and the log says why."""
        try:
            self._keys = read_keys(self._settings)
        except SettingsError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("keys read again: %s", ", ".join(key.caller.name for key in self._keys) or "none is needed")

    def authenticate(self, headers: Mapping[str, str], address: str = "") -> Caller:
        """Who sent a request with these headers (names in any case, as starlette's, or in lower case).

        address  the client's; it waits when it has sent many wrong keys

        Raises KeyMissing where keys are configured and none of them came, TooManyWrongKeys.
        """
        if not self._keys:
            return _ANYBODY
        return self._caller(headers, address, required=self.needed)

    def allow(self, scope: Scope, headers: Mapping[str, str], address: str = "") -> Caller:
        """Who sent a request that needs `scope`. Raises KeyMissing, NotAllowed, TooManyWrongKeys."""
        if scope == "admin":
            if not self._keys or self._keys[-1].caller.name != ADMIN:
                raise NotAllowed("nobody may do this here; set TESSERA_ADMIN_KEY and restart the server to open it")
            caller = self._caller(headers, address, required=True)
        else:
            caller = self.authenticate(headers, address)
        if scope in caller.scopes:
            return caller
        opened = ", ".join(one for one in SCOPES if one in caller.scopes)
        needs = "TESSERA_ADMIN_KEY" if scope == "admin" else f"{scope!r}: TESSERA_KEYS gives scopes as name:{scope}=…"
        raise NotAllowed(f"the key of {caller.name!r} opens {opened}; this needs {needs}")

    def _caller(self, headers: Mapping[str, str], address: str, *, required: bool) -> Caller:
        """Who sent these headers. Where none is `required` a wrong key is no guess, as it opens nothing more."""
        sent = _sent(headers)
        digest = hashlib.sha256(sent.encode("latin-1", "backslashreplace")).digest()  # of the bytes as they came
        found = [key.caller for key in self._keys if compare_digest(key.digest, digest)] if sent else []
        if required and sent:
            self._wrong.judge(address, digest, known=bool(found))
        if found:
            return found[0]
        if not required:
            return _ANYBODY
        which = "a key" if self.needed else "the key in TESSERA_ADMIN_KEY"
        raise KeyMissing(f"this key is not known here; {_HOW}" if sent else f"{which} is needed; {_HOW}")


def _sent(headers: Mapping[str, str]) -> str:
    """The one key of a request; `` for none. X-API-Key, or X-AnyLabeling's Token, goes before Authorization, which may
    be a proxy's own. Label Studio's Basic has the key as its password, or as its user's name."""
    if key := headers.get("x-api-key", "").strip() or headers.get("token", "").strip():
        return key
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(token, validate=True).decode("latin-1").partition(":")
        except ValueError:
            return ""
        return password or user
    return token.strip() if scheme.lower() == "bearer" else ""
