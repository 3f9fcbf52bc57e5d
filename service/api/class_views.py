"""Classes as answers show them, and what may be asked of them: shapes behind /openapi.json, and how they are filled.

Knows nothing of how classes are kept or told apart.
"""

from typing import Annotated

from pydantic import Field, WithJsonSchema

from service.formats.result import Suggestion
from service.inference.options import Frozen, ModelQuery
from service.repository.classes import ClassState, Imported, TaughtClass
from service.repository.served_model import Served


class ClassInfo(Frozen):
    """One class that people taught."""

    id: int = Field(description="0 to 254: its value in label maps")
    name: str
    color: str
    clusters: list[int] = Field(description="ids of the model's clusters that belong to it")
    examples: int = Field(description="places that were shown to it, and are used")
    negatives: int = Field(description="places that were said not to be it, and are used")
    aside: int = Field(description="places that were shown to another encoder: kept, not used; used when it returns")


class Point(Frozen):
    """A place in an image, as fractions of its width and height, 0 to 1."""

    x: float
    y: float


class ExampleInfo(Frozen):
    """One place that was shown to a class; of its image nothing is kept."""

    n: int = Field(description="its number, which no other example of the class ever has")
    at: Point
    negative: bool
    aside: bool
    added: str = Field(description="when, as ISO 8601")


class ClassDetail(ClassInfo):
    """One class, with its examples."""

    examples_list: list[ExampleInfo]


class ClassList(Frozen):
    """All classes of a model."""

    model: str
    digest: str
    encoder: str = Field(description="sha256 of encoder.onnx: examples hold for it alone")
    classes: list[ClassInfo]
    warnings: list[str]


class Taught(Frozen):
    """The answer to an example."""

    class_: int = Field(alias="class", description="the class that was taught")
    example: int = Field(description="the number that the example has")
    agrees: float = Field(description="share of that place's pixels that were the class before, 0 to 1")
    classes: list[ClassInfo]
    warnings: list[str]


class ImportedClass(Frozen):
    """A class of an imported file, as it is here."""

    id: int
    examples: list[int] = Field(description="the numbers of those that are new here")


class ImportedClasses(ClassList):
    """The answer to an import."""

    imported: list[ImportedClass]


class SuggestedPlace(Frozen):
    """A place that is decided least clearly: to show it teaches the most."""

    image: str = Field(description="sha256 of the image's file")
    x: int = Field(description="column of the pixel, from 0")
    y: int
    margin: float
    between: Annotated[
        tuple[int, int],
        WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
    ] = Field(description="the two classes it lies between")


class SuggestedPlaces(Frozen):
    """Where to click next, the least clear place first."""

    places: list[SuggestedPlace]
    note: str | None = Field(default=None, description="why there is none")


class SuggestQuery(ModelQuery):
    """What `GET /classes/suggest` may be asked."""

    count: int = Field(default=3, ge=1, le=50, description="how many places, 1 to 50")


class ImportQuery(ModelQuery):
    """What `PUT /classes/import` may be told."""

    replace: bool = Field(default=False, description="true: all other classes are taken away first")


def class_list(served: Served, state: ClassState) -> ClassList:
    """All of them."""
    return ClassList(
        model=served.name,
        digest=served.bundle.digest[:12],
        encoder=state.encoder,
        classes=[_info(one, state) for one in state.classes],
        warnings=[*state.warnings],
    )


def class_detail(state: ClassState, one: TaughtClass) -> ClassDetail:
    """One of them."""
    used = {example.n for example in state.used(one)}
    return ClassDetail(
        **dict(_info(one, state)),
        examples_list=[
            ExampleInfo(
                n=example.n,
                at=Point(x=example.at[0], y=example.at[1]),
                negative=example.negative,
                aside=example.n not in used,
                added=example.added,
            )
            for example in one.examples
        ],
    )


def imported(served: Served, state: ClassState, done: Imported) -> ImportedClasses:
    """What is there after an import."""
    there = class_list(served, state)
    return ImportedClasses(
        **{**dict(there), "warnings": [*done.warnings, *there.warnings]},
        imported=[ImportedClass(id=id, examples=numbers) for id, numbers in done.classes.items()],
    )


def taught(served: Served, state: ClassState, id: int, n: int, agrees: float) -> Taught:
    """What is there after an example."""
    there = class_list(served, state)
    return Taught(**{"class": id}, example=n, agrees=agrees, classes=there.classes, warnings=there.warnings)


def suggested(image: bytes, places: tuple[Suggestion, ...]) -> list[SuggestedPlace]:
    """Those of one image, whose file has a sha256."""
    return [SuggestedPlace(image=image.hex(), **place._asdict()) for place in places]


def _info(one: TaughtClass, state: ClassState) -> ClassInfo:
    used = state.used(one)
    negatives = sum(example.negative for example in used)
    return ClassInfo(
        id=one.id,
        name=one.name,
        color=one.color,
        clusters=[*one.clusters],
        examples=len(used) - negatives,
        negatives=negatives,
        aside=len(one.examples) - len(used),
    )
