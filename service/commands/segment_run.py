"""One run of `tessera segment`: the engine started, images passed through it, what happens told on a terminal.

Knows nothing of what was typed.
"""

import asyncio
import hashlib
import signal
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress

from rich.console import Console

from models.errors import TesseraError, UsageError
from models.terminal import command_line
from models.terminal.progress import Progress, say, span
from service.errors import BadOption, printable
from service.inference.vocabulary import vocabulary_of
from service.offline.journal import Journal, Order
from service.offline.outputs import DiskFull
from service.offline.runner import Ended, Part, Todo
from service.offline.work import Executor, Listener, Model, Work


class Interrupted(TesseraError):
    """Somebody ended it; what was done stays."""

    exit_code = 130


class SegmentRun:
    """Made once a run.

    executor  who does the work
    without   options that do not tell one run from another

    failed    images that failed so far
    """

    def __init__(self, console: Console, work: Work, executor: Executor, *, without: Collection[str]) -> None:
        self._console, self._work, self._executor, self._without = console, work, executor, set(without)
        self._outputs = work.outputs
        self.failed = 0
        self._ended, self._left, self._began = 0, 0, time.monotonic()
        self._warned = Counter[str]()
        self._stopped = False

    async def go(self, todo: Sequence[Todo], *, overwrite: bool) -> None:
        """All that is not done yet. Raises Interrupted, DiskFull, UsageError, and what an engine's start raises."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, self._stop, task)
        try:
            model = await Model.of(self._work.settings, self._work.classes)
            vocabulary_of(self._work.options, model.clusters, model.classes)
            for warning in model.classes.warnings:
                say(self._console, warning)
            await self._all(model, todo, overwrite=overwrite)
        except BadOption as error:
            raise UsageError(str(error)) from None
        except asyncio.CancelledError:
            raise Interrupted(self._how("stopped")) from None
        except DiskFull as error:
            raise DiskFull(self._how(str(error))) from None
        if self._stopped and self._ended < self._left:
            raise Interrupted(self._how("stopped"))

    async def _all(self, model: Model, todo: Sequence[Todo], *, overwrite: bool) -> None:
        told = self._work.options.model_dump(mode="json", exclude=self._without, exclude_defaults=True)
        if self._work.classes is not None:
            told["classes"] = hashlib.sha256(self._work.classes.to_bytes()).hexdigest()
        order = Order(model.bundle.ref, model.bundle.digest, self._work.formats, told)
        journal = Journal.begin(self._outputs, order, overwrite=overwrite)
        try:
            self._outputs.begin()
            left = [one for one in todo if not journal.is_done(one.item, one.files(self._outputs))]
            self._left = len(left)
            if left and len(left) < len(todo):
                say(self._console, f"{len(todo) - len(left)} of {len(todo)} images are done already")
            with Progress(self._console, "segmenting", len(todo), done=len(todo) - len(left)) as bar:

                def ended(one: Ended) -> None:
                    journal.note(one.item, one.todo.stem, one.failed, one.warnings)
                    self._tell(one, bar)

                def part(one: Part) -> None:
                    bar.advance(0, f"{printable(one.item.name)}: window {one.done} of {one.total}")

                if left and not self._stopped:
                    await self._executor.run(self._work, model, left, Listener(self._begin, ended, part))
        finally:
            journal.close()
            self._outputs.end()
        self._sum_up(len(todo))

    def _begin(self) -> None:
        """The clock of the pace runs."""
        self._began = time.monotonic()

    def _stop(self, task: "asyncio.Task[None]") -> None:
        """A signal: what is under way is finished, where it can be; a second one drops that, too."""
        under_way = "" if self._stopped else self._executor.stop()
        if not under_way:
            task.cancel()
            return
        self._stopped = True
        say(self._console, f"stopping: {under_way}")

    def _tell(self, ended: Ended, bar: Progress) -> None:
        self._ended += 1
        if ended.failed is not None:
            self.failed += 1
            say(self._console, f"failed: {printable(ended.item.source)}: {ended.failed}")
        self._warned.update(ended.warnings)
        done = self._ended - self.failed
        pace = [f"{done / max(1e-9, time.monotonic() - self._began):.3g} images/s"] * (done > 0)
        bar.advance(note=", ".join(pace + [f"{self.failed} failed"] * (self.failed > 0)))

    def _sum_up(self, total: int) -> None:
        for warning, count in self._warned.most_common():
            say(self._console, f"{count} images: {warning}")
        if not self._left:
            say(self._console, f"all {total} images are done already, in {self._outputs.where}")
            return
        done, folder = self._ended - self.failed, self._outputs.where
        failed = f"; {self.failed} failed, and will be tried again the next time" if self.failed else ""
        if not done:
            say(self._console, f"no image was segmented{failed}")
            return
        seconds = time.monotonic() - self._began
        pace = f"{span(seconds)}, {done / max(1e-9, seconds):.3g} images/s"
        say(self._console, f"{done} images segmented in {pace}; they are in {folder}{failed}")

    def _how(self, what: str) -> str:
        return f"{what}; to go on: {command_line.again('segment', without='--overwrite')}"
