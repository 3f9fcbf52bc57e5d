"""Classes that people teach a model by example: what they are called, which clusters and examples they have.

Knows nothing of HTTP, of images, or of files, and runs no network. What was taught is in the state folder's
`ClassStore`, field by field in the order it was said, as changes of clusters are: names, colors and examples belong to
the bundle's name, so that a newer bundle has them at once; clusters to the bundle itself, and follow to the clusters
that are clearly the same (`cluster_matching.py`). An example means something to the encoder alone that it was taken
with: under another one it is kept aside, and in use again when that encoder returns.
"""

import base64
import itertools
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from threading import Lock
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from models import palette
from models.bundle import Bundle
from models.class_file import MAX_EXAMPLES, ClassFile, FileClass, FileExample, numbers
from models.manifest import Digest, HexColor
from models.names import ClusterName
from models.prototypes import Classifier, Example, Taught
from models.types import Array
from service.errors import BadOption, Conflict, NotFound, NotKept
from service.formats.result import ClusterStyle
from service.repository.change_store import Kept, PreviousNames
from service.repository.class_store import CLUSTERS, ClassStore
from service.repository.cluster_changes import Key, Record, Said, joined, newest
from service.repository.cluster_matching import Fingerprint, Match
from service.repository.database import READ_S, WRITE_S

log = logging.getLogger("tessera")

MAX_CLASSES = 254
MAX_EXAMPLES_IN_ALL = 20_000  # of one model, aside or not
MAX_NUMBERS = 1_900_000  # of all their codes: so that an export is never larger than an import may be
_TOLD = 5  # classes, in a warning
_IMPORT_S = 60.0  # for as many examples as there may be
_LOOK, _EXAMPLE = "look", "example:"

