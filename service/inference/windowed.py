"""A picture of any size through a network, window by window: rows in, labels and margins of rows out.

Knows nothing of HTTP, of files, of who asks. The rows below are read while the network runs.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from models.deadline import Deadline
from models.familiarity import Tally
from models.familiarity import tally as tally_of
from models.inference import Prediction, Predictor, finite
from models.io.rows import Rows, RowSource
from models.io.samples import Decoded, ImageTooLarge
from models.manifest import Manifest
from models.prototypes import Classifier
from models.types import Array
from models.windows import Blend, Layout, Strip, Window
from service.errors import NetworkNotFinite
from service.formats.registry import Margin
from service.repository.served_model import Served
from service.scheduling.batcher import Completed

Predict = Callable[[Iterable[Array], bool], Iterator[Prediction]]  # windows, and whether their code is wanted
Progress = Callable[[int, int], object]  # windows that are done, and all there are
_MOST_HELD_BYTES = 2**31  # while windows are read
_AHEAD = 2  # batches that wait for the network, so that it never does


class Part(NamedTuple):
    """Some rows of the picture, finished.

    valid  bool [rows, W]: where they hold data; None: everywhere
    size   (H, W) of the whole picture;  classifier  of classes in place of the network's clusters
    """

    strip: Strip
    valid: Array | None
    manifest: Manifest
    size: tuple[int, int]
    classifier: Classifier | None = None

    @property
    def rows(self) -> tuple[int, int]:
        """The first, and the one after the last."""
        return self.strip.rows

    def labels(self) -> Array:
        """The network's own ids uint8 [rows, W], or those of classes."""
        strip, count = self._told
        labels = strip.labels(count, self.manifest.code.interpolation)
        return labels if self.classifier is None else self.classifier.ids[labels]

    def margin(self, *, full: bool = True) -> Array:
        """float32 [rows, W]; not `full`: of as many places as the network sees, one for each cell and more."""
        code, (strip, count) = self.manifest.code, self._told
        if not full:
            top, bottom = strip.rows
            size = max(1, round((bottom - top) / code.stride)), max(1, round(strip.width / code.stride))
            strip = strip._replace(rows=(0, size[0]), width=size[1])
        assignment = code.assignment if self.classifier is None else "cosine"
        return strip.margin(count, assignment, code.interpolation)

    @property
    def _told(self) -> tuple[Strip, int]:
        """The maps of what is told apart, with the code behind them; how many those are."""
        strip, count, classifier = self.strip, len(self.manifest.clusters), self.classifier
        if classifier is None:
            return strip, count
        (top, left, down, across), (first, last) = strip.box, strip.rows
        row = down / (last - first)
        whole = top - first * row, left, row * self.size[0], across  # of the picture, in the strip's grid
        scores, code = strip.maps[:count], strip.maps[count:]
        maps = [np.asarray(classifier.scores(code, scores, whole), np.float32), code]
        return strip._replace(maps=np.concatenate(maps)), len(classifier.ids)


class ArrayRows:
    """Rows of a picture that is in memory, as `models.io.rows.RowSource` has them."""

    def __init__(self, decoded: Decoded) -> None:
        self._image, self._valid = decoded.image, decoded.valid
        self.size = (int(decoded.image.shape[0]), int(decoded.image.shape[1]))
        self.pages, self.depth_rule, self.warnings = decoded.pages, decoded.depth_rule, decoded.warnings
        self.held_bytes = 0

    def rows(self, top: int, bottom: int) -> Rows:
        """Those from `top` to before `bottom`."""
        return self._image[top:bottom], None if self._valid is None else self._valid[top:bottom]


def layout_of(size: tuple[int, int], manifest: Manifest) -> Layout:
    """The windows of a picture of this size (H, W). Raises ImageTooLarge."""
    try:
        return Layout.of(size, manifest.input, manifest.code.stride)
    except ValueError as error:
        raise ImageTooLarge(f"{error}, more than are ever read; read a level of its pyramid, pyramid=1") from None


def held_bytes(source: RowSource, manifest: Manifest, *, code: bool = False) -> int:
    """About what `parts` holds at most: rows that are read and those to come, a row of windows' maps, labels of it."""
    layout = layout_of(source.size, manifest)
    channels = len(manifest.clusters) + (manifest.code.dim if code else 0)
    maps = 4 * channels * layout.window[0] // layout.cell * layout.grid[1]
    return source.held_bytes + 3 * maps + 8 * layout.window[0] * source.size[1]


def parts(
    source: RowSource,
    manifest: Manifest,
    predict: Predict,
    *,
    code: bool = False,
    skip: bool = False,
    classifier: Classifier | None = None,
    tally: Tally | None = None,
    until: Deadline | None = None,
    progress: Progress | None = None,
) -> Iterator[Part]:
    """The picture's rows from the top on, as they are finished.

    code   margins are wanted;  skip  windows that hold no data are not looked at: nobody asks for their labels
    classifier  of classes that are told in place of the network's clusters
    tally  gets the cells of every window as the network saw it: where two show a place, of both

    Raises what reading and the network raise, ImageTooLarge for rows too wide to be held, and DeadlineExceeded.
    """
    layout = layout_of(source.size, manifest)
    if (room := held_bytes(source, manifest, code=code)) > _MOST_HELD_BYTES:
        raise ImageTooLarge(
            f"rows of {source.size[1]} pixels in windows would hold {room / 2**30:.1f} GiB, and"
            f" {_MOST_HELD_BYTES / 2**30:.0f} are the most; cut it into columns, or read a level of it, pyramid=1"
        )
    lengths = manifest.code.assignment == "cosine"
    code = classifier is not None or (code and lengths)
    until, blend, done = until or Deadline(), Blend(layout), 0
    seen = _Seen()
    with ThreadPoolExecutor(1, "rows") as reader:
        coming = reader.submit(source.rows, *layout.span(0))
        for row in range(len(layout.rows)):
            until.check()
            image, valid = coming.result()
            if row + 1 < len(layout.rows):
                coming = reader.submit(source.rows, *layout.span(row + 1))
            wanted = [window for window in layout.in_row(row) if not (skip and _empty(valid, window, layout))]
            given = (layout.cut(image, window) for window in wanted)
            for window, prediction in zip(wanted, predict(given, code or (tally is not None and lengths)), strict=True):
                until.check()
                blend.add(window, _maps(prediction, code))
                if tally is not None:
                    _count(tally, prediction, manifest, layout, window, valid)
                done += 1
                if progress is not None:
                    progress(done, len(layout))
            if len(wanted) < len(layout.columns):
                blend.add_nothing(len(manifest.clusters) + (manifest.code.dim if code else 0))
                done += len(layout.columns) - len(wanted)
            strip = blend.finish_row()
            yield Part(strip, seen.of(strip, layout.span(row), valid), manifest, source.size, classifier)


