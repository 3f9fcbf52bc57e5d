"""What training ends with: a network from pixels to codes, and the centroids its codes are compared with.

Knows nothing of how either was found, or of bundles.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from models.assign import Assignment
from models.nets.encoder import Encoder


class Clustering(NamedTuple):
    """Centroids float32 [K, D], and how codes are compared with them."""

    centroids: Tensor
    assignment: Assignment


@dataclass(frozen=True)
class Segmenter:
    """What is exported.

    centroids    float32 [K, D], of any length
    temperature  of the probabilities, see models.manifest.CodeSpec
    agreement    of the clusterings it was distilled from, 0..1, where it was
    """

    encoder: Encoder
    centroids: Tensor
    assignment: Assignment
    temperature: float
    agreement: float | None = None

    @property
    def compared(self) -> Tensor:
        """The centroids as codes meet them: of length 1 where only their direction counts."""
        return F.normalize(self.centroids, dim=1) if self.assignment == "cosine" else self.centroids
