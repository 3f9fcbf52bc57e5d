"""Clusters of one network matched to another's, so that ids, names and colors carry over.

Knows nothing of networks or files: label maps of the same images in, a correspondence and its words out.

Source: Hungarian method (scipy's linear_sum_assignment) on the IoU of the clusters' label maps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from models import palette
from models.manifest import Cluster
from models.types import Array

SAME = 0.25  # IoU from which a cluster counts as the one it is matched with
_MOSTLY = 0.5  # share of a cluster's pixels that says where it went, or came from


@dataclass(frozen=True)
class Alignment:
    """Which new cluster is which old one.

    order    new clusters by the id they get: cluster order[i] becomes i
    names    what each is called and its color, by that id
    matched  of those that were found again: (id, name, IoU)
    said     what is new, split, joined or gone, a sentence each
    """

    order: tuple[int, ...]
    names: tuple[tuple[str, str], ...]
    matched: tuple[tuple[int, str, float], ...]
    said: tuple[str, ...]


def shared(pairs: Iterable[tuple[Array, Array]], old: int, new: int) -> Array:
    """Pixels that lie in both: int64 [old, new].

    pairs  label maps of the same image, uint8 [H, W] each, the old network's first; what is no cluster counts nowhere
    """
    table = np.zeros((old, new), np.int64)
    for before, after in pairs:
        known = (before < old) & (after < new)
        table += np.bincount(before[known].astype(np.int64) * new + after[known], minlength=old * new).reshape(old, new)
    return table


def align(table: Array, clusters: Sequence[Cluster]) -> Alignment:
    """The new clusters under the old ones' ids, names and colors, where they are the same.

    table     int64 [old, new], pixels that lie in both
    clusters  the old ones

    A cluster whose old id is beyond the new number of clusters keeps name and color under another id. What is new gets
    a name that no old cluster has.
    """
    new = table.shape[1]
    union = table.sum(1, keepdims=True) + table.sum(0) - table
    iou = table / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(-iou)
    found = {int(n): int(o) for o, n in zip(rows, columns, strict=True) if iou[o, n] >= SAME}
    place = {o: n for n, o in found.items() if o < new}
    rest = iter([n for n in range(new) if place.get(found.get(n, -1)) != n])
    order = [place[i] if i in place else next(rest) for i in range(new)]
    names = _names(order, found, clusters)
    matched = [(i, names[i][0], float(iou[found[n], n])) for i, n in enumerate(order) if n in found]
    said = [*_arrived(table, order, found, clusters, names), *_left(table, order, found, clusters, names)]
    return Alignment(tuple(order), tuple(names), tuple(matched), tuple(said))


def _names(order: Sequence[int], found: dict[int, int], clusters: Sequence[Cluster]) -> list[tuple[str, str]]:
    taken = {one.name for one in clusters}
    colors = {clusters[o].color for o in found.values()}
    fresh_names = (name for i in range(1000) if (name := f"cluster {i}") not in taken)
    proposed = (palette.to_hex(color) for color in palette.distinct(len(clusters) + len(order)))
    fresh_colors = (color for color in proposed if color not in colors)
    names = []
    for n in order:
        one = clusters[found[n]] if n in found else None
        names.append((one.name, one.color) if one else (next(fresh_names), next(fresh_colors)))
    return names


def _arrived(
    table: Array, order: Sequence[int], found: dict[int, int], clusters: Sequence[Cluster], names: list[tuple[str, str]]
) -> Iterable[str]:
    """What each new cluster that is no old one is made of."""
    for i, n in enumerate(order):
        pixels = table[:, n]
        if n in found:
            if found[n] != i:
                yield f"{names[i][0]} is now cluster {i}: there are only {len(order)}"
            continue
        if not pixels.sum():
            yield f"{names[i][0]} is new, and was in none of the images looked at"
        elif pixels.max() >= _MOSTLY * pixels.sum():
            yield f"{names[i][0]} was split off {clusters[int(pixels.argmax())].name}"
        else:
            most = [clusters[o].name for o in np.argsort(-pixels)[:3].tolist() if pixels[o]]
            yield f"{names[i][0]} is new: made of {', '.join(most)}"


def _left(
    table: Array, order: Sequence[int], found: dict[int, int], clusters: Sequence[Cluster], names: list[tuple[str, str]]
) -> Iterable[str]:
    """Where each old cluster went that is none of the new ones."""
    at = {n: i for i, n in enumerate(order)}
    for o in sorted(set(range(len(clusters))) - set(found.values())):
        pixels = table[o]
        if pixels.sum() and pixels.max() >= _MOSTLY * pixels.sum():
            yield f"{clusters[o].name} is gone: most of it is in {names[at[int(pixels.argmax())]][0]} now"
        else:
            yield f"{clusters[o].name} is gone" + (": it is spread over several" if pixels.sum() else "")
