"""What each call sends, and how its answer is read. `Client` and `AsyncClient` send the same calls.

Knows nothing of connections, of waiting, of retries.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from models.io.png import encode_gray
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
from tessera.client.errors import BadImage, ClientError, Problem, Refused, refusal
from tessera.client.images import ImageInput, read
from tessera.client.options import as_query
from tessera.client.retries import ours, retry_after_s
from tessera.client.segmentation import Segmentation

T = TypeVar("T")
_FILE = {"content-type": "application/octet-stream"}  # the server looks at the bytes
_MOST_TOLD = 300  # characters of a proxy's page


class Answer(NamedTuple):
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and what its answer becomes.

    content     the body: bytes, or the file that is read as it goes
    repeatable  whether it may be sent again where it is not known if the server did it
    patient     whether it may take longer than the client's time, as long as something comes within that
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
    repeatable: bool = True
    patient: bool = False

    def result(self, answer: Answer) -> T:
        """What the answer says. Raises Refused, or ClientError for one that is not understood."""
        if not 200 <= answer.status < 300:
            raise refused(answer)
        try:
            return self.read(answer)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise ClientError(
                f"{self.method} {self.path}: the answer is not understood ({type(error).__name__}: {error});"
                " is this a Tessera server, and as new as this client?"
            ) from error


def segment(image: ImageInput, options: Mapping[str, Any]) -> Call[Segmentation]:
    """POST /segment, as JSON. Raises BadImage."""
    data = read(image)
    return Call(
        "POST",
        "/segment",
        lambda answer: Segmentation.of(json.loads(answer.content), data, options),
        query={**as_query(options), "format": "json"},
        headers=_FILE,
        content=data,
    )


def segment_as(image: ImageInput, format: str, options: Mapping[str, Any]) -> Call[bytes]:
    """POST /segment, in another format. Raises BadImage."""
    return Call(
        "POST", "/segment", _content, query={**as_query(options), "format": format}, headers=_FILE, content=read(image)
    )


def similar(
    image: ImageInput, x: int, y: int, other: ImageInput | None, options: Mapping[str, Any]
) -> Call[NDArray[np.float32]]:
    """POST /similar. Raises BadImage."""
    query = {**as_query(options), "x": str(x), "y": str(y), "format": "npy"}
    body, headers = read(image), _FILE
    if other is not None:
        body, headers = _form([("image", body), ("image", read(other))])
    return Call("POST", "/similar", _array, query=query, headers=headers, content=body)


def clusters(model: str | None, centroids: bool) -> Call[Clusters]:
    """GET /clusters."""
    query = as_query({"model": model, "include": "centroids" if centroids else None})
    return Call("GET", "/clusters", lambda answer: Clusters.of(json.loads(answer.content)), query=query)


def cluster(id: int, model: str | None) -> Call[Cluster]:
    """GET /clusters/{id}."""
    return Call("GET", f"/clusters/{id}", _cluster, query=as_query({"model": model}))


def tree(model: str | None) -> Call[tuple[Merge, ...]]:
    """GET /clusters/tree."""
    return Call(
        "GET",
        "/clusters/tree",
        lambda answer: tuple(Merge.of(one) for one in json.loads(answer.content)["merges"]),
        query=as_query({"model": model}),
    )


def exemplar(id: int, n: int, model: str | None) -> Call[bytes]:
    """GET /clusters/{id}/exemplars/{n}."""
    return Call("GET", f"/clusters/{id}/exemplars/{n}", _content, query=as_query({"model": model}))


def change_cluster(id: int, model: str | None, change: Mapping[str, Any]) -> Call[Cluster]:
    """PATCH /clusters/{id}: the same change twice is the same as once."""
    return Call(
        "PATCH",
        f"/clusters/{id}",
        _cluster,
        query=as_query({"model": model}),
        headers={"content-type": "application/json"},
        content=json.dumps(change).encode(),
    )


def classes(model: str | None) -> Call[TaughtClasses]:
    """GET /classes."""
    return Call("GET", "/classes", _classes, query=as_query({"model": model}))


def make_class(
    name: str, color: str | None, clusters: Iterable[int] | None, model: str | None, id: int | None = None
) -> Call[TaughtClass]:
    """POST /classes; PUT /classes/{id} where there is an id."""
    given = {"name": name, "color": color, "clusters": None if clusters is None else [*clusters]}
    return Call(
        "POST" if id is None else "PUT",
        "/classes" if id is None else f"/classes/{id}",
        lambda answer: TaughtClass.of(json.loads(answer.content)),
        query=as_query({"model": model}),
        headers={"content-type": "application/json"},
        content=json.dumps({key: value for key, value in given.items() if value is not None}).encode(),
        repeatable=id is not None,
    )


def teach(id: int, image: ImageInput, place: Mapping[str, Any]) -> Call[Lesson]:
    """POST /classes/{id}/examples. Raises BadImage."""
    told = dict(place)
    mask, points, data = told.pop("mask", None), told.pop("points", None), read(image)
    if points is not None:
        told["points"] = ";".join(f"{x},{y}" for x, y in points)
    body, headers = data, _FILE
    if mask is not None:
        body, headers = _form([("image", data), ("mask", encode_gray(np.asarray(mask, bool).view(np.uint8)))])
    return Call(
        "POST",
        f"/classes/{id}/examples",
        lambda answer: Lesson.of(json.loads(answer.content)),
        query=as_query(told),
        headers=headers,
        content=body,
        repeatable=False,
    )


def delete_class(id: int, model: str | None, example: int | None = None) -> Call[bytes]:
    """DELETE /classes/{id}, or one example of it."""
    path = f"/classes/{id}" if example is None else f"/classes/{id}/examples/{example}"
    return Call("DELETE", path, _content, query=as_query({"model": model}), repeatable=False)


def export_classes(model: str | None) -> Call[bytes]:
    """GET /classes/export."""
    return Call("GET", "/classes/export", _content, query=as_query({"model": model}))


def import_classes(file: bytes, replace: bool, model: str | None) -> Call[TaughtClasses]:
    """PUT /classes/import: the same file twice is the same as once."""
    query = as_query({"model": model, "replace": replace})
    headers = {"content-type": "application/json"}
    return Call("PUT", "/classes/import", _classes, query=query, headers=headers, content=file)


def suggest(image: ImageInput | None, count: int, model: str | None) -> Call[tuple[Suggestion, ...]]:
    """POST /classes/suggest, or GET without an image. Raises BadImage."""
    data = None if image is None else read(image)
    return Call(
        "GET" if data is None else "POST",
        "/classes/suggest",
        lambda answer: tuple(Suggestion.of(one) for one in json.loads(answer.content)["places"]),
        query=as_query({"model": model, "count": count}),
        headers={} if data is None else _FILE,
        content=data,
    )


def models() -> Call[tuple[Model, ...]]:
    """GET /models."""
    return Call("GET", "/models", lambda answer: tuple(Model.of(one) for one in json.loads(answer.content)["models"]))


def model(name: str) -> Call[Model]:
    """GET /models/{name}."""
    return Call("GET", f"/models/{_quoted(name)}", lambda answer: Model.of(json.loads(answer.content)))


def load_model(folder: str, default: bool) -> Call[Model]:
    """POST /models/{name}/load: a bundle that serves already is left as it is."""
    return Call(
        "POST",
        f"/models/{_quoted(folder)}/load",
        lambda answer: Model.of(json.loads(answer.content)["model"]),
        headers={"content-type": "application/json"},
        content=json.dumps({"default": default}).encode(),
    )


def unload_model(name: str) -> Call[str]:
    """POST /models/{name}/unload; the answer is the model that is the default now."""
    return Call(
        "POST",
        f"/models/{_quoted(name)}/unload",
        lambda answer: str(json.loads(answer.content)["default"]),
        repeatable=False,
    )


def submit_folder(place: str, format: str | Iterable[str], options: Mapping[str, Any]) -> Call[Job]:
    """POST /jobs for a folder below one of the server's roots, or a bucket."""
    return Call(
        "POST",
        "/jobs",
        _job,
        headers={"content-type": "application/json"},
        content=json.dumps({"path": place, **as_query({**options, "format": format})}).encode(),
        repeatable=False,
    )


