"""`tessera serve --workers N`: from one command to N processes of it on one address, and each one's part.

Knows nothing of what is served.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from models import hardware
from models.errors import TesseraError, UsageError
from service import supervisor
from service.api import binding
from service.errors import quoted
from service.fleet import page
from service.fleet.unix_fleet import UnixFleet

log = logging.getLogger("tessera")

MOST = 256


class Part(NamedTuple):
    """Which worker of how many this process is, and the folder in which they meet."""

    number: int
    of: int
    folder: Path

    @classmethod
    def parse(cls, text: str) -> "Part":
        """As the parent writes it: NUMBER/OF:FOLDER. Raises UsageError."""
        which, _, folder = text.partition(":")
        number, _, of = which.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) and Path(folder).is_dir()):
            raise UsageError(f"--worker {quoted(text)}: it is what --workers says to the processes that it starts")
        return cls(int(number), int(of), Path(folder))

    def fleet(self) -> UnixFleet:
        """It and the others; from now on the processor's cores are shared with them."""
        hardware.share_cores(hardware.share(hardware.cores(), self.number, self.of))
        return UnixFleet(self.folder, _names(self.of), str(self.number))


def become(count: int, host: str, port: int) -> None:
    """This process becomes the parent of so many workers, a small one. Raises UsageError, TesseraError."""
    if sys.platform != "linux":
        raise UsageError("--workers: only Linux deals connections out among several processes; start one server")
    cores = hardware.cores()
    if count > cores:
        log.warning("--workers %d: there are %d cores here; more workers than cores only cost memory", count, cores)
    binding.check_free(host, port)
    try:
        folder = Path(tempfile.mkdtemp(prefix="tessera-"))  # of mode 0700
        page.create(folder, _names(count))
    except OSError as error:
        raise TesseraError(
            f"--workers: there is no folder to meet in ({error.strerror}); set TMPDIR to one that can be written"
        ) from None
    crew = [supervisor.__file__, "--crew", str(count), str(folder), sys.executable, *sys.orig_argv[1:]]
    os.execv(sys.executable, [sys.executable, "-P", *crew])


def _names(count: int) -> list[str]:
    return [str(number + 1) for number in range(count)]
