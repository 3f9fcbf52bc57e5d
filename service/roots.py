"""Paths that a request may name: below the folders in TESSERA_ROOTS, links followed, and nowhere else.

Knows nothing of what lies there. What lies outside of the roots is not told apart from what does not exist.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from service.errors import BadOption, NotAllowed, NotFound, quoted
from service.settings import Settings

_MOST = 4096
# No '::' chains other file systems before a bucket's, no '?' or '*' is a pattern, and nothing names a host.
_BUCKET = re.compile(r"(s3|gs|gcs|az|abfs)://[^\s/:?#*\[\]{}\\@]+(/[^:?#*\[\]{}\\\x00-\x1f\x7f]*)?")


class Rooted(NamedTuple):
    """A real path, without links, and the real root that it is below, or is."""

    path: Path
    root: Path


class Roots:
    """The folders of one server, and those of object stores, as URLs."""

    def __init__(self, folders: Sequence[Path], buckets: Sequence[str] = ()) -> None:
        self._folders, self._buckets = folders, buckets

    @classmethod
    def from_settings(cls, settings: Settings) -> "Roots":
        """Those of TESSERA_ROOTS and TESSERA_BUCKETS."""
        return cls(settings.roots, [url.strip() for url in settings.buckets.split(",") if url.strip()])

    def resolve(self, text: str) -> Rooted:
        """What an absolute path, one that is relative to a root, or a file:// URL names, where it is there.

        Raises BadOption for what is no path, NotAllowed where there is no root, NotFound.
        """
        if not self._folders:
            raise NotAllowed("no path is read here; set TESSERA_ROOTS to the folders that requests may name")
        wanted = _path(text)
        for folder in self._folders:
            root = os.path.realpath(folder)
            try:
                found = os.path.realpath(os.path.join(root, wanted), strict=True)
            except (OSError, ValueError):
                continue
            if found == root or found.startswith(root.rstrip("/") + "/"):
                return Rooted(Path(found), Path(root))
        raise NotFound(f"{quoted(text, 200)} is not below a folder of TESSERA_ROOTS, or leads out of it")

    def folder(self, text: str) -> Rooted:
        """The same for a folder. Raises BadOption for a file besides."""
        found = self.resolve(text)
        if not found.path.is_dir():
            raise BadOption(f"path: {quoted(text, 200)} is no folder; name the folder that holds the images")
        return found

    def bucket(self, url: str) -> str:
        """The URL of an object store's folder that lies below one of TESSERA_BUCKETS, or is one. Raises NotFound."""
        whole = url.rstrip("/") + "/"
        plain = _BUCKET.fullmatch(url) is not None and len(url) <= _MOST and not {".", ".."} & set(url.split("/"))
        if plain and any(whole.startswith(root.rstrip("/") + "/") for root in self._buckets):
            return url.rstrip("/")
        raise NotFound(
            f"{quoted(url, 200)} is below no folder of TESSERA_BUCKETS; name one that is, such as s3://photos/2026"
        )


def is_bucket(place: str) -> bool:
    """Whether a place is meant as an object store's."""
    return "://" in place and not place.lower().startswith("file:")


def _path(text: str) -> str:
    if text.lower().startswith("file:"):
        url = urlsplit(text)
        if url.netloc not in ("", "localhost") or url.query or url.fragment or not url.path.startswith("/"):
            raise BadOption(f"path: {quoted(text, 200)} is no file:///folder URL of this machine")
        text = unquote(url.path, errors="surrogateescape")
    if not text or "\0" in text or len(text) > _MOST:
        raise BadOption("path: it is empty, too long, or holds a NUL; name a folder below one of TESSERA_ROOTS")
    return text
