"""Everything that decides a pretrained backbone's weights, apart from the images.

Knows nothing of networks or of how they are trained.
"""

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from training.config.recipe import Section
from training.data.augment import ViewOptions
from training.data.regions import RegionOptions
from training.pretraining.sigreg import SigregOptions
from training.pretraining.swav import SwavOptions

ObjectiveName = Literal["infonce", "swav", "sigreg"]
OBJECTIVES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)


class SmallViewOptions(Section):
    """Views beside the two larger ones: of less of the image, and cheap."""

    count: int = Field(default=4, ge=1)
    views: ViewOptions = ViewOptions(size=(64, 64), area=(0.03, 0.15))


class PretrainOptions(Section):
    """Neither `swav` nor `sigreg`: InfoNCE.

    What is not set is not in the options' digest: a checkpoint of before there were other objectives goes on.
    """

    backbone: str = "resnet10t"
    levels: int = Field(default=3, ge=1, le=4, description="maps of the backbone that are used, from stride 4 on")
    dim: int = Field(default=128, ge=8, description="channels of the neck that merges them at stride 4")
    steps: int = Field(default=450, ge=1)
    rounds: int = Field(default=2, ge=1)
    batch_size: int = Field(default=32, ge=2)
    regions_per_image: int = Field(default=12, ge=1)
    min_cells: int = Field(default=8, ge=1, description="of the stride-4 grid, that a region needs in a view")
    clusters: int = Field(default=12, ge=2, description="of all regions, between rounds; InfoNCE alone uses them")
    temperature: float = Field(default=0.1, gt=0, description="of InfoNCE")
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    views: ViewOptions = ViewOptions()
    regions: RegionOptions = RegionOptions()
    small: SmallViewOptions | None = None
    swav: SwavOptions | None = None
    sigreg: SigregOptions | None = None

    @model_validator(mode="after")
    def _one_objective(self) -> "PretrainOptions":
        if self.swav is not None and self.sigreg is not None:
            raise ValueError("swav and sigreg are two objectives: leave one of them out")
        return self

    @property
    def objective(self) -> ObjectiveName:
        """Which of them is minimized."""
        if self.swav is not None:
            return "swav"
        return "infonce" if self.sigreg is None else "sigreg"

    @property
    def most_images(self) -> int:
        """How many images its steps draw, if each is drawn once: more are not cut into regions."""
        return self.steps * self.batch_size


def of_objective(name: ObjectiveName) -> dict[str, Any]:
    """What an objective asks of the options where nothing else is said."""
    if name == "infonce":
        return {}
    own = SwavOptions() if name == "swav" else SigregOptions()
    return {name: own, "small": SmallViewOptions(), "rounds": 1}
