"""What one request may choose: the query parameters and form fields of `POST /segment` and `/similar`.

Knows nothing of how an answer is made.
"""

import re
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from models.crf.params import PUBLISHED, CRFParams
from models.io.samples import Choice
from models.preprocess import InputSpec, fitted_size
from service.errors import BadOption, nearest
from service.formats import archive, registry
from service.formats.result import RenderOptions

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?|[+-]?nan|[+-]?inf(inity)?", re.IGNORECASE)

_TOLD = {"format", "classes", "k", "crf", "crf_size", "crf_iterations", "tile", "page", "depth", "pyramid", "priority"}


class Frozen(BaseModel):
    """Values only; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageOptions(Frozen):
    """What every request with an image may choose; each may come as a query parameter or a multipart field."""

    model: str | None = Field(default=None, max_length=200, description="a bundle's name, or name@digest12")
    depth: Literal["percentile", "minmax", "full"] = Field(
        default="percentile", description="how deeper samples become 8 bits: percentile, minmax or full"
    )
    page: int = Field(default=0, ge=0, le=65535, description="which full image of a TIFF, or frame of a DICOM, from 0")
    bands: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,4}(,[1-9][0-9]{0,4},[1-9][0-9]{0,4})?$",
        description="which bands of the image are shown, from 1: one (gray) or three (R, G, B), such as 4,3,2; absent,"
        " those of the bundle, else those the file says",
    )
    pyramid: str = Field(
        default="auto",
        pattern=r"^(auto|full|[1-9][0-9]{0,2})$",
        description="of a tiled pyramid: auto (the smallest level that suffices), full, or a level's number from 1",
    )
    timeout_ms: int | None = Field(
        default=None,
        ge=1,
        description="milliseconds from the last byte of the request; the server's own limit is the most",
    )
    priority: int = Field(
        default=0,
        ge=-10,
        le=10,
        description="-10 to 10: each step goes ahead of one second of waiting, among the caller's own images",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_numbers_are_written(cls, value: object, info: ValidationInfo) -> object:
        """pydantic takes `1_0` for ten."""
        number = cls.model_fields[info.field_name or ""].annotation in (int, float, int | None, float | None)
        if number and isinstance(value, str) and not _NUMBER.fullmatch(value.strip(" \t")):
            raise ValueError("is no number")
        return value

    def told(self) -> dict[str, str | int | float | bool]:
        """What a trace tells of those that differ from what they are by themselves."""
        given = self.model_dump(include=_TOLD, exclude_defaults=True)
        return {f"tessera.{name}": value for name, value in given.items()}

    def choice(self, spec: InputSpec) -> Choice:
        """What of a file the network is shown."""
        bands = spec.bands if self.bands is None else tuple(int(band) for band in self.bands.split(","))
        if self.pyramid == "auto":
            return Choice(self.depth, self.page, bands, enough=partial(fitted_size, spec=spec))
        return Choice(self.depth, self.page, bands, level=0 if self.pyramid == "full" else int(self.pyramid))


class SimilarOptions(ImageOptions):
    """The options of one `POST /similar`."""

    x: int = Field(ge=0, description="column of the pixel that all others are compared with, from 0")
    y: int = Field(ge=0, description="its row, from 0")
    format: Literal["png", "npy"] = Field(
        default="png", description="png (a heat map: pixel = 127.5 × (cosine + 1)) or npy (float32 cosines)"
    )


class SuggestOptions(ImageOptions):
    """The options of one `POST /classes/suggest`."""

    count: int = Field(default=3, ge=1, le=50, description="how many places, 1 to 50")


class ExampleOptions(ImageOptions):
    """The options of one `POST /classes/{id}/examples`: a place in the image, and what is said of it."""

    x: int | None = Field(default=None, ge=0, description="column of the pixel that is meant, from 0; with y")
    y: int | None = Field(default=None, ge=0, description="its row, from 0")
    points: str | None = Field(
        default=None,
        max_length=4096,
        pattern=r"^[0-9]{1,7},[0-9]{1,7}(;[0-9]{1,7},[0-9]{1,7}){0,255}$",
        description="in place of x and y several pixels, up to 256: x,y;x,y",
    )
    box: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,7},[0-9]{1,7},[1-9][0-9]{0,6},[1-9][0-9]{0,6}$",
        description="in place of a pixel a rectangle of them: x,y,width,height; or send a part `mask`, a PNG of the"
        " image's size whose pixels are not 0 at the place",
    )
    negative: bool = Field(default=False, description="true or false: the class is not what is there")

    @property
    def places(self) -> list[tuple[int, int]]:
        """The pixels (x, y) that are named one by one."""
        if self.points is not None:
            return [(int(x), int(y)) for x, _, y in (point.partition(",") for point in self.points.split(";"))]
        return [] if self.x is None or self.y is None else [(self.x, self.y)]

    @property
    def area(self) -> tuple[int, int, int, int] | None:
        """The rectangle: x, y, width, height."""
        if self.box is None:
            return None
        x, y, width, height = (int(number) for number in self.box.split(","))
        return x, y, width, height

    def check_place(self, *, mask: bool) -> None:
        """Raises BadOption unless one place is named, in one way; `mask`: the request brings one."""
        if (self.x is None) != (self.y is None):
            raise BadOption("x, y: a pixel has both; give the other one as well")
        ways = [self.x is not None, self.points is not None, self.box is not None, mask]
        if sum(ways) != 1:
            how = "x= and y= (a pixel), points=x,y;x,y, box=x,y,width,height, or a part `mask` of the form"
            raise BadOption(f"a place is named in {'several ways' if any(ways) else 'no way'}; give one of {how}")


class Options(ImageOptions):
    """The options of one `POST /segment`."""

    classes: bool = Field(
        default=False,
        description="true or false: answer in the classes that people taught (POST /classes) in place of clusters",
    )

    format: str | None = Field(
        default=None,
        description=f"one of {', '.join(registry.names())}; absent, the Accept header chooses, else json",
        json_schema_extra={"enum": [*registry.names()]},
    )
    crf: Literal["true", "fast", "false"] = Field(
        default="false", description="true (dense CRF), fast (guided filter) or false: refine along the photo's edges"
    )
    crf_size: Literal["input", "source"] = Field(
        default="input", description="input (the network's size, as the papers do) or source (the photo's own)"
    )
    crf_iterations: int = Field(default=PUBLISHED.iterations, ge=1, le=50, description="mean-field steps, 1 to 50")
    crf_bilateral_sxy: float = Field(default=PUBLISHED.bilateral_sxy, ge=1, le=500, description="pixels, 1 to 500")
    crf_bilateral_srgb: float = Field(
        default=PUBLISHED.bilateral_srgb, ge=1, le=255, description="color distance, 1 to 255"
    )
    crf_bilateral_compat: float = Field(
        default=PUBLISHED.bilateral_compat, ge=0, le=100, description="weight, 0 to 100"
    )
    crf_gaussian_compat: float = Field(default=PUBLISHED.gaussian_compat, ge=0, le=100, description="weight, 0 to 100")
    k: int | None = Field(
        default=None, ge=2, le=255, description="how many clusters to tell apart, 2 to the bundle's K"
    )
    merged: bool = Field(
        default=True,
        description="true or false: with the merges that people made, or the network's own clusters whatever they did",
    )
    alpha: float = Field(default=0.5, ge=0, le=1, description="opacity of the overlay, 0 to 1")
    only: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,3}(,[0-9]{1,3}){0,254}$",
        description="ids of clusters, or of classes with classes=true, to draw in overlay and color, separated by"
        " commas",
    )
    nodata: Literal["fill", "keep"] = Field(
        default="fill",
        description="pixels that the file calls invalid: fill (labels there too) or keep (255 in every label map)",
    )
    confidence: bool = Field(default=False, description="true or false: add the margin map to the JSON answer")
    palette: bool = Field(
        default=True,
        description="true or false: png with a palette, or gray, for readers that turn a palette into colors",
    )
    id_offset: int = Field(
        default=0,
        ge=0,
        le=65_000,
        description="0 to 65000, added to ids in png, npy, coco, panoptic, geotiff and zip: 1 where 0 is background",
    )
    min_area: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="pixels, 0 to 1000000000, of the smallest connected region that geojson, rle and coco tell",
    )
    unknown: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="0 to 1: pixels whose margin is below are of no cluster, 255 in label maps",
    )
    formats: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]{1,20}(,[a-z0-9]{1,20}){0,19}$",
        description=f"formats in a zip, separated by commas; absent, {','.join(archive.USUAL)}",
    )
    file_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="what coco and panoptic call the image, 1 to 1024 characters on one line; absent, image.png",
    )
    tile: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="auto (windows for georeferenced rasters of at least 4 times the network's input, one pass for all"
        " else), never (one pass, the whole shrunk to the network's input) or always (windows at the image's own scale,"
        " scores blended)",
    )

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in registry.names():
            raise ValueError(f"no such format{registry.hint(value) or nearest(value.lower(), registry.names())}")
        return value

    @field_validator("formats")
    @classmethod
    def _can_be_packed(cls, value: str | None) -> str | None:
        known = [name for name in registry.names() if name != "zip"]
        for name in value.split(",") if value else ():
            if name not in known:
                raise ValueError(f"no format {name!r} to be packed{nearest(name, known) or '; ' + ', '.join(known)}")
        return value

    @field_validator("crf", mode="before")
    @classmethod
    def _truth(cls, value: object) -> object:
        text = str(value).lower()
        return {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}.get(text, text)

    @property
    def refine(self) -> Literal["dense", "fast"] | None:
        """How edges are refined, or None."""
        return {"true": "dense", "fast": "fast", "false": None}[self.crf]

    @property
    def crf_params(self) -> CRFParams:
        """The numbers of the dense CRF."""
        return CRFParams(
            iterations=self.crf_iterations,
            gaussian_compat=self.crf_gaussian_compat,
            bilateral_sxy=self.crf_bilateral_sxy,
            bilateral_srgb=self.crf_bilateral_srgb,
            bilateral_compat=self.crf_bilateral_compat,
        )

    @property
    def render(self) -> RenderOptions:
        """What the answer's picture shows."""
        only = None if self.only is None else frozenset(int(i) for i in self.only.split(","))
        return RenderOptions(
            alpha=self.alpha,
            only=only,
            confidence=self.confidence,
            keep_no_data=self.nodata == "keep",
            palette=self.palette,
            id_offset=self.id_offset,
            min_area=self.min_area,
            unknown=self.unknown,
            formats=tuple(dict.fromkeys(self.formats.split(","))) if self.formats else (),
            file_name=self.file_name,
        )

    def of_file(self, name: str) -> "Options":
        """The same for an image of this name, unless another one is asked for."""
        return self if self.file_name is not None else self.model_copy(update={"file_name": name})


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What each field of a model takes."""
    return {name: field.description or "" for name, field in model.model_fields.items()}


class ModelQuery(Frozen):
    """Which bundle is meant."""

    model: str | None = Field(default=None, max_length=200, description="a bundle's name, or name@digest12")
