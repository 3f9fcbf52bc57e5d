"""k-means of a frozen backbone's features: what every method that distills them is to be better than.

Knows nothing of how an image is decoded or a bundle written. Nothing is learned, so there is no stage: the pipeline
clusters the features as it clusters any code ([clusters]), by cosine, of a sample of all images. What is exported is
the backbone alone.

Source: the baseline of the published tables, as STEGO (arXiv:2203.08414) and PriMaPs-EM (arXiv:2404.16818) report it.
"""

from pydantic import Field
from torch import nn

from training.config.recipe import Section
from training.config.run import Run
from training.features.frozen import frozen_network
from training.methods.base import Method
from training.trainer.seeds import seeded
from training.trainer.stage import Stage


class KmeansConfig(Section):
    """The table [kmeans]."""

    # finer features are averaged to cells of so many pixels; 0: as they are
    least_stride: int = Field(0, ge=0)
    flip_average: bool = False  # of the mirrored image's features, too


class Kmeans(Method[KmeansConfig]):
    """Frozen backbone."""

    Config = KmeansConfig

    def __init__(self, config: KmeansConfig, run: Run) -> None:
        super().__init__(config, run)
        with seeded(run.recipe.seed):
            self.network = frozen_network(
                run.recipe.backbone,
                lambda _: nn.Identity(),
                flip_average=config.flip_average,
                least_stride=config.least_stride or None,
            )
        self.to(run.device)

    def stages(self) -> list[Stage]:
        """None."""
        return []


METHOD = Kmeans
