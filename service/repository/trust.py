"""The operator's list of bundles that may be served: digests in a file, read at every load.

Knows nothing of what is in a bundle. A digest is the sha256 of manifest.json, which holds that of every other file, so
`sha256sum BUNDLE/manifest.json` writes a line of the list.
"""

import re
from pathlib import Path

from models.bundle import BundleError
from service.settings import PREFIX, SettingsError

_SETTING = f"{PREFIX}TRUST"
_MAX_BYTES = 2**20
_LINE = re.compile(r"\\?([0-9A-Fa-f]{64})(?:\s.*)?")  # sha256sum opens the line of an odd file name with a backslash


class TrustList:
    """The digests of a file, one a line with whatever name behind it, `#` before a comment. None: every bundle passes.

    Raises SettingsError where the file cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            self._digests(path)

    def check(self, name: str, digest: str) -> None:
        """Raises BundleError for a digest that is not listed now, and where the file has become unusable."""
        if self._path is None:
            return
        try:
            listed = self._digests(self._path)
        except SettingsError as error:
            raise BundleError(f"{name} is not served: {error}") from None
        if digest not in listed:
            raise BundleError(
                f"{name}: its digest {digest} is not in {self._path.name}, the list of {_SETTING}: if you trust where"
                " it comes from, add the digest there and load it again"
            )

    def _digests(self, path: Path) -> frozenset[str]:
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES + 1).decode("utf-8-sig")
        except OSError as error:
            raise SettingsError(f"{_SETTING}: {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{_SETTING}: {path} is no text; it lists digests, one a line") from None
        if len(text) > _MAX_BYTES:
            raise SettingsError(
                f"{_SETTING}: {path} is larger than {_MAX_BYTES // 2**20} MiB; it lists digests, one a line"
            )
        digests = set()
        for number, line in enumerate(map(str.strip, text.splitlines()), 1):
            if not line or line.startswith("#"):
                continue
            if (found := _LINE.fullmatch(line)) is None:
                raise SettingsError(
                    f"{_SETTING}: {path}, line {number} begins with no digest: 64 hexadecimal digits, as sha256sum"
                    " writes them for a bundle's manifest.json"
                )
            digests.add(found[1].lower())
        return frozenset(digests)
