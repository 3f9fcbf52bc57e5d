"""`Client`: calls that wait for their answer.

Knows nothing of what a call sends; that stands in `calls.py`, for `AsyncClient` too.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx
import numpy as np
from numpy.typing import NDArray

from tessera.client import calls, connection
from tessera.client.answers import (
    Cluster,
    Clusters,
    Job,
    Lesson,
    Merge,
    Model,
    Suggestion,
    TaughtClass,
    TaughtClasses,
)
from tessera.client.calls import Answer, Call
from tessera.client.errors import Busy, ClientError, NoAnswer, TimedOut, of_all
from tessera.client.images import ImageInput
from tessera.client.options import ClusterChange, ImageOptions, Place, SegmentOptions
from tessera.client.retries import Attempts, Retries
from tessera.client.segmentation import Segmentation
from tessera.client.transfer import Taken, opened

T = TypeVar("T")
_LOOK_S = 0.2  # between two looks at a server that starts


class Client:
    """A server, and connections to it that are kept: one client for a program, from any of its threads.

    url      where the server is, with the path under which a proxy shows it
    key      where the server wants one
    timeout  seconds that a call may take, tries and waits together;  retries  of what is refused for now, or breaks
    """

    def __init__(
        self,
        url: str = connection.URL,
        *,
        key: str | None = None,
        timeout: float = connection.TIMEOUT_S,
        retries: Retries | int = Retries(),  # noqa: B008
        transport: httpx.BaseTransport | None = None,
        verify: bool | str = True,
    ) -> None:
        self._http = httpx.Client(**connection.settings(url, key), transport=transport, verify=verify)
        self._timeout_s = timeout
        self._retries = Retries(retries) if isinstance(retries, int) else retries

    def segment(self, image: ImageInput, **options: Unpack[SegmentOptions]) -> Segmentation:
        """The label map of one image, with names and colors. Raises BadImage, Refused, NoAnswer, TimedOut."""
        return self._send(calls.segment(image, options))

    def segment_as(self, image: ImageInput, format: str, **options: Unpack[SegmentOptions]) -> bytes:
        """The bytes of a file of any format that the server has: "geojson", "overlay", "geotiff" … Raises the same."""
        return self._send(calls.segment_as(image, format, options))

    def segment_many(
        self, images: Iterable[ImageInput], *, concurrency: int = 8, **options: Unpack[SegmentOptions]
    ) -> Iterator[Segmentation | ClientError]:
        """Many images, at most so many at once: their answers in their order, each as soon as those before it.

        An image that cannot be answered has its ClientError in its place, and spoils no other; what is true of all of
        them (a key, an option, a model) is raised. Images are taken as they are needed: a generator may hold millions.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency: {concurrency}; at least one at once")
        return self._many(iter(images), concurrency, options)

    def similar(
        self, image: ImageInput, x: int, y: int, other: ImageInput | None = None, **options: Unpack[ImageOptions]
    ) -> NDArray[np.float32]:
        """How like the pixel (x, y) every other is to the network, or every one of another image: cosines, float32
        [H, W]."""
        return self._send(calls.similar(image, x, y, other, options))

    def clusters(self, model: str | None = None, *, centroids: bool = False) -> Clusters:
        """What the model tells apart."""
        return self._send(calls.clusters(model, centroids))

    def cluster(self, id: int, model: str | None = None) -> Cluster:
        """One of them."""
        return self._send(calls.cluster(id, model))

    def tree(self, model: str | None = None) -> tuple[Merge, ...]:
        """The hierarchy: which clusters become one, in order."""
        return self._send(calls.tree(model))

    def exemplar(self, id: int, n: int = 0, model: str | None = None) -> bytes:
        """A training patch of a cluster, as the bytes of a WebP file."""
        return self._send(calls.exemplar(id, n, model))

    def change_cluster(self, id: int, model: str | None = None, **change: Unpack[ClusterChange]) -> Cluster:
        """Name, color, hide or merge a cluster; every answer shows it from now on. None takes a change back."""
        return self._send(calls.change_cluster(id, model, change))

    def rename(self, id: int, name: str | None, model: str | None = None) -> Cluster:
        """`change_cluster` of the name; None gives it back the bundle's own."""
        return self.change_cluster(id, model, name=name)

    def classes(self, model: str | None = None) -> TaughtClasses:
        """What people taught the model; `segment(…, classes=True)` answers in these."""
        return self._send(calls.classes(model))

    def make_class(
        self, name: str, *, color: str | None = None, clusters: Iterable[int] | None = None, model: str | None = None
    ) -> TaughtClass:
        """A new class; it is seen in answers once it has an example or a cluster. Raises Conflict for a name twice."""
        return self._send(calls.make_class(name, color, clusters, model))

    def put_class(
        self,
        id: int,
        name: str,
        *,
        color: str | None = None,
        clusters: Iterable[int] | None = None,
        model: str | None = None,
    ) -> TaughtClass:
        """Make or replace a class's name, color and clusters; its examples stay."""
        return self._send(calls.make_class(name, color, clusters, model, id))

    def teach(self, id: int, image: ImageInput, **place: Unpack[Place]) -> Lesson:
        """Show a class a place in an image: x and y, points, box or mask. Of the image nothing is kept."""
        return self._send(calls.teach(id, image, place))

    def delete_class(self, id: int, model: str | None = None) -> bytes:
        """Take a class away: the file that is returned brings it back, by `import_classes`."""
        return self._send(calls.delete_class(id, model))

    def delete_example(self, id: int, n: int, model: str | None = None) -> bytes:
        """Take one example away; the same."""
        return self._send(calls.delete_class(id, model, n))

    def export_classes(self, model: str | None = None) -> bytes:
        """All classes with their examples, as one JSON file."""
        return self._send(calls.export_classes(model))

    def import_classes(self, file: bytes, *, replace: bool = False, model: str | None = None) -> TaughtClasses:
        """Take over the classes of such a file. replace: all others are taken away first."""
        return self._send(calls.import_classes(file, replace, model))

    def suggest(
        self, image: ImageInput | None = None, count: int = 3, model: str | None = None
    ) -> tuple[Suggestion, ...]:
        """Where to click next: in an image, or in those that were answered lately."""
        return self._send(calls.suggest(image, count, model))

    def models(self) -> tuple[Model, ...]:
        """The bundles that the server holds, the default first."""
        return self._send(calls.models())

    def model(self, name: str) -> Model:
        """One of them, with its manifest in `document`."""
        return self._send(calls.model(name))

    def load_model(self, folder: str, *, default: bool = False) -> Model:
        """Serve the bundle in a folder under TESSERA_MODELS; it wants the admin key."""
        return self._send(calls.load_model(folder, default))

    def unload_model(self, name: str) -> str:
        """Put a model away; it wants the admin key. Returns the default from now on."""
        return self._send(calls.unload_model(name))

    def submit(
        self, archive: str | Path, format: str | Iterable[str] = "png", **options: Unpack[SegmentOptions]
    ) -> Job:
        """Begin a job on the images of a zip: label maps of thousands while nobody waits. Raises BadImage too."""
        return self._send(calls.submit(Path(archive), format, options))

    def submit_folder(self, place: str, format: str | Iterable[str] = "png", **options: Unpack[SegmentOptions]) -> Job:
        """Begin a job on a folder of the server's own, below TESSERA_ROOTS, or on a bucket: s3://…"""
        return self._send(calls.submit_folder(place, format, options))

    def jobs(self) -> tuple[Job, ...]:
        """The caller's jobs, the latest first."""
        return self._send(calls.jobs())

    def job(self, job: Job | str) -> Job:
        """How a job stands now."""
        return self._send(calls.job(_id(job)))

    def wait_job(self, job: Job | str, timeout: float | None = None, every: float = 1.0) -> Job:
        """The job once it has ended, asked for it each so many seconds. Raises TimedOut."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (now := self.job(job)).ended:
            if end is not None and time.monotonic() + every > end:
                raise TimedOut(f"job {now.id} had {now.done} of {now.total} images after {timeout:g} s")
            time.sleep(every)
        return now

    def delete_job(self, job: Job | str, *, keep: bool = False) -> Job:
        """Cancel a job, and delete its files. keep: what there is of its result stays."""
        return self._send(calls.delete_job(_id(job), keep))

    def download(self, job: Job | str, path: str | Path) -> Path:
        """A job's result, a zip, to a file; what was there before stays until all of it has come."""
        self._send(calls.job_result(_id(job)), to=Path(path))
        return Path(path)

    def ready(self) -> bool:
        """Whether the server answers images now."""
        try:
            return self._send(calls.ready(), Retries(0))
        except (Busy, NoAnswer):
            return False

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the server answers images. Raises TimedOut."""
        end = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() + _LOOK_S > end:
                raise TimedOut(f"{self._http.base_url} was not ready within {timeout:g} s")
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """Its connections end; it can be used no more."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _many(
        self, images: Iterator[ImageInput], concurrency: int, options: SegmentOptions
    ) -> Iterator[Segmentation | ClientError]:
        def one(image: ImageInput) -> Segmentation | ClientError:
            try:
                return self.segment(image, **options)
            except ClientError as error:
                if of_all(error):
                    raise
                return error

        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="tessera-client")
        waiting: deque[Future[Segmentation | ClientError]] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(copy_context().run, one, image))
                if len(waiting) >= 2 * concurrency:  # a slow one holds up as many behind it, no more
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _send(self, call: Call[T], retries: Retries | None = None, to: Path | None = None) -> T:
        limit_s = math.inf if call.patient else self._timeout_s
        attempts = Attempts(retries or self._retries, limit_s, repeatable=call.repeatable)
        while True:
            try:
                answer = self._once(call, attempts, to)
            except httpx.TransportError as error:
                wait_s: float | None = attempts.after_failure(error)
            else:
                wait_s = attempts.after_answer(answer.status, answer.headers)
            if wait_s is None:
                return call.result(answer)
            time.sleep(wait_s)

    def _once(self, call: Call[T], attempts: Attempts, to: Path | None) -> Answer:
        """One try. A good answer goes into the file `to`, where there is one, and there as a whole."""
        with (
            opened(call.content) as content,
            self._http.stream(
                call.method,
                call.path,
                params=call.query,
                headers=connection.traced(call.headers),
                content=content,
                timeout=connection.limits(min(attempts.left_s(), self._timeout_s)),
            ) as response,
            Taken(to if response.is_success else None) as taken,
        ):
            for chunk in response.iter_bytes():
                attempts.left_s()
                taken.add(chunk)
        return Answer(response.status_code, response.headers, taken.held)


def _id(job: Job | str) -> str:
    return job if isinstance(job, str) else job.id
