"""An ontology as one JSON file: classes that people taught, with their colors, clusters and examples.

Knows nothing of HTTP, of where classes are kept, or of the images that the examples were pointed at in.

    {"tessera": "classes", "version": 1, "model": "street", "encoder": SHA256, "dim": 72, "classes": [
        {"id": 0, "name": "road", "color": "#0066cc", "clusters": [2, 4], "examples": [
            {"n": 1, "code": [0.12, …72 numbers], "at": [0.5, 0.9], "negative": false}]}]}

    encoder  sha256 of the encoder.onnx that the examples were taken with: a code means nothing to another one. An
             example may name another encoder of its own; its code then has that one's number of dimensions
    id       0..254, the class's value in label maps; n  of an example, never used twice in its class
    code     any length but infinite, only its direction counts;  at  (x, y), fractions of the image

Refused, each with a sentence that names the place: other keys, numbers in quotes, numbers that are not finite, two
classes of one id or one name, two examples of one n, and what goes beyond the bounds below.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import UsageError
from models.manifest import Digest, HexColor, ShortText
from models.names import ClusterName
from models.prototypes import Example, Taught
from models.types import Array

MAX_BYTES = 32 * 2**20
MAX_VALUES = 2**21  # of the whole file, as its commas tell: each takes far more memory than it has bytes
MAX_CLASSES = 255
MAX_EXAMPLES = 4096  # of one class
MAX_DIM = 4096

_MARK = re.compile(rb'"tessera"\s*:\s*"classes"')

Id = Annotated[int, Field(ge=0, le=254)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class ClassFileError(UsageError):
    """The bytes are no file of classes, or not one that is taken."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileExample(_Frozen):
    """A place that somebody pointed at.

    at        (x, y) of its middle, fractions of the image
    negative  the class is not what is there
    encoder   where it is not the file's: sha256 of the encoder.onnx that the code was taken with
    added     when, as the server that kept it wrote it
    """

    n: int = Field(ge=0, lt=2**31)
    code: tuple[Number, ...] = Field(min_length=1, max_length=MAX_DIM)
    at: tuple[Fraction, Fraction]
    negative: bool = False
    encoder: Digest | None = None
    added: ShortText | None = None

    @property
    def vector(self) -> Array:
        """The code as float32 [D]."""
        return np.array(self.code, np.float32)


class FileClass(_Frozen):
    """A class: its value in label maps, what people call it, its color, the clusters and the examples it has."""

    id: Id
    name: ClusterName
    color: HexColor
    clusters: tuple[Id, ...] = Field(default=(), max_length=MAX_CLASSES)
    examples: tuple[FileExample, ...] = Field(default=(), max_length=MAX_EXAMPLES)

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.clusters)) < len(self.clusters):
            raise ValueError(f"the class {self.name!r} names a cluster twice")
        if len({one.n for one in self.examples}) < len(self.examples):
            raise ValueError(f"the class {self.name!r} has two examples of one n")
        return self


class ClassFile(_Frozen):
    """The whole file; see the head of this module."""

    tessera: Literal["classes"] = "classes"
    version: int = Field(default=1, ge=1, le=1)  # a literal would take `true`
    model: ShortText
    encoder: Digest
    dim: int = Field(ge=1, le=MAX_DIM)
    classes: tuple[FileClass, ...] = Field(max_length=MAX_CLASSES)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for what, values in (("id", [c.id for c in self.classes]), ("name", [c.name for c in self.classes])):
            if doubled := [value for i, value in enumerate(values) if value in values[:i]]:
                raise ValueError(f"two classes have the {what} {doubled[0]!r}")
        for one in self.classes:
            for example in one.examples:
                if example.encoder in (None, self.encoder) and len(example.code) != self.dim:
                    raise ValueError(
                        f"example {example.n} of the class {one.name!r} has a code of {len(example.code)} numbers,"
                        f" and dim is {self.dim}"
                    )
        return self

    @classmethod
    def parse(cls, data: bytes) -> "ClassFile":
        """The classes that a file holds. Raises ClassFileError with one sentence that names the place."""
        if len(data) > MAX_BYTES:
            raise ClassFileError(f"{len(data) / 2**20:.0f} MiB; a file of classes has at most {MAX_BYTES // 2**20}")
        if data.count(b",") > MAX_VALUES:
            raise ClassFileError(f"it holds more than {MAX_VALUES} values; share the examples among several files")
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part)[:60] for part in first["loc"]) or "the file of classes"
            raise ClassFileError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None

    def to_bytes(self) -> bytes:
        """UTF-8 JSON, which `parse` reads as the same classes; codes of float32 to the bit."""
        return self.model_dump_json(exclude_none=True).encode()

    def taught(self) -> list[Taught]:
        """The classes and their clusters, as `Classifier.fit` takes them."""
        return [Taught(one.id, one.clusters) for one in self.classes]

    def examples(self, encoder: str) -> Iterator[Example]:
        """Those that were taken with one encoder: sha256 of its encoder.onnx."""
        for one in self.classes:
            for example in one.examples:
                if (example.encoder or self.encoder) == encoder:
                    x, y = example.at
                    yield Example(one.id, example.vector, (y, x), example.negative)


def numbers(code: Array) -> tuple[float, ...]:
    """A code float32 [D] as the shortest decimals that are read as the same float32."""
    return tuple(float(str(value)) for value in np.asarray(code, np.float32))


def is_class_file(data: bytes) -> bool:
    """Whether bytes say that they are such a file; `parse` tells whether they are right."""
    return data.lstrip()[:1] == b"{" and _MARK.search(data) is not None
