"""A codebook: the nearest of a few learned rows in place of every token.

Knows nothing of how the rows were learned.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def quantize(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest row by cosine: its number int64 [...] and the row itself [..., D], of the length it has.

    x  float [..., D];  codebook  float [K, D]

    Source: CAUSE (arXiv:2310.07379), the concept clusterbook.
    """
    index = (x @ F.normalize(codebook, dim=-1).T).argmax(-1)  # a token's own length changes no order
    return index, F.embedding(index, codebook)
