"""What the objectives of pretraining are told: the regions of a batch, as each view showed them.

Knows nothing of any objective, of networks or of images.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SeenRegions:
    """n regions in V views, projected.

    codes   float [V, n, D]   0 where a view does not show the region
    seen    bool  [V, n]      every region is in two views, one of them a larger one
    groups  int   [n]         cluster of each at the beginning of the round, negative: of none
    larger  the first so many views are the larger ones
    draw    what the objective's own randomness may depend on: seed and step
    """

    codes: Tensor
    seen: Tensor
    groups: Tensor
    larger: int
    draw: int
