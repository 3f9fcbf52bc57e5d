"""What is made of many images, and who does it: the same for all of a run, whatever it runs on.

Knows nothing of how an image is segmented. `local.py` and `ray_engine.py` are those who do it.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from models.bundle import Bundle
from models.class_file import ClassFile
from service.inference.options import Options
from service.offline.outputs import Outputs
from service.offline.runner import OnEnd, OnPart, Todo
from service.repository.change_store import ChangeStore
from service.repository.class_store import ClassStore
from service.repository.classes import Classes, ClassState
from service.repository.cluster_changes import newest
from service.repository.cluster_names import Clusters
from service.repository.trust import TrustList
from service.repository.verification import read
from service.settings import Settings

Say = Callable[[str], object]  # to whoever watches
_LOOK_S = 5.0


@dataclass(frozen=True)
class Work:
    """It travels to other processes.

    settings  of every engine;  outputs  where answers go, begun
    classes   in place of clusters, where the options ask for classes
    """

    options: Options
    formats: tuple[str, ...]
    settings: Settings
    outputs: Outputs
    classes: ClassFile | None = None


class Listener(NamedTuple):
    """Who is told what happens, on the event loop.

    ready  an engine stands ready, the first one
    ended  of every image, once;  part  of large ones meanwhile, in some thread
    """

    ready: Callable[[], object]
    ended: OnEnd
    part: OnPart


class Executor(Protocol):
    """Who makes the same of every image. Made once a run."""

    async def run(self, work: Work, model: "Model", todo: Sequence[Todo], listener: Listener) -> None:
        """All of them, or until `stop`. Cancelled, it drops what is under way.

        Raises DiskFull, NetworkFailed, UsageError, what an engine's start raises, and what the listener does.
        """

    def stop(self) -> str:
        """Nothing more is begun. What becomes of what is under way, for people; nothing where nothing is."""


class Model(NamedTuple):
    """A bundle that was read, and its clusters as people changed them, or a file's classes; no network runs.

    said  the number of the last change
    """

    bundle: Bundle
    clusters: Clusters
    classes: ClassState
    said: int

    @classmethod
    async def of(cls, settings: Settings, file: ClassFile | None = None) -> "Model":
        """The settings' first. Raises BundleError, and BadOption for classes that go with no model."""
        bundle = read(settings.bundles[0], TrustList(settings.trust))
        with closing(ClassStore(settings.state)) as unused:
            classes = Classes(bundle, unused)
            if file is not None:
                classes.fix(file)
        with closing(ChangeStore(settings.state)) as store:
            clusters = Clusters(bundle, store)
            await clusters.refresh(_LOOK_S)
        return cls(bundle, clusters, classes.state, newest(clusters.past.record))