def labelled(
    source: RowSource,
    manifest: Manifest,
    predict: Predict,
    *,
    margin: Margin,
    classifier: Classifier | None = None,
    tally: Tally | None = None,
    until: Deadline | None = None,
) -> tuple[Array, Array | None]:
    """A picture's labels uint8 [H, W], all of them in memory, and its margins at its size or about the grid's."""
    labels, margins = np.empty(source.size, np.uint8), list[Array]()
    whole = np.empty(source.size, np.float32) if margin == "full" else None
    wanted = margin is not None
    for part in parts(source, manifest, predict, code=wanted, classifier=classifier, tally=tally, until=until):
        rows = slice(*part.rows)
        labels[rows] = part.labels()
        if whole is not None:
            whole[rows] = part.margin()
        elif margin is not None:
            margins.append(part.margin(full=False))
    return labels, np.concatenate(margins) if margins else whole


def on_engine(predict: Predictor, batch: int = 1) -> Predict:
    """Windows through a network of this process, so many at once."""

    def run(windows: Iterable[Array], code: bool) -> Iterator[Prediction]:
        for pixels in _batches(windows, batch):
            scores, codes = predict(np.stack(pixels), code=code)
            for number in range(len(pixels)):
                one = Prediction(scores[number], None if codes is None else codes[number])
                if not finite(one):
                    raise NetworkNotFinite("the network answers NaN or infinity for a window of this image")
                yield one

    return run


def through_queue(
    served: Served, loop: asyncio.AbstractEventLoop, *, key: str, priority: float, deadline: float
) -> Predict:
    """Windows as others' images go, one job each, so that whoever else asks has their turn; called by a thread."""

    def run(windows: Iterable[Array], code: bool) -> Iterator[Prediction]:
        waiting = deque[Future[Completed[Prediction]]]()
        try:
            for pixels in windows:
                asked = served.batcher.predict(pixels, code=code, key=key, priority=priority, deadline=deadline)
                waiting.append(asyncio.run_coroutine_threadsafe(asked, loop))
                if len(waiting) >= _AHEAD * served.batcher.max_size:
                    yield waiting.popleft().result().answer
            while waiting:
                yield waiting.popleft().result().answer
        finally:
            for job in waiting:
                job.cancel()

    return run


class _Seen:
    """Where rows hold data that were read and are not finished yet."""

    def __init__(self) -> None:
        self._top = 0
        self._valid: list[Array | None] = []  # consecutive, from `_top` on, each with its rows
        self._spans: list[tuple[int, int]] = []

    def of(self, strip: Strip, span: tuple[int, int], valid: Array | None) -> Array | None:
        """Of a strip, where the rows of a span have been read besides those before."""
        known = self._spans[-1][1] if self._spans else 0
        self._spans.append((known, span[1]))
        self._valid.append(None if valid is None else valid[known - span[0] :])
        top, bottom = strip.rows
        while self._spans[0][1] <= top and len(self._spans) > 1:
            del self._spans[0], self._valid[0]
        if all(one is None for one in self._valid):
            return None
        first = self._spans[0][0]
        known_rows = [
            np.ones((end - begin, strip.width), bool) if one is None else one
            for (begin, end), one in zip(self._spans, self._valid, strict=True)
        ]
        found = np.concatenate(known_rows)[top - first : bottom - first]
        return None if found.all() else found


def _empty(valid: Array | None, window: Window, layout: Layout) -> bool:
    return valid is not None and not valid[:, window.left : window.left + layout.window[1]].any()


def _count(
    tally: Tally, prediction: Prediction, manifest: Manifest, layout: Layout, window: Window, valid: Array | None
) -> None:
    """Adds the cells of a window whose middle is a pixel of the picture and holds data; `valid` is of its rows."""
    (scores, code), how = prediction, manifest.code
    down, across = (
        (2 * np.arange(cells) + 1) * side // (2 * cells)
        for cells, side in zip(scores.shape[1:], layout.window, strict=True)
    )
    rows, columns = down < layout.size[0] - window.top, across < layout.size[1] - window.left
    known = rows[:, None] & columns
    if valid is not None:
        known[np.ix_(rows, columns)] = valid[np.ix_(down[rows], window.left + across[columns])]
    tally.join(tally_of(scores, code, known, assignment=how.assignment, interpolation=how.interpolation))


def _maps(prediction: Prediction, code: bool) -> Array:
    scores, codes = prediction
    return np.concatenate([scores, codes]) if code and codes is not None else scores


def _batches(windows: Iterable[Array], size: int) -> Iterator[Sequence[Array]]:
    batch = list[Array]()
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
