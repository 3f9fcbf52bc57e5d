"""One run of `tessera segment`: the engine started, images passed through it, what happens told on a terminal.

Knows nothing of what was typed.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress

from rich.console import Console

from models import hardware
from models.errors import TesseraError, UsageError
from models.terminal import command_line
from models.terminal.progress import Progress, say, span
from service.errors import BadOption, printable
from service.inference.options import Options
from service.offline.engine import Running, running
from service.offline.journal import Journal, Order
from service.offline.outputs import DiskFull, Outputs
from service.offline.runner import Ended, Runner, Todo, check
from service.repository.served_model import Served
from service.scheduling.background import spawn
from service.settings import Settings


class Interrupted(TesseraError):
    """Somebody ended it; what was done stays."""

    exit_code = 130


class SegmentRun:
    """Made once a run.

    without  options that do not tell one run from another

    failed   images that failed so far
    """

    def __init__(
        self,
        console: Console,
        outputs: Outputs,
        options: Options,
        formats: tuple[str, ...],
        settings: Settings,
        *,
        without: Collection[str],
    ) -> None:
        self._console, self._outputs, self._settings = console, outputs, settings
        self._options, self._formats, self._without = options, formats, set(without)
        self.failed = 0
        self._ended, self._left = 0, 0
        self._warned = Counter[str]()
        self._stopped = False
        self._runner: Runner | None = None

    async def go(self, todo: Sequence[Todo], *, overwrite: bool) -> None:
        """All that is not done yet. Raises Interrupted, DiskFull, UsageError, and what an engine's start raises."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, self._stop, task)
        try:
            async with running(self._settings) as engine:
                with engine.registry.use(None) as served:
                    await self._compiled(engine, served)
                    await self._all(engine, served, todo, overwrite=overwrite)
        except BadOption as error:
            raise UsageError(str(error)) from None
        except asyncio.CancelledError:
            raise Interrupted(self._how("stopped")) from None
        except DiskFull as error:
            raise DiskFull(self._how(str(error))) from None
        if self._stopped and self._ended < self._left:
            raise Interrupted(self._how("stopped"))

    async def _all(self, engine: Running, served: Served, todo: Sequence[Todo], *, overwrite: bool) -> None:
        check(self._options, served)
        told = self._options.model_dump(mode="json", exclude=self._without, exclude_defaults=True)
        order = Order(served.bundle.ref, served.bundle.digest, self._formats, told)
        journal = Journal.begin(self._outputs.folder, order, overwrite=overwrite)
        try:
            self._outputs.begin()
            left = [
                one
                for one in todo
                if not journal.is_done(one.item, self._outputs.files(one.stem, store=one.item.store))
            ]
            self._left = len(left)
            if left and len(left) < len(todo):
                say(self._console, f"{len(todo) - len(left)} of {len(todo)} images are done already")
            began = time.monotonic()
            with Progress(self._console, "segmenting", len(todo), done=len(todo) - len(left)) as bar:
                self._runner = Runner(
                    self._options,
                    self._formats,
                    runtime=engine.runtime,
                    served=served,
                    outputs=self._outputs,
                    journal=journal,
                    at_once=2 * (self._settings.workers or hardware.cores()) + 2,
                    timeout_s=self._settings.timeout_s,
                    on_end=lambda ended: self._tell(ended, bar, began),
                    on_part=lambda part: bar.advance(
                        0, f"{printable(part.item.name)}: window {part.done} of {part.total}"
                    ),
                )
                if not self._stopped:
                    await self._runner.run(left)
        finally:
            journal.close()
            self._outputs.end()
        self._sum_up(len(todo), time.monotonic() - began)

    async def _compiled(self, engine: Running, served: Served) -> None:
        """Waits until the dense CRF is compiled, where an install has it not yet."""
        warmup = engine.runtime.warmup
        if self._options.refine != "dense":
            return
        warmup.look()
        if warmup.note:
            say(self._console, "the CRF is being compiled, once on this machine: mostly 10 to 20 s")
            spawn(warmup.run([served.clusters.count]), "the compilation of the CRF")
            await warmup.wait()

    def _stop(self, task: "asyncio.Task[None]") -> None:
        """A signal: what is under way is finished; a second one drops that, too."""
        if self._stopped or self._runner is None:
            task.cancel()
            return
        self._stopped = True
        self._runner.stop()
        say(self._console, "stopping: what is under way is finished; Ctrl-C once more drops it")

    def _tell(self, ended: Ended, bar: Progress, began: float) -> None:
        self._ended += 1
        if ended.failed is not None:
            self.failed += 1
            say(self._console, f"failed: {printable(ended.item.source)}: {ended.failed}")
        self._warned.update(ended.warnings)
        done = self._ended - self.failed
        pace = [f"{done / max(1e-9, time.monotonic() - began):.3g} images/s"] * (done > 0)
        bar.advance(note=", ".join(pace + [f"{self.failed} failed"] * (self.failed > 0)))

    def _sum_up(self, total: int, seconds: float) -> None:
        for warning, count in self._warned.most_common():
            say(self._console, f"{count} images: {warning}")
        if not self._left:
            say(self._console, f"all {total} images are done already, in {self._outputs.folder}")
            return
        done, folder = self._ended - self.failed, self._outputs.folder
        failed = f"; {self.failed} failed, and will be tried again the next time" if self.failed else ""
        if not done:
            say(self._console, f"no image was segmented{failed}")
            return
        pace = f"{span(seconds)}, {done / max(1e-9, seconds):.3g} images/s"
        say(self._console, f"{done} images segmented in {pace}; they are in {folder}{failed}")

    def _how(self, what: str) -> str:
        return f"{what}; to go on: {command_line.again('segment', without='--overwrite')}"
