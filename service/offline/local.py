"""Many images through one engine in this process.

Knows nothing of what was typed, or of other machines. Workers on Ray have the same engine, made here.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from models import hardware
from service.inference.runtime import Runtime
from service.offline.engine import running
from service.offline.runner import Runner, Todo
from service.offline.work import Listener, Model, Say, Work
from service.repository.served_model import Served
from service.scheduling.background import spawn


class Local:
    """An Executor.

    say  tells people what takes long
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._runner: Runner | None = None
        self._stopped = False

    async def run(self, work: Work, model: Model, todo: Sequence[Todo], listener: Listener) -> None:
        """As Executor says. Raises NoBundle, SettingsError, DiskFull, NetworkFailed."""
        async with ready(work, self._say) as (runner, _):
            self._runner = runner
            listener.ready()
            if not self._stopped:
                await runner.run(todo, listener.ended, listener.part)

    def stop(self) -> str:
        """As Executor says: what is under way is finished."""
        self._stopped = True
        if self._runner is None:
            return ""
        self._runner.stop()
        return "what is under way is finished; Ctrl-C once more drops it"


@asynccontextmanager
async def ready(work: Work, say: Say, *, runs: int = 1) -> AsyncIterator[tuple[Runner, Served]]:
    """The settings' first model and what sends images through it, until the block ends. Raises NoBundle, SettingsError.

    runs  of the runner that share the engine, at once
    """
    settings = work.settings
    async with running(settings) as engine:
        with engine.registry.use(None) as served:
            if work.classes is not None:
                served.classes.fix(work.classes)
            if work.options.refine == "dense":
                await _compiled(engine.runtime, served, say)
            at_once = -(-(2 * (settings.workers or hardware.cores()) + 2) // runs)
            runner = Runner(
                work.options,
                work.formats,
                runtime=engine.runtime,
                served=served,
                outputs=work.outputs,
                at_once=at_once,
                timeout_s=settings.timeout_s,
            )
            yield runner, served


async def _compiled(runtime: Runtime, served: Served, say: Say) -> None:
    """Waits until the dense CRF is compiled, where an install has it not yet."""
    runtime.warmup.look()
    if runtime.warmup.note:
        say("the CRF is being compiled, once on this machine: mostly 10 to 20 s")
        spawn(runtime.warmup.run([served.clusters.count]), "the compilation of the CRF")
        await runtime.warmup.wait()
