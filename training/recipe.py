"""A recipe: one TOML page → one frozen object, and back.

Knows nothing of networks or files of images. An unknown key is an error that names the nearest known
one; `--set a.b=v` overrides a single value; the resolved recipe is what is saved and hashed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import TesseraError


class RecipeError(TesseraError):
    """A recipe that cannot be read; the message names the key."""


class Section(BaseModel):
    """Base of every recipe section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneSection(Section):
    """Which network gives the features, and where its weights come from."""

    name: str = "vit_small_patch8_224.dino"  # timm's name
    weights: str = "timm"  # "timm" (its hub), "random", or a .safetensors/.pth file


class InputSection(Section):
    """Sizes in pixels."""

    train_size: int = Field(224, ge=32, multiple_of=8)  # side of the training crops
    size: int = Field(320, ge=32, multiple_of=8)  # short side when serving
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # upstream STEGO resizes by "nearest"


class ClusterSection(Section):
    """How codes become clusters, when the method leaves that to the pipeline, and the hierarchy above them."""

    k: int = Field(27, ge=2, le=255)
    unit: Literal["pixel", "region"] = "pixel"  # region: every Felzenszwalb region weighs the same
    region_scales: tuple[float, ...] = (250.0,)
    position: float = Field(0.0, ge=0.0)  # weight of two position columns appended to the code
    restarts: int = Field(3, ge=1)
    runs: int = Field(1, ge=1)  # over 1: consensus of that many clusterings
    distill_steps: int = Field(0, ge=0)  # over 0: one network learns the consensus
    distill_lr: float = Field(1e-3, gt=0)


class ExportSection(Section):
    """What the bundle is called and holds."""

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")  # empty: the data folder's name
    exemplars: int = Field(5, ge=0, le=20)  # patches per cluster; 0 for private data
    licence: str = "unknown"  # of the pretrained weights, copied to NOTICE


class Recipe(Section):
    """Everything that decides a result, apart from the images themselves."""

    method: str = "stego"
    seed: int = 0
    dataset: str = "folder"
    workers: int = Field(2, ge=0)
    backbone: BackboneSection = BackboneSection()
    input: InputSection = InputSection()
    clusters: ClusterSection = ClusterSection()
    export: ExportSection = ExportSection()
    options: dict[str, Any] = Field(default_factory=dict)  # the method's own section, checked by the method


