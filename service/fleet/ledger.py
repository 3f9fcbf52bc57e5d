"""What a worker has told of its counters, kept in a file that outlives it: no counter falls when a worker dies.

Whatever a scrape has ever shown of a worker was written down before it was told. While the worker is gone the file
speaks for it; the worker that is started in its place counts on from there.

Knows nothing of what is counted.
"""

import logging
from pathlib import Path

from models.files import write_atomically
from service.fleet import exposition

log = logging.getLogger("tessera")


class Ledger:
    """Of one worker. `past` is what those before it under its name have told."""

    def __init__(self, folder: Path, member: str) -> None:
        self._file = _file(folder, member)
        self.past = told(folder, member)

    def tell(self, text: str) -> str:
        """This worker's metrics, with all that was counted under its name. Written down first: where that fails they
        are told all the same."""
        whole = exposition.merged([text, self.past])
        try:
            data = exposition.counts(whole).encode()
            write_atomically(self._file, lambda file: file.write(data))
        except OSError as error:
            log.error("what was counted cannot be kept for the case that this worker dies: %s", error)
        return whole


def told(folder: Path, member: str) -> str:
    """What a worker has told last of what only grows."""
    try:
        return _file(folder, member).read_text()
    except FileNotFoundError:
        return ""


def _file(folder: Path, member: str) -> Path:
    return folder / f"{member}.counts"