def submit(archive: Path, format: str | Iterable[str], options: Mapping[str, Any]) -> Call[Job]:
    """POST /jobs with a zip, read from the disk as it goes. Raises BadImage where there is none."""
    if not archive.is_file():
        raise BadImage(f"{str(archive)!r} is no file")
    return Call(
        "POST",
        "/jobs",
        _job,
        query=as_query({**options, "format": format}),
        headers={**_FILE, "content-length": str(archive.stat().st_size)},
        content=archive,
        repeatable=False,
        patient=True,
    )


def jobs() -> Call[tuple[Job, ...]]:
    """GET /jobs, the latest first."""
    return Call("GET", "/jobs", lambda answer: tuple(Job.of(one) for one in json.loads(answer.content)["jobs"]))


def job(id: str) -> Call[Job]:
    """GET /jobs/{id}."""
    return Call("GET", f"/jobs/{_quoted(id)}", _job)


def delete_job(id: str, keep: bool) -> Call[Job]:
    """DELETE /jobs/{id}."""
    return Call("DELETE", f"/jobs/{_quoted(id)}", _job, query=as_query({"keep": keep}), repeatable=False)


def job_result(id: str) -> Call[bytes]:
    """GET /jobs/{id}/result, whose bytes go to a file."""
    return Call("GET", f"/jobs/{_quoted(id)}/result", _content, patient=True)


def ready() -> Call[bool]:
    """GET /readyz."""
    return Call("GET", "/readyz", lambda answer: json.loads(answer.content)["ready"] is True)


def refused(answer: Answer) -> Refused:
    """The error in an answer: the server's problem, or what a proxy's page says."""
    try:
        document = json.loads(answer.content) if ours(answer.headers) else {}
        problem = Problem(
            answer.status,
            document["title"],
            document["detail"],
            document["type"],
            document.get("request_id"),
        )
    except (ValueError, KeyError, TypeError):
        problem = Problem(answer.status, _phrase(answer.status), _told(answer))
    return refusal(problem, retry_after_s(answer.headers))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "refused"


def _told(answer: Answer) -> str:
    if location := answer.headers.get("location"):
        return f"it sends on to {location}: name that address"
    text = " ".join(answer.content[: 4 * _MOST_TOLD].decode("utf-8", "replace").split())
    return text[:_MOST_TOLD] or "nothing else is said"


def _content(answer: Answer) -> bytes:
    return answer.content


def _array(answer: Answer) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return array


def _form(files: Iterable[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of files, and its Content-Type."""
    boundary = uuid4().hex
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def _classes(answer: Answer) -> TaughtClasses:
    return TaughtClasses.of(json.loads(answer.content))


def _cluster(answer: Answer) -> Cluster:
    return Cluster.of(json.loads(answer.content))


def _job(answer: Answer) -> Job:
    return Job.of(json.loads(answer.content))


def _quoted(name: str) -> str:
    return quote(name, safe="")
