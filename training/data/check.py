"""Every image opened once: which can be used, why the others cannot, what the decoder remarked.

Knows nothing of folders or data sets. What an index remembers of a file that did not change is not looked at again.
"""

import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.errors import TesseraError
from models.io.paths import Paths, Skipped
from models.terminal.progress import Progress, say
from training.data.errors import reason_of
from training.data.image_index import ImageIndex, Looked, Stamp
from training.data.images import LEAST_VALID, Found
from training.data.prefetch import prefetch

SMALLEST_SIDE_PX = 16
_VERSION = 1  # of what is remembered: raise it when a file would be judged otherwise
_BATCH = 32  # files that a thread looks at in one go
_REMARKS = 8  # kinds of them that are told


@dataclass(frozen=True)
class Checked:
    """paths: those that can be used;  sizes: their bytes, int64 [n];  skipped: the others."""

    paths: Paths
    sizes: NDArray[np.int64]
    skipped: list[Skipped]


def check(found: Found, console: Console, index: Path | None = None) -> Checked:
    """Decodes every file once, in threads. What the decoder remarks is told once for all of them.

    index  file that remembers what was found, for the next time; None: nothing is remembered
    """
    texts = found.paths.texts if isinstance(found.paths, Paths) else [str(path) for path in found.paths]
    batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    good, sizes, skipped, remarks = [], [], list(found.unusable), Counter[str]()
    with (
        ImageIndex(index, "" if index is None else key_of(found)) as memory,
        Progress(console, "reading", len(texts)) as bar,
    ):
        for seen in prefetch(partial(_look_at, found, memory), batches, min(8, os.cpu_count() or 1)):
            for text, size, (reason, warnings) in seen:
                if reason is None:
                    good.append(text)
                    sizes.append(size)
                    remarks.update(set(warnings))
                else:
                    skipped.append(Skipped(Path(text), reason))
            bar.advance(len(seen), note=f"{len(skipped)} unreadable" if skipped else "")
    for remark, count in remarks.most_common(_REMARKS):
        say(console, f"{count} image{'s' * (count != 1)}: {remark}")
    if len(remarks) > _REMARKS:
        say(console, f"and {len(remarks) - _REMARKS} other remarks, each of fewer images")
    return Checked(Paths(good), np.array(sizes, np.int64), skipped)


def key_of(found: Found) -> str:
    """What decides, besides the files, what opening them shows."""
    return f"{_VERSION} {found.read.__module__}.{found.read.__qualname__} {found.bands}"


def _look_at(found: Found, memory: ImageIndex, texts: list[str]) -> list[tuple[str, int, Looked]]:
    """(path, bytes, what opening it shows or showed) of some files; what a disk refuses is not remembered."""
    stamps, lost = dict[str, Stamp](), dict[str, Looked]()
    for text in texts:
        try:
            facts = os.stat(text)
            stamps[text] = Stamp(facts.st_size, facts.st_mtime_ns)
        except OSError as error:
            lost[text] = Looked(reason_of(error))
    known, new = memory.known(stamps), dict[str, Looked]()
    for text in stamps.keys() - known.keys():
        try:
            new[text] = _look(found, Path(text))
        except OSError as error:
            lost[text] = Looked(reason_of(error))
    memory.remember((text, stamps[text], looked) for text, looked in new.items())
    seen = known | new | lost
    return [(text, stamps[text].size if text in stamps else 0, seen[text]) for text in texts]


def _look(found: Found, path: Path) -> Looked:
    try:
        decoded = found.read(path, found.bands)
    except TesseraError as error:
        return Looked(reason_of(error, str(path)))
    height, width = decoded.image.shape[:2]
    if min(height, width) < SMALLEST_SIDE_PX:
        return Looked(f"{width}×{height} pixels; the shorter side must have {SMALLEST_SIDE_PX}")
    if decoded.valid is not None and (share := float(decoded.valid.mean())) < LEAST_VALID:
        return Looked(f"{share:.2%} of its pixels hold data; {LEAST_VALID:.0%} must")
    return Looked(None, decoded.warnings)
