"""What a job reads: the zip that was sent, a folder below a root, a folder of an object store.

Knows nothing of pixels, of HTTP, of who asks.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import TesseraError, UsageError
from service.errors import BadBody, BodyTooLarge
from service.offline.archive import ArchiveError, Bounds
from service.offline.sources import Finder, Found, Item


class SourceGone(TesseraError):
    """What a job reads is not there, or cannot be read now; says what would help."""


class TooManyFiles(TesseraError):
    """More images than one job may have."""


@dataclass(frozen=True)
class Source:
    """An open one.

    items     the images, each by its name below the source, in natural order
    unusable  what lies there and cannot be taken: its name, with a number behind one that is taken, and why
    left_out  files that are no images, by their names
    """

    items: list[Item]
    unusable: list[tuple[str, str]]
    left_out: int
    close: Callable[[], None]


def open_upload(file: Path, *, files: int, total_bytes: int) -> Source:
    """A zip on the disk, judged by its table. Raises BadBody, BodyTooLarge."""
    finder = Finder(bounds=Bounds(members=files, member_bytes=total_bytes, total_bytes=total_bytes))
    try:
        finder.archive(file)
        found = finder.found()
    except (ArchiveError, OSError) as error:
        finder.close()
        said = str(error).removeprefix(f"{file}: ") if isinstance(error, ArchiveError) else "it cannot be read"
        raise (BodyTooLarge if "divide it" in said else BadBody)(f"the zip: {said}") from None
    return _source(found, f"{file}!", finder.close)


def open_folder(folder: Path, root: Path, *, files: int) -> Source:
    """The images below a folder; none that lies, or leads, outside of the root. Raises SourceGone, TooManyFiles."""
    finder = Finder(inside=root)
    if not folder.is_dir():
        raise SourceGone("the folder is not there any more; put it back, and the job goes on")
    finder.folder(folder)
    found = finder.found()
    if len(found.items) > files:
        raise _too_many(files)
    return _source(found, f"{folder}/", finder.close)


def open_bucket(url: str, *, files: int) -> Source:
    """The images of an object store's folder. Raises SourceGone, TooManyFiles."""
    finder = Finder()
    try:
        finder.url(url)
        found = finder.found()
    except UsageError as error:
        raise SourceGone(f"{error}; once it can be read, the job goes on") from None
    if len(found.items) > files:
        raise _too_many(files)
    return _source(found, "", finder.close)


def _source(found: Found, prefix: str, close: Callable[[], None]) -> Source:
    items = [replace(item, name=_text(item.name)) for item in found.items]
    taken, alike, unusable = {item.name for item in items}, Counter[str](), []
    for skipped in found.unusable:
        name = own = _text(str(skipped.path).removeprefix(prefix))
        while name in taken:
            alike[own] += 1
            name = f"{own} ({alike[own] + 1})"
        taken.add(name)
        unusable.append((name, skipped.reason))
    return Source(items, unusable, sum(found.left_out.values()), close)


def _text(name: str) -> str:
    """A file's name as text, whatever bytes it has."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _too_many(files: int) -> TooManyFiles:
    return TooManyFiles(
        f"there are more than {files} images, the most of one job (TESSERA_MAX_JOB_FILES); name a folder further down"
    )
