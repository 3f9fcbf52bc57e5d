"""How alike two label maps of the same pixels are, told without labels: from a table of how often which ids met.

Knows nothing of images, networks or servers: counts go in, numbers come out.

The table is int64 [K, K']: n_ij pixels are of cluster i in the one and of cluster j in the other; a_i and b_j are its
sums along rows and columns, n is the sum of all. Sums and products of counts are Python's integers, so that nothing is
rounded before the last division, however many pixels there are.

    one to one      max over assignments of sum n_i,pi(i) / n: the share of pixels on which the two agree once every
                    cluster has at most one partner. Kuhn (1955); solved by `cluster_matching.hungarian`
    many to one     sum_i max_j n_ij / n: the share that is right when every cluster of the one is read as that of the
                    other with which it shares most pixels; purity, Zhao and Karypis (2001)
    adjusted Rand   (s - ab / c) / ((a + b) / 2 - ab / c) for the pairs of pixels c = C(n, 2), s = sum C(n_ij, 2),
                    a = sum C(a_i, 2), b = sum C(b_j, 2): 1 equal, 0 as by chance. Hubert and Arabie (1985)
    NMI             I / ((H + H') / 2), normalized by the mean of both entropies. Kvålseth (1987), Vinh et al. (2010)
    IoU of a pair   n_ij / (a_i + b_j - n_ij)
"""

import math
from typing import NamedTuple

import numpy as np

from models.types import Array
from service.repository.cluster_matching import hungarian

_STRIP_PX = 2**20  # pixels counted at once: what numpy widens to 64 bits stays small


class MatchedPair(NamedTuple):
    """Two clusters that the best assignment pairs, the pixels they share, and their intersection over union."""

    old: int
    new: int
    pixels: int
    iou: float


class Agreement(NamedTuple):
    """What a table says. Shares and indices are 0..1, adjusted Rand may be below 0; None: it is not defined.

    into_new, into_old  many to one: every old cluster read as a new one, every new cluster as an old one
    mean_iou            of the pairs, each counted once; None without any
    pairs               those that share pixels, by old id
    alone_old, alone_new  clusters that occur and have no partner, with their pixels
    """

    pixels: int
    one_to_one: float
    into_new: float
    into_old: float
    adjusted_rand: float | None
    mutual_information: float | None
    mean_iou: float | None
    pairs: list[MatchedPair]
    alone_old: dict[int, int]
    alone_new: dict[int, int]


def contingency(old: Array, new: Array, k_old: int, k_new: int, *, ignored: int) -> Array:
    """int64 [K, K']: how often ids of the two label maps uint8 [H, W] met; pixels `ignored` in either are left out.

    Raises ValueError for maps of different sizes.
    """
    if old.shape != new.shape:
        raise ValueError(f"label maps of {old.shape} and {new.shape} do not show the same pixels")
    table = np.zeros(k_old * k_new, np.int64)
    step = max(1, _STRIP_PX // max(1, old.shape[1]))
    for top in range(0, len(old), step):
        one, other = old[top : top + step], new[top : top + step]
        both = (one != ignored) & (other != ignored)
        ids = one[both].astype(np.intp) * k_new + other[both]
        table += np.bincount(ids, minlength=len(table))
    return table.reshape(k_old, k_new)


def agreement(table: Array) -> Agreement | None:
    """Of a table int64 [K, K']; None where it counts no pixel."""
    old, new = _sums(table, 1), _sums(table, 0)
    total = sum(old)
    if not total:
        return None
    rows, columns = hungarian(-table.astype(np.float64))
    pairs = [
        MatchedPair(i, j, shared, shared / (old[i] + new[j] - shared))
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        if (shared := int(table[i, j]))
    ]
    paired_old, paired_new = {pair.old for pair in pairs}, {pair.new for pair in pairs}
    return Agreement(
        total,
        sum(pair.pixels for pair in pairs) / total,
        sum(table.max(axis=1).tolist()) / total,
        sum(table.max(axis=0).tolist()) / total,
        _adjusted_rand(table, old, new),
        _mutual_information(table, old, new),
        math.fsum(pair.iou for pair in pairs) / len(pairs) if pairs else None,
        pairs,
        {i: count for i, count in enumerate(old) if count and i not in paired_old},
        {j: count for j, count in enumerate(new) if count and j not in paired_new},
    )


def _sums(table: Array, axis: int) -> list[int]:
    sums: list[int] = table.sum(axis=axis, dtype=np.int64).tolist()
    return sums


def _adjusted_rand(table: Array, old: list[int], new: list[int]) -> float | None:
    """None where both maps are one cluster, or of a single pixel: chance alone would agree as well."""
    both, in_old, in_new = (_pairs(counts) for counts in (table[table > 0].tolist(), old, new))
    every = _pairs([sum(old)])
    most = (in_old + in_new) * every - 2 * in_old * in_new
    return 2 * (both * every - in_old * in_new) / most if most else None


def _pairs(counts: list[int]) -> int:
    """Twice the number of pairs of pixels that are in one cell."""
    return sum(count * (count - 1) for count in counts)


def _mutual_information(table: Array, old: list[int], new: list[int]) -> float | None:
    """None where both maps are one cluster: neither says anything."""
    total = sum(old)
    entropies = [math.fsum(-c / total * math.log(c / total) for c in counts if c) for counts in (old, new)]
    if not any(entropies):
        return None
    shared = math.fsum(
        n / total * (math.log(n * total) - math.log(old[i] * new[j]))
        for i, j in np.argwhere(table).tolist()
        if (n := int(table[i, j]))
    )
    return min(1.0, max(0.0, 2 * shared / sum(entropies)))
