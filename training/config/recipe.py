"""A recipe: one TOML page → one frozen object, and back.

Knows nothing of methods, networks or files of images: whoever reads a recipe hands in what a method's own table
may hold. An unknown key is an error that names the nearest known one; `--set a.b=v` overrides a single value; the
resolved recipe is what is saved and hashed.
"""

import copy
import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from models.debias import Asked
from models.errors import UsageError
from models.preprocess import Band

M = TypeVar("M", bound=BaseModel)
Precision = Literal["auto", "float32", "bfloat16"]

MOST_OFTEN = 27  # clusters: what most published figures are of


class Section(BaseModel):
    """Base of every recipe section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneSection(Section):
    """Which network gives the features, and where its weights come from: what `models.nets.backbone.build` takes."""

    name: str = "vit_small_patch8_224.dino"  # timm's name
    # "timm" (its hub), "random", a .safetensors/.pth file, or "auto": the hub, and where there is none a
    # small network pretrained on the same images
    weights: str = "timm"
    features: Literal["tokens", "keys"] = "tokens"  # of a ViT: after the final norm, or the last attention's keys
    # whose conventions for positions and pixels the weights follow (models/nets/families.py), where neither their
    # file nor the name tells; empty: as these tell
    family: str = ""
    mean: tuple[FiniteFloat, ...] = ()  # of the pixels (R, G, B), as fractions of 255; empty: the weights' own
    std: tuple[FiniteFloat, ...] = ()

    @model_validator(mode="after")
    def _of_three_channels(self) -> Self:
        if {len(self.mean), len(self.std)} - {0, 3} or any(value <= 0 for value in self.std):
            raise ValueError(
                "mean and std are three numbers, R, G, B of 0..1, std over 0; or none, for the weights' own"
            )
        return self


class DataSection(Section):
    """How the files of images are read."""

    # which samples of a file with many are gray (one) or R, G, B (three), from 1; empty: as each file says
    bands: tuple[Band, ...] = ()
    # flat files named as the photos beside them: label maps, or photos as well
    label_maps: Literal["leave_out", "as_photos"] = "leave_out"

    @model_validator(mode="after")
    def _gray_or_rgb(self) -> Self:
        if len(self.bands) not in (0, 1, 3):
            raise ValueError("bands are one number, for gray, or three, for R, G, B, from 1; none: as each file says")
        return self


class ComputeSection(Section):
    """How it is computed."""

    # of the networks' products; auto: bfloat16 where the processor or GPU has it. SAN and pretraining always take that
    precision: Precision = "float32"


class InputSection(Section):
    """Sizes in pixels."""

    train_size: int = Field(default=224, ge=32, multiple_of=2)  # side of the training crops
    size: int = Field(default=320, ge=32, le=2048, multiple_of=2)  # short side when serving
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # upstream STEGO resizes by "nearest"


def _some_directions(count: Any) -> Any:
    if count != "auto" and not (type(count) is int and count >= 0):
        raise ValueError("write how many directions are taken out, 0 for none, or auto")
    return count


Debias = Annotated[Asked, BeforeValidator(_some_directions)]


def _some_clusters(k: Any) -> Any:
    if k != "auto" and not (isinstance(k, int) and 2 <= k <= 255):
        raise ValueError("write 2 to 255 clusters, or auto")
    return k


class ClusterSection(Section):
    """How codes become clusters, when the method leaves that to the pipeline, and the hierarchy above them."""

    # "auto": as many as training/discovery/choose_k.py proposes; what a method learned itself is then clustered anew
    k: Annotated[int | Literal["auto"], BeforeValidator(_some_clusters)] = MOST_OFTEN
    unit: Literal["pixel", "region"] = "pixel"  # region: every Felzenszwalb region weighs the same
    # many clusters of regions, joined by what belongs together (training/discovery/merging.py); false: k-means, or what
    # the method learned itself
    merge: bool = False
    region_scales: tuple[float, ...] = (250.0,)
    # weight of two position columns appended to the code; with `merge`, of a region's place where clusters are made
    position: float = Field(default=0.0, ge=0.0)
    restarts: int = Field(default=3, ge=1)
    runs: int = Field(default=1, ge=1)  # over 1: consensus of that many clusterings
    distill_steps: int = Field(default=0, ge=0)  # over 0: one network learns the consensus
    distill_lr: float = Field(default=1e-3, gt=0)

    @property
    def count(self) -> int:
        """K where nobody has looked at the codes yet: a method that needs one learns so many under `auto`."""
        return MOST_OFTEN if self.k == "auto" else self.k

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.runs > 1 and not self.distill_steps:
            raise ValueError("runs over 1 needs distill_steps over 0: one network learns what the clusterings agree on")
        if self.runs > 1 and self.merge:
            raise ValueError("runs over 1 is a vote of clusterings of K clusters: leave it at 1, or set merge = false")
        return self


class ExportSection(Section):
    """What the bundle is called and holds."""

    name: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")  # empty: the data folder's name
    exemplars: int = Field(default=5, ge=0, le=20)  # patches per cluster; 0 for private data
    measured_images: int = Field(default=300, ge=1)  # that shares, patches and the report are taken from, drawn evenly
    # directions of the code that say where a place is, which places of different images are compared without
    debias: Debias = 0
    align_to: str = ""  # a bundle whose ids, names and colors are kept where clusters are the same
    licence: str = "unknown"  # of the pretrained weights, copied to NOTICE


class StudentSection(Section):
    """A small CNN that learns the label maps of a bigger network, its teacher, and is exported in that one's place."""

    backbone: str = ""  # timm's name of a CNN with maps at strides 4, 8, …; empty: there is no student
    teacher: str = ""  # folder of a finished bundle; empty: what this run finds by its own method and backbone
    # what it begins with: "random", "regions" (pretrained here, on the images it learns from), "timm", or a file
    weights: str = "random"
    levels: int = Field(default=3, ge=1, le=4)  # maps of the CNN that are used, from stride 4 on
    neck: int = Field(default=128, ge=8)  # channels of what merges them at stride 4
    position: float = Field(default=0.0, ge=0.0)  # weight of two position columns at the end of its code
    images: int = Field(default=2000, ge=2)  # that it learns from, drawn evenly of more: they are kept on disk
    held_out: float = Field(default=0.1, gt=0, le=0.5)  # share of the images that it never sees: agreement is theirs
    steps: int = Field(default=0, ge=0)  # 0: as the number of images asks for
    batch_size: int = Field(default=12, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    sharpness: float = Field(default=10.0, gt=0)  # what similarities are multiplied by before both networks' softmax
    weight_code: float = Field(default=0.0, ge=0)  # over 0: the teacher's code is learned beside its label maps


class TrainSection(Section):
    """What is kept of a training while it goes on; nothing of the result depends on it."""

    preview_every: int = Field(default=100, ge=0)  # steps between two pictures of a few images; 0: none
    checkpoint_every: int = Field(default=0, ge=0)  # steps between two checkpoints that stay; 0: the last alone


class Recipe(Section):
    """Everything that decides a result, apart from the images themselves."""

    method: str = "stego"
    seed: int = 0
    dataset: str = "folder"
    split: str = "train"  # of a data set that has splits
    workers: int = Field(default=2, ge=0)
    compute: ComputeSection = ComputeSection()
    data: DataSection = DataSection()
    backbone: BackboneSection = BackboneSection()
    input: InputSection = InputSection()
    clusters: ClusterSection = ClusterSection()
    student: StudentSection = StudentSection()
    export: ExportSection = ExportSection()
    train: TrainSection = TrainSection()
    options: dict[str, Any] = Field(default_factory=dict)  # the table named after the method, checked by it

    @cached_property
    def sha256(self) -> str:
        """Digest of every value, defaults included; the same for two spellings of one recipe."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def differences(self, other: "Recipe") -> list[str]:
        """Dotted keys on which two recipes differ, with both values: "seed: 0, here 1"."""
        mine, theirs = _flat(page_of(self)), _flat(page_of(other))
        return [
            f"{key}: {mine.get(key, 'absent')!r}, here {theirs.get(key, 'absent')!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def read(path: Path) -> dict[str, Any]:
    """A TOML file as nested tables. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def parse(
    page: Mapping[str, Any],
    *,
    config_of: Callable[[str], type[BaseModel]],
    overrides: Sequence[str] = (),
    method: str | None = None,
    dataset: str | None = None,
) -> Recipe:
    """The recipe of nested tables (none: all defaults), with `a.b=v` overrides, checked by its method.

    config_of        a method's name → what its own table may hold: `training.methods.config`
    method, dataset  given on the command line; an error when the page names another

    Raises UsageError, which names the key and what is near it, and whatever `config_of` raises.
    """
    tables: dict[str, Any] = copy.deepcopy(dict(page))
    for override in overrides:
        _override(tables, override)
    for key, wanted in (("method", method), ("dataset", dataset)):
        if wanted is not None and tables.setdefault(key, wanted) != wanted:
            raise UsageError(f"the recipe says {key} = {tables[key]!r}, the command line {wanted!r}: drop one of them")
    name = str(tables.get("method", Recipe.model_fields["method"].default))
    config = config_of(name)
    if "options" in tables:
        raise UsageError(f"options: {name}'s own values belong in a table [{name}]")
    own = tables.pop(name, {})
    recipe = _check(Recipe, tables, (), known={name: config})
    options = _check(config, own, (name,)).model_dump(mode="json")
    return recipe.model_copy(update={"options": options})


def page_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the nested tables it is written as: `parse(page_of(r), …) == r`."""
    page = recipe.model_dump(mode="json")
    page[recipe.method] = page.pop("options")
    return page


def encode(recipe: Recipe) -> str:
    """A recipe as a TOML page with every value spelled out."""
    return "\n".join(_table(page_of(recipe), "")) + "\n"


def _override(page: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {override}: write it as key=value, for instance --set clusters.k=12")
    *tables, last = key.strip().split(".")
    for table in tables:
        inner = page.setdefault(table, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: {table!r} is a value, not a table")
        page = inner
    try:
        page[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        page[last] = text.strip()  # a bare word: a name or a path


def _check(model: type[M], values: Any, at: tuple[str, ...], known: Mapping[str, type[BaseModel]] | None = None) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError("; ".join(_say(model, e, at, known or {}) for e in error.errors())) from None


def _say(model: type[BaseModel], error: Any, at: tuple[str, ...], known: Mapping[str, type[BaseModel]]) -> str:
    loc = error["loc"]
    where = ".".join((*at, *map(str, loc)))
    if error["type"] != "extra_forbidden":
        said = error["msg"].removeprefix("Value error, ")
        given = "" if isinstance(error["input"], Mapping) else f" (it is {error['input']!r})"
        return f"{where}: {said[:1].lower()}{said[1:]}{given}"
    beside = [name for name in (*_fields(model, loc[:-1]), *(() if loc[:-1] else known)) if name != "options"]
    near = difflib.get_close_matches(str(loc[-1]), beside, n=1, cutoff=0.5)
    if near:
        return f"{where}: unknown key; did you mean {'.'.join((*at, *map(str, loc[:-1]), near[0]))}?"
    return f"{where}: unknown key; there are {', '.join(beside)}"


def _fields(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the section that `loc` leads to."""
    for step in loc:
        if step in model.model_fields:
            annotation = model.model_fields[step].annotation
            kinds = [annotation, *get_args(annotation)]
            model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), model)
    return list(model.model_fields)


def _flat(page: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in page.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _table(page: Mapping[str, Any], prefix: str) -> list[str]:
    # None is left out: TOML has no word for it, and only fields whose default is None can be None.
    lines = [f"{k} = {_value(v)}" for k, v in page.items() if not isinstance(v, Mapping) and v is not None]
    for key, value in page.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{prefix}{key}]", *_table(value, f"{prefix}{key}.")]
    return lines


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