Id = Annotated[int, Field(ge=0, le=254)]
Color = Annotated[HexColor, BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassBody(_Frozen):
    """What POST and PUT say of a class."""

    name: ClusterName = Field(
        description="1 to 80 characters on one line, all of them seen and none that turns text around; no other class"
        " has it"
    )
    color: Color | None = Field(
        default=None, description="#rrggbb; absent, what it has, or for a new class one far from the others'"
    )
    clusters: tuple[Id, ...] | None = Field(
        default=None,
        max_length=255,
        description="ids of the model's clusters that belong to it; absent, those it has, none for a new class",
    )


class _Look(_Frozen):
    """What is kept of a class besides its examples and clusters."""

    name: ClusterName
    color: HexColor


class _KeptExample(_Frozen):
    """What is kept of an example; `code` is base64 of little-endian float32 [D]."""

    encoder: Digest
    code: str
    at: tuple[float, float]
    negative: bool
    added: str


class TaughtExample(NamedTuple):
    """A place that somebody pointed at.

    n         its number, never used twice;  code  float32 [D] of length 1
    at        (x, y) of its middle, fractions of the image;  negative  it is said not to be the class
    encoder   sha256 of the encoder.onnx that the code was taken with;  added  when, as ISO 8601
    """

    n: int
    code: Array
    at: tuple[float, float]
    negative: bool
    encoder: str
    added: str


class TaughtClass(NamedTuple):
    """A class: its value in label maps, what it is called, its color #rrggbb, its clusters, its examples by n."""

    id: int
    name: str
    color: str
    clusters: tuple[int, ...]
    examples: tuple[TaughtExample, ...]


_serials = itertools.count(1)


class ClassState:
    """One moment of a model's classes: an answer is made with one of these, whatever people teach meanwhile.

    classes   by id;  encoder  sha256 of the network's file;  style  colors and names, by class id
    warnings  what is told with every answer;  serial  another one for every moment, in this process
    """

    def __init__(self, bundle: Bundle, classes: Sequence[TaughtClass]) -> None:
        self.classes = tuple(classes)
        self.encoder = bundle.manifest.files["encoder.onnx"]
        self.serial = next(_serials)
        self._bundle = bundle
        self._fitting = Lock()
        self._classifier: Classifier | None = None

    @cached_property
    def by_id(self) -> Mapping[int, TaughtClass]:
        """The classes by their ids."""
        return {one.id: one for one in self.classes}

    def used(self, one: TaughtClass) -> list[TaughtExample]:
        """A class's examples that mean something to the network that serves."""
        dim = self._bundle.manifest.code.dim
        return [example for example in one.examples if example.encoder == self.encoder and len(example.code) == dim]

    @cached_property
    def taught(self) -> bool:
        """Whether any class has a cluster, or an example in use that is not negative: else no pixel could be one."""
        return any(one.clusters or not all(e.negative for e in self.used(one)) for one in self.classes)

    @property
    def classifier(self) -> Classifier | None:
        """What tells the classes apart, from the first call on; None where nothing is taught. For a thread's job."""
        with self._fitting:  # no cached_property: before Python 3.12 all models' would share its lock
            if self._classifier is None and self.taught:
                self._classifier = self._fit()
        return self._classifier

    def _fit(self) -> Classifier | None:
        examples = [
            Example(one.id, example.code, (example.at[1], example.at[0]), example.negative)
            for one in self.classes
            for example in self.used(one)
        ]
        taught = [Taught(one.id, one.clusters) for one in self.classes]
        fractions = [one.fraction for one in self._bundle.manifest.clusters]
        return Classifier.fit(self._bundle.centroids, taught, examples, fractions)

    @cached_property
    def style(self) -> ClusterStyle:
        """Names and colors by class id; numbers that no class has have no name, and are black."""
        count = max(self.by_id, default=-1) + 1
        names, colors = [""] * count, np.zeros((count, 3), np.uint8)
        for one in self.classes:
            names[one.id], colors[one.id] = one.name, palette.from_hex(one.color)
        return ClusterStyle(tuple(names), colors, frozenset(), self.table)

    @cached_property
    def table(self) -> Array:
        """uint8 [greatest id + 1]: every class's id stands for itself, numbers that no class has for the first."""
        first = min(self.by_id, default=0)
        return np.array([i if i in self.by_id else first for i in range(max(self.by_id, default=-1) + 1)], np.uint8)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """That examples are aside."""
        aside = [(one.name, len(one.examples) - len(self.used(one))) for one in self.classes]
        told = [f"{name!r} ({count})" for name, count in aside if count]
        if not told:
            return ()
        others = f" and {len(told) - _TOLD} others" if len(told) > _TOLD else ""
        return (
            f"examples of {', '.join(told[:_TOLD])}{others} were taken with another encoder: they are kept, and not"
            f" used with {self._bundle.ref}; teach these classes again, or serve the model they were taken with",
        )

    def find(self, id: int) -> TaughtClass:
        """The class of an id. Raises NotFound."""
        if (one := self.by_id.get(id)) is None:
            there = f"there are {', '.join(map(str, sorted(self.by_id)[:20]))}" if self.by_id else "there is none yet"
            raise NotFound(f"no class {id}: {there}; POST /classes makes one")
        return one

    def file(self, classes: Sequence[TaughtClass] | None = None) -> ClassFile:
        """These classes as a file; all of them where none are given."""
        found = [
            FileClass.model_construct(
                id=one.id,
                name=one.name,
                color=one.color,
                clusters=one.clusters,
                examples=tuple(
                    FileExample.model_construct(
                        n=example.n,
                        code=numbers(example.code),
                        at=example.at,
                        negative=example.negative,
                        encoder=None if example.encoder == self.encoder else example.encoder,
                        added=example.added,
                    )
                    for example in one.examples
                ),
            )
            for one in (self.classes if classes is None else classes)
        ]
        return ClassFile.model_construct(
            model=self._bundle.manifest.name,
            encoder=self.encoder,
            dim=self._bundle.manifest.code.dim,
            classes=tuple(found),
        )


Precondition = Callable[[ClassState], None]


class Imported(NamedTuple):
    """What an import did: the ids of its classes with the numbers that their new examples have; what is to be told."""

    classes: dict[int, list[int]]
    warnings: list[str]


class Classes:
    """The classes of one bundle, with what is kept of them in the store: `refresh` looks there.

    state  as of the last look
    """

    def __init__(self, bundle: Bundle, store: ClassStore) -> None:
        self._bundle, self._store = bundle, store
        self._kept = Kept()
        self._unkept: Record = {}  # shown, and not in the store: what followed, or was there before the store was lost
        self._borrowed: Record = {}  # shown, and nothing of this bundle: what `borrow` brought
        self._fixed = False
        self._read: dict[tuple[Key, Any], TaughtExample] = {}
        self._show({})

    @property
    def persistent(self) -> bool:
        """Whether all that is shown is kept and, as far as is known, the next change will be."""
        return self._store.writable and not self._unkept

    def fix(self, file: ClassFile) -> None:
        """Show a file's classes from now on, whatever is kept. Raises BadOption for what `load` does not take."""
        said, _ = self._imported(ClassState(self._bundle, ()), file, 1, replace=False)
        self._fixed, self.state = True, self._state_of(said)

    async def refresh(self, limit_s: float = READ_S) -> ClassState:
        """Show what is kept now, whichever server it came to; where the store cannot say, what was known stays.

        What is shown and not kept is written, if that can be done now.
        """
        if self._fixed:
            return self.state
        with suppress(NotKept):
            kept = await self._store.look(self._bundle, self._kept, limit_s)
            if self._shown_beside(kept):
                if self._store.writable:
                    update = self._store.update(self._bundle, self._kept, lambda kept, _: self._together(kept))
                    self._take(await update)
            elif kept is not self._kept:
                self._take(kept)
        return self.state

    async def create(self, body: ClassBody, precondition: Precondition | None = None) -> TaughtClass:
        """Make a class, with the smallest free id. Raises BadOption, Conflict for a name that is taken, NotKept."""
        made: list[int] = []

        def change(state: ClassState, number: int) -> dict[Key, Said]:
            made[:] = [_free_id(state.by_id)]
            return self._put(state, made[0], body, number)

        await self._change(change, precondition)
        return self.state.find(made[0])

    async def put(self, id: int, body: ClassBody, precondition: Precondition | None = None) -> TaughtClass:
        """Make or replace the class of an id; its examples stay. Raises what `create` raises."""
        if id > 254:
            raise BadOption(f"no class can have the id {id}: they are the values of label maps, 0 to 254")
        await self._change(lambda state, number: self._put(state, id, body, number), precondition)
        return self.state.find(id)

    async def teach(
        self,
        id: int,
        code: Array,
        at: tuple[float, float],
        *,
        encoder: str,
        negative: bool = False,
        precondition: Precondition | None = None,
    ) -> int:
        """Keep an example of a class: its number.

        code  float32 [D] of length 1, that `encoder` gave;  at  (x, y) of its middle, fractions of the image

        Raises NotFound, BadOption where there are too many, NotKept.
        """
        made: list[int] = []

        def change(state: ClassState, number: int) -> dict[Key, Said]:
            state.find(id)
            sizes = {one.id: len(one.examples) + (one.id == id) for one in state.classes}
            held = sum(len(example.code) for one in state.classes for example in one.examples) + len(code)
            _check_counts(sizes, held)
            made[:] = [number]
            return {(id, f"{_EXAMPLE}{number}"): Said(_to_json(code, at, negative, encoder, _now()), number)}

        await self._change(change, precondition)
        return made[0]

    async def remove(self, id: int, precondition: Precondition | None = None) -> ClassFile:
        """Take a class away, with its examples: as a file, which brings it back. Raises NotFound, NotKept."""
        removed: list[ClassFile] = []

        def change(state: ClassState, number: int) -> dict[Key, Said]:
            one = state.find(id)
            removed[:] = [state.file([one])]
            return _without(one, number)

        await self._change(change, precondition)
        return removed[0]

    async def forget(self, id: int, n: int, precondition: Precondition | None = None) -> ClassFile:
        """Take an example away: its class with it alone as a file, which brings it back. Raises NotFound, NotKept."""
        removed: list[ClassFile] = []

        def change(state: ClassState, number: int) -> dict[Key, Said]:
            one = state.find(id)
            example = next((example for example in one.examples if example.n == n), None)
            if example is None:
                numbers = ", ".join(str(example.n) for example in one.examples[:20]) or "none"
                raise NotFound(f"class {id} has no example {n}; there are {numbers}")
            removed[:] = [state.file([one._replace(examples=(example,))])]
            return {(id, f"{_EXAMPLE}{n}"): Said(None, number)}

        await self._change(change, precondition)
        return removed[0]

    async def load(
        self, file: ClassFile, *, replace: bool = False, precondition: Precondition | None = None
    ) -> Imported:
        """Take over the classes of a file; `replace`: all others are taken away first, in the same moment.

        A class of the same name has the file's color and clusters from then on, and its examples besides its own; one
        that is not there has its id where that is free, else the smallest that is. Raises BadOption where there are
        too many, or clusters that the model does not have, NotKept.
        """
        done: list[Imported] = []

        def change(state: ClassState, number: int) -> dict[Key, Said]:
            said, imported = self._imported(state, file, number, replace=replace)
            done[:] = [imported]
            return said

        await self._change(change, precondition, _IMPORT_S)
        return done[0]

    @property
    def past(self) -> PreviousNames:
        """The clusters of classes, for the bundle that comes next. `record` is another object after every change."""
        return PreviousNames(self._bundle.ref, self._past, Fingerprint(self._bundle.centroids, self._bundle.golden))

    async def before(self) -> PreviousNames | None:
        """The same of the bundle before that has this one's name, where it is later than what is known of this one;
        None where there is nothing. Raises NotKept."""
        past = await self._store.before(self._bundle)
        return past if past is not None and newest(past.record) > newest(self._past) else None

    def borrow(self, past: PreviousNames, match: Match) -> None:
        """Show the classes' clusters as another bundle of the same name has them, without keeping it: until `follow`,
        or until somebody says here which they are."""
        self._borrowed = _carried(past.record, match)
        self._show(self._unkept or self._kept.record)

    async def follow(self, past: PreviousNames, match: Match) -> None:
        """Take over and keep which clusters belonged to the classes in an older bundle of the same name.

        What was kept of this very bundle stays where it was said later. Where it cannot be written it is shown all the
        same, and written once that can be done.
        """
        came = _carried(past.record, match)
        self._borrowed = {}

        def work(kept: Kept, _: int) -> Record:
            return joined(self._together(kept), came)

        try:
            self._take(await self._store.update(self._bundle, self._kept, work))
        except NotKept as error:
            log.error("%s: clusters of classes follow but are not kept yet: %s", self._bundle.ref, error)
            self._unkept = work(self._kept, 0)
            self._show(self._unkept)

    async def _change(
        self,
        change: Callable[[ClassState, int], dict[Key, Said]],
        precondition: Precondition | None,
        limit_s: float = WRITE_S,
    ) -> None:
        """Keep what `change` makes of the state, and show it from now on. Raises NotKept, or what either raises."""

        def work(kept: Kept, number: int) -> Record:
            record = joined(self._together(kept), self._borrowed)
            state = self._state_of(record)
            if precondition is not None:
                precondition(state)
            return {**record, **change(state, max(number, newest(record) + 1))}

        try:
            kept = await self._store.update(self._bundle, self._kept, work, limit_s)
        except NotKept as error:
            raise NotKept(
                f"the classes are as they were: the change could not be kept ({error}). Try again, or have the operator"
                " set TESSERA_STATE to a folder that can be written, with room"
            ) from None
        self._take(kept)

    def _put(self, state: ClassState, id: int, body: ClassBody, number: int) -> dict[Key, Said]:
        before = state.by_id.get(id)
        if (other := next((one for one in state.classes if one.name == body.name and one.id != id), None)) is not None:
            raise Conflict(f"class {other.id} is called {body.name!r} already; teach that one, or take another name")
        if before is None and len(state.classes) >= MAX_CLASSES:
            raise BadOption(f"there are {MAX_CLASSES} classes, the most that a model can have; delete one first")
        color = body.color or (before.color if before else _far_from(one.color for one in state.classes))
        said = {(id, _LOOK): Said(_Look(name=body.name, color=color).model_dump_json(), number)}
        if before is None or body.clusters is not None:
            clusters = sorted(set(body.clusters or ()))
            self._check_clusters(clusters)
            said[id, CLUSTERS] = Said(json.dumps(clusters), number)
        return said

    def _check_clusters(self, clusters: Sequence[int]) -> None:
        count = len(self._bundle.manifest.clusters)
        if missing := [cluster for cluster in clusters if cluster >= count]:
            raise BadOption(f"clusters: no cluster {missing[0]}; {self._bundle.ref} has 0 to {count - 1}")

    def _imported(
        self, state: ClassState, file: ClassFile, number: int, *, replace: bool
    ) -> tuple[dict[Key, Said], Imported]:
        here = {} if replace else dict(state.by_id)
        said = {key: value for one in state.classes if replace for key, value in _without(one, number).items()}
        ids = _ids_of(file, here)
        if len({*here, *ids.values()}) > MAX_CLASSES:
            raise BadOption(f"with these there would be more than {MAX_CLASSES} classes; delete some, or replace=true")
        done = Imported({}, [])
        sizes = {id: len(one.examples) for id, one in here.items()}
        held = sum(len(example.code) for one in here.values() for example in one.examples)
        for given in file.classes:
            id = ids[given.name]
            look = _Look(name=given.name, color=given.color.lower())
            said[id, _LOOK] = Said(look.model_dump_json(), number)
            said[id, CLUSTERS] = Said(json.dumps(self._clusters_of(file, given, done.warnings)), number)
            known = here[id].examples if id in here else ()
            there = {(e.encoder, e.negative, e.at, e.code.tobytes()) for e in known}
            new: list[int] = []
            for example in given.examples:
                code, encoder = _unit(example.vector, given.name, example.n), example.encoder or file.encoder
                if encoder == state.encoder and len(code) != (dim := self._bundle.manifest.code.dim):
                    raise BadOption(
                        f"example {example.n} of {given.name!r} has a code of {len(code)} numbers, and codes of this"
                        f" encoder have {dim}"
                    )
                key = encoder, example.negative, example.at, code.tobytes()
                if key not in there:
                    there.add(key)
                    value = _to_json(code, example.at, example.negative, encoder, _time_of(example.added))
                    said[id, f"{_EXAMPLE}{number}"] = Said(value, number)
                    new.append(number)
                    number, held = number + 1, held + len(code)
            done.classes[id] = new
            sizes[id] = len(known) + len(new)
        _check_counts(sizes, held)
        if file.encoder != state.encoder:
            done.warnings.append(
                "the file is of another encoder: of it names, colors and clusters are used, its clusters' numbers as"
                " they are; its examples are kept aside, and used once that encoder serves under this model's name"
            )
        return said, done

    def _clusters_of(self, file: ClassFile, given: FileClass, warnings: list[str]) -> list[int]:
        """A class's clusters in a file, as this model has them. Raises BadOption for those it should have."""
        clusters, count = sorted(given.clusters), len(self._bundle.manifest.clusters)
        if file.encoder == self.state.encoder:
            self._check_clusters(clusters)
        elif any(cluster >= count for cluster in clusters):
            warnings.append(f"{given.name!r}: clusters that {self._bundle.ref} does not have are left out")
        return [cluster for cluster in clusters if cluster < count]

    def _shown_beside(self, kept: Kept) -> Record:
        """What is shown here and may be missing in the store: another database than before, or an older copy of it."""
        lost = kept.store != self._kept.store or kept.sequence < self._kept.sequence
        return self._unkept or (self._kept.record if lost else {})

    def _together(self, kept: Kept) -> Record:
        return joined(kept.record, self._shown_beside(kept))

    def _take(self, kept: Kept) -> None:
        """Show what is kept from now on."""
        self._kept, self._unkept = kept, {}
        self._show(kept.record)

    def _show(self, record: Record) -> None:
        self._past: Record = {key: said for key, said in record.items() if key[1] == CLUSTERS}
        self.state = self._state_of(joined(record, self._borrowed))
        keys = {(key, said.value) for key, said in record.items()}
        self._read = {key: value for key, value in self._read.items() if key in keys}

    def _state_of(self, record: Record) -> ClassState:
        """What a record comes to: one and the same on every server. What cannot be is left out, with a word in the
        log; of two classes of one name, which only servers apart from each other can give, one shows its id."""
        looks: dict[int, _Look] = {}
        clusters: dict[int, tuple[int, ...]] = {}
        examples: dict[int, list[TaughtExample]] = {}
        count = len(self._bundle.manifest.clusters)
        for (id, field), said in record.items():
            if said.value is None or not 0 <= id <= 254:
                continue
            try:
                if field == _LOOK:
                    looks[id] = _Look.model_validate_json(str(said.value))
                elif field == CLUSTERS:
                    given = json.loads(str(said.value))
                    clusters[id] = tuple(sorted({c for c in given if isinstance(c, int) and 0 <= c < count}))
                elif field.startswith(_EXAMPLE):
                    examples.setdefault(id, []).append(self._example(id, field, said))
            except (ValidationError, ValueError, TypeError) as error:
                log.warning("%s of class %d is passed over: %s", field[:40], id, str(error).split("\n")[0])
        names: set[str] = set()
        classes = []
        for id, look in sorted(looks.items()):
            name = look.name if look.name not in names else f"{look.name[:74]} ({id})"
            names.add(name)
            own = tuple(sorted(examples.get(id, ())))
            classes.append(TaughtClass(id, name, look.color, clusters.get(id, ()), own))
        return ClassState(self._bundle, classes)

    def _example(self, id: int, field: str, said: Said) -> TaughtExample:
        key = ((id, field), said.value)
        if key not in self._read:
            kept = _KeptExample.model_validate_json(str(said.value))
            code = np.frombuffer(base64.b64decode(kept.code, validate=True), "<f4")
            n = int(field.removeprefix(_EXAMPLE))
            self._read[key] = TaughtExample(n, code, kept.at, kept.negative, kept.encoder, kept.added)
        return self._read[key]


def _carried(record: Record, match: Match) -> dict[Key, Said]:
    """The classes' clusters as those of another bundle that they are."""
    came = {}
    for key, said in record.items():
        value = said.value
        if value is not None:
            old = json.loads(str(value))
            value = json.dumps(sorted(match.pairs[cluster].new for cluster in old if cluster in match.pairs))
        came[key] = Said(value, said.sequence)
    return came


def _without(one: TaughtClass, number: int) -> dict[Key, Said]:
    fields = [_LOOK, CLUSTERS, *(f"{_EXAMPLE}{example.n}" for example in one.examples)]
    return {(one.id, field): Said(None, number) for field in fields}


def _ids_of(file: ClassFile, here: Mapping[int, TaughtClass]) -> dict[str, int]:
    """By name the id of every class of a file: that of the class here of its name, else its own where that is free,
    else the smallest that is."""
    by_name = {one.name: one.id for one in here.values()}
    ids = {given.name: by_name[given.name] for given in file.classes if given.name in by_name}
    for given in file.classes:
        if given.name not in ids and given.id not in here:
            ids[given.name] = given.id
    for given in file.classes:
        if given.name not in ids:
            ids[given.name] = _free_id({*here, *ids.values()})
    return ids


def _free_id(taken: Collection[int]) -> int:
    """The smallest."""
    return next(id for id in range(len(taken) + 1) if id not in taken)


def _check_counts(sizes: Mapping[int, int], held: int) -> None:
    """Raises BadOption for more examples of a class, by its id, or numbers of all their codes, than are kept."""
    total = sum(sizes.values())
    for id, size in sizes.items():
        if size > MAX_EXAMPLES:
            raise BadOption(f"class {id} would have more than {MAX_EXAMPLES} examples; delete some of them first")
    if total > MAX_EXAMPLES_IN_ALL or held > MAX_NUMBERS:
        raise BadOption(
            f"all classes together would have {total} examples of {held} numbers; {MAX_EXAMPLES_IN_ALL} examples and"
            f" {MAX_NUMBERS} numbers are the most: delete some first"
        )


def _unit(code: Array, name: str, n: int) -> Array:
    length = float(np.linalg.norm(code.astype(np.float64)))
    if not length > 0:
        raise BadOption(f"example {n} of {name!r}: its code has no direction, all its numbers are 0")
    unit: Array = (code / length).astype(np.float32) if abs(length - 1) > 1e-6 else code.astype(np.float32)
    return unit


def _to_json(code: Array, at: tuple[float, float], negative: bool, encoder: str, added: str) -> str:
    kept = _KeptExample(
        encoder=encoder,
        code=base64.b64encode(np.asarray(code, "<f4").tobytes()).decode(),
        at=at,
        negative=negative,
        added=added,
    )
    return kept.model_dump_json()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _time_of(added: str | None) -> str:
    """When an example was made, as its file says; now, where it says nothing that is a time."""
    with suppress(ValueError, OverflowError):
        if added is not None:
            return datetime.fromisoformat(added).astimezone(UTC).isoformat(timespec="seconds")
    return _now()


def _far_from(colors: Iterable[str]) -> str:
    return palette.to_hex(
        palette.apart(np.array([palette.from_hex(color) for color in colors], np.uint8).reshape(-1, 3))
    )
