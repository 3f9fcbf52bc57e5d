"""The rows most like each one, by cosine, exactly: blocks of rows against blocks of rows, of which the best are kept.

Knows nothing of networks or images. Takes memory for one block of similarities, however many rows there are. FAISS's
flat index finds the same, and took 2.5 times as long on two cores.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBORS = 30  # kept per row; STEGO draws from 7, the rest lets that number grow without a rescan
ROWS = 1024  # compared at once …
_COLUMNS = 2**14  # … with so many: 67 MB of similarities
_GPU_COLUMNS = 2**20


def neighbors(means: Tensor, k: int = NEIGHBORS) -> Tensor:
    """The rows most like each one: int64 [n, min(k, n - 1) + 1]; column 0 is the row itself, then by falling cosine.

    means  float [n, C]

    Of rows that are equally like, which come first is not said, but it is the same for the same means.
    """
    unit = F.normalize(means, dim=1)
    return torch.cat([nearest_to(unit, start, k) for start in range(0, len(unit), ROWS)])


def nearest_to(unit: Tensor, start: int, k: int = NEIGHBORS) -> Tensor:
    """`neighbors` of the ROWS rows from `start` on, of rows of length 1."""
    rows = unit[start : start + ROWS]
    keep = min(k + 1, len(unit))
    columns = _COLUMNS if unit.device.type == "cpu" else _GPU_COLUMNS
    best = unit.new_empty(len(rows), 0)
    which = torch.empty(len(rows), 0, dtype=torch.int64, device=unit.device)
    own = torch.arange(start, start + len(rows), device=unit.device)
    for first in range(0, len(unit), columns):
        alike = rows @ unit[first : first + columns].T
        here = (own >= first) & (own < first + columns)
        alike[here.nonzero()[:, 0], own[here] - first] = torch.inf  # first, even beside an exact copy of itself
        found, at = alike.topk(min(keep, alike.shape[1]), dim=1)
        best, order = torch.cat([best, found], dim=1).topk(min(keep, best.shape[1] + found.shape[1]), dim=1)
        which = torch.cat([which, at + first], dim=1).gather(1, order)
    return which
