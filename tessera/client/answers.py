"""What a server answers besides label maps, as objects. What a newer server says besides is passed over.

Knows nothing of HTTP.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Neighbor:
    """Another cluster, and the cosine between the two centroids."""

    id: int
    cosine: float


@dataclass(frozen=True)
class Cluster:
    """One cluster of a bundle.

    fraction   of the training pixels;  color  `#rrggbb`
    exemplars  paths on the server; `Client.exemplar` fetches them
    centroid   D numbers, where `centroids=True` asked for them
    """

    id: int
    name: str
    color: str
    fraction: float
    hidden: bool
    merged_into: int | None
    neighbors: tuple[Neighbor, ...]
    exemplars: tuple[str, ...]
    centroid: tuple[float, ...] | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Cluster":
        """As JSON has it."""
        centroid = answer.get("centroid")
        return cls(
            id=answer["id"],
            name=answer["name"],
            color=answer["color"],
            fraction=answer["fraction"],
            hidden=answer["hidden"],
            merged_into=answer.get("merged_into"),
            neighbors=tuple(Neighbor(near["id"], near["cosine"]) for near in answer["neighbors"]),
            exemplars=tuple(answer["exemplars"]),
            centroid=None if centroid is None else tuple(centroid),
        )


@dataclass(frozen=True)
class Clusters:
    """All clusters of a bundle: iterated in the order of their ids, and found by id or name.

    levels  the `k` that it can be asked for
    """

    model: str
    digest: str
    k: int
    levels: tuple[int, ...]
    clusters: tuple[Cluster, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Clusters":
        """As JSON has it."""
        clusters = tuple(Cluster.of(one) for one in answer["clusters"])
        return cls(answer["model"], answer["digest"], answer["k"], tuple(answer["levels"]), clusters)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.clusters)

    def __len__(self) -> int:
        return len(self.clusters)

    def __getitem__(self, key: int | str) -> Cluster:
        for cluster in self.clusters:
            if key in (cluster.id, cluster.name):
                return cluster
        raise KeyError(f"no cluster {key!r}; there are {', '.join(f'{c.id} {c.name!r}' for c in self.clusters)}")


@dataclass(frozen=True)
class TaughtClass:
    """A class that people taught.

    examples, negatives  places that were shown to it, and said not to be it;  aside  shown to another encoder, not used
    """

    id: int
    name: str
    color: str
    clusters: tuple[int, ...]
    examples: int
    negatives: int
    aside: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "TaughtClass":
        """As JSON has it."""
        own = {name: answer[name] for name in ("id", "name", "color", "examples", "negatives", "aside")}
        return cls(**own, clusters=tuple(answer["clusters"]))


@dataclass(frozen=True)
class TaughtClasses:
    """The classes of a model: iterated in the order of their ids, and found by id or name.

    encoder  sha256 of the network's file: examples hold for it alone
    """

    model: str
    digest: str
    encoder: str
    classes: tuple[TaughtClass, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "TaughtClasses":
        """As JSON has it."""
        classes = tuple(TaughtClass.of(one) for one in answer["classes"])
        return cls(answer["model"], answer["digest"], answer["encoder"], classes, tuple(answer["warnings"]))

    def __iter__(self) -> Iterator[TaughtClass]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, key: int | str) -> TaughtClass:
        for one in self.classes:
            if key in (one.id, one.name):
                return one
        raise KeyError(f"no class {key!r}; there are {', '.join(f'{c.id} {c.name!r}' for c in self.classes)}")


@dataclass(frozen=True)
class Lesson:
    """What became of an example: its number, and the share of that place's pixels that were the class before, 0..1."""

    example: int
    agrees: float
    classes: tuple[TaughtClass, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Lesson":
        """As JSON has it."""
        classes = tuple(TaughtClass.of(one) for one in answer["classes"])
        return cls(answer["example"], answer["agrees"], classes, tuple(answer["warnings"]))


@dataclass(frozen=True)
class Suggestion:
    """A place that is decided least clearly, between two classes, by their ids; to show it teaches the most.

    image  sha256 of its file, where it is said
    """

    x: int
    y: int
    margin: float
    between: tuple[int, int]
    image: str | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Suggestion":
        """As JSON has it."""
        one, other = answer["between"]
        return cls(answer["x"], answer["y"], answer["margin"], (one, other), answer.get("image"))


@dataclass(frozen=True)
class Merge:
    """One step of the hierarchy: `merge` become `into`, and k clusters are left."""

    k: int
    merge: tuple[int, int]
    into: int
    height: float

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Merge":
        """As JSON has it."""
        first, second = answer["merge"]
        return cls(answer["k"], (first, second), answer["into"], answer["height"])


@dataclass(frozen=True)
class JobFailure:
    """An image of a job of which there is no answer, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Job:
    """A job as it stands; `document` is all that the server says of it.

    state     queued, running, paused (it goes on by itself once what `note` says is changed), done, failed, cancelled
    total     images; None until they are counted;  done  those that are settled, with those that failed
    failures  the first of them, where one job was asked for
    """

    id: str
    state: str
    note: str | None
    total: int | None
    done: int
    failed: int
    eta_s: float | None
    failures: tuple[JobFailure, ...]
    document: Mapping[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Job":
        """As JSON has it."""
        progress = answer["progress"]
        return cls(
            id=answer["id"],
            state=answer["state"],
            note=answer.get("note"),
            total=progress["total"],
            done=progress["done"],
            failed=progress["failed"],
            eta_s=progress.get("eta_s"),
            failures=tuple(JobFailure(one["file"], one["reason"]) for one in answer.get("failures", ())),
            document=answer,
        )

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Model:
    """One bundle as the server holds it; `document` is all that it says of it.

    state  ready, loading, failed or leaving
    """

    name: str
    digest: str | None
    state: str
    default: bool
    k: int | None
    method: str | None
    provider: str | None
    document: Mapping[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Model":
        """As JSON has it."""
        return cls(
            name=answer["name"],
            digest=answer.get("digest"),
            state=answer["state"],
            default=answer["default"],
            k=answer.get("k"),
            method=answer.get("method"),
            provider=answer.get("provider"),
            document=answer,
        )

    @property
    def ref(self) -> str:
        """`name@digest12`, which names this very bundle; its name while it has no digest."""
        return f"{self.name}@{self.digest}" if self.digest else self.name
