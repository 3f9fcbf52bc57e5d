"""A client for programs in Python, over httpx: images in, label maps out. It meets neither torch nor the service.

with Client("http://127.0.0.1:8000") as tessera:
    found = tessera.segment("photo.jpg", crf=True)
    found.labels, found.names, found.overlay()
"""

from tessera.client.answers import (
    Cluster,
    Clusters,
    Job,
    JobFailure,
    Lesson,
    Model,
    Neighbor,
    Suggestion,
    TaughtClass,
    TaughtClasses,
)
from tessera.client.asynchronous import AsyncClient
from tessera.client.errors import (
    BadImage,
    Busy,
    ClientError,
    Conflict,
    ImageRefused,
    KeyRefused,
    NoAddress,
    NoAnswer,
    NotFound,
    OptionRefused,
    Problem,
    Refused,
    ServerFailed,
    TimedOut,
)
from tessera.client.images import ImageInput
from tessera.client.options import ClusterChange, ImageOptions, Place, SegmentOptions
from tessera.client.retries import Retries
from tessera.client.segmentation import Present, Segmentation
from tessera.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "BadImage",
    "Busy",
    "Client",
    "ClientError",
    "Cluster",
    "ClusterChange",
    "Clusters",
    "Conflict",
    "ImageInput",
    "ImageOptions",
    "ImageRefused",
    "Job",
    "JobFailure",
    "KeyRefused",
    "Lesson",
    "Model",
    "Neighbor",
    "NoAddress",
    "NoAnswer",
    "NotFound",
    "OptionRefused",
    "Place",
    "Present",
    "Problem",
    "Refused",
    "Retries",
    "SegmentOptions",
    "Segmentation",
    "ServerFailed",
    "Suggestion",
    "TaughtClass",
    "TaughtClasses",
    "TimedOut",
]
