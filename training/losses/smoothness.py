"""Places alike in features are to have like clusters, the others unlike ones: the energy of all pairs of places.

Knows nothing of images, networks or prototypes: maps in, numbers out. No pair is ever held: (W − b) · (1 − ⟨p, q⟩) is
a sum of products of what one place has and what the other has, so a few means over each map's own places give the mean
over all pairs, exactly. Of n places that takes C × K numbers an image, not n × n.

Source: SmooSeg (arXiv:2310.17874), smoothness term; centering as in STEGO's code (`correspondence.center`).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.correspondence import normalize


class Moments(NamedTuple):
    """Means over the places of each image of a batch.

    joint     float [B, C, K], of feature · assignmentᵀ, both of length 1
    features  float [B, C]
    assigned  float [B, K]
    places    float [B], how many there are
    """

    joint: Tensor
    features: Tensor
    assigned: Tensor
    places: Tensor

    def of(self, images: Tensor) -> "Moments":
        """Those of some images, int64 [n], in their order."""
        return Moments(*(one[images] for one in self))


class Energy(NamedTuple):
    """The loss, and how alike assignments are on average (cosine): both scalars."""

    loss: Tensor
    agreement: Tensor


def moments(features: Tensor, assigned: Tensor, valid: Tensor | None = None) -> Moments:
    """What `energy` needs of each image.

    features  float [B, C, h, w]; no gradient flows into them
    assigned  float [B, K, h, w], how much each cluster owns each place; receives gradients
    valid     bool [B, h, w], the places that hold data, some of every image; None: all of them
    """
    with torch.no_grad():
        units = normalize(features).flatten(2)
    known = torch.ones_like(units[:, 0]) if valid is None else valid.flatten(1).to(units)
    places = known.sum(1)
    weights = (known / places[:, None])[:, None]
    shares = F.normalize(assigned, dim=1).flatten(2) * weights
    return Moments(units @ shares.transpose(1, 2), (units * weights).sum(2), shares.sum(2), places)


def energy(one: Moments, other: Moments, shift: float | Tensor) -> Energy:
    """Mean of (W_ij − shift) · (1 − cos(p_i, q_j)) over the places i of `one` and j of its partner in `other`.

    one, other  of the same number of images
    shift       b: pairs with W above it are to be of one cluster, those below it of two

    W is the cosine of features less its mean over j, with the mean over all pairs of the batch put back.
    """
    pairs = one.places * other.places
    share = pairs / pairs.sum()
    alike = share @ (one.features * other.features).sum(1)
    agreement = share @ (one.assigned * other.assigned).sum(1)
    # less its mean over j, W_ij is ⟨feature i, feature j less the mean of the partner's features⟩
    centered = other.joint - other.features[:, :, None] * other.assigned[:, None]
    together = share @ (one.joint * centered).sum((1, 2))
    return Energy((alike - shift) * (1 - agreement) - together, agreement)
