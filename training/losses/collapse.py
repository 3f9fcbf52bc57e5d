"""Signs that a training is going to waste: codes that are all alike, one cluster that takes everything.

Knows nothing of methods, and has no gradient: codes and labels in, two numbers for the log out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def signs(code: Tensor, labels: Tensor | None = None, valid: Tensor | None = None) -> dict[str, Tensor]:
    """`log/code_similarity`, the mean cosine of two places, and `log/largest_cluster`, its share of the places.

    code    float [B, D, h, w]
    labels  int64 [B, h, w] of any size of map; None: there are no clusters yet
    valid   bool, which places of code and labels hold data; None: all of them. Without any, both are 0
    """
    unit = F.normalize(code.detach().float(), dim=1).movedim(1, -1)
    places = unit.flatten(0, -2) if valid is None else unit[valid]
    found = {"log/code_similarity": (places.sum(0) / max(1, len(places))).square().sum()}
    if labels is not None:
        ids = labels.flatten() if valid is None else labels[valid]
        found["log/largest_cluster"] = torch.bincount(ids, minlength=1).max() / max(1, len(ids))
    return found
