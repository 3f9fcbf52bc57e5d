"""What a bundle's levels are worth: the accuracy when fewer clusters are asked for, from one count of all of them.

Knows nothing of images or networks: a confusion and a hierarchy in, figures out. A label map with k clusters is the one
with all of them, renamed: so is what was counted of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models import hierarchy
from models.bundle import Bundle
from models.manifest import Merge
from models.types import Array
from training.clustering.hierarchy import cosine_distance
from training.clustering.hierarchy import hierarchy as tree_of_distances
from training.evaluation import metrics


def levels(bundle: Bundle, confusion: Array, classes: Sequence[str]) -> dict[str, Any]:
    """The bundle's levels as evaluation.json has them; beside a tree by belonging the one that its centroids make.

    confusion  int64 [K, N], pixels of cluster k that show class n

    Rows from K clusters to 2: `height` of the merge that leads there, `joined` what it joins, each part by the class
    that most of its pixels show (None: none of its pixels has one), `one_to_one` and `many_to_one` accuracy, 0..1.
    """
    manifest = bundle.manifest
    rows = _rows(manifest.hierarchy, confusion, classes)
    if manifest.hierarchy_by != "centroids":
        fractions = [cluster.fraction for cluster in manifest.clusters]
        other = tree_of_distances(cosine_distance(torch.tensor(bundle.centroids)), fractions)
        for row, beside in zip(rows, _rows(other, confusion, classes), strict=False):
            row["centroids"] = {name: beside[name] for name in ("joined", "one_to_one", "many_to_one")}
    return {"by": manifest.hierarchy_by, "rows": rows}


def _rows(tree: Sequence[Merge], confusion: Array, classes: Sequence[str]) -> list[dict[str, Any]]:
    count, shown = len(confusion), confusion
    rows = [_row(count, None, None, shown)]
    for merge in tree:
        if merge.k < 2:
            break
        joined = [_mostly(shown[part], classes) for part in merge.merge]
        shown = np.zeros_like(confusion)
        np.add.at(shown, hierarchy.level(tree, merge.k, count), confusion)
        rows.append(_row(merge.k, merge.height, joined, shown))
    return rows


def _row(k: int, height: float | None, joined: list[str | None] | None, shown: Array) -> dict[str, Any]:
    return {
        "k": k,
        "height": height,
        "joined": joined,
        "one_to_one": metrics.score(shown).accuracy,
        "many_to_one": metrics.many_to_one(shown),
    }


def _mostly(pixels: Array, classes: Sequence[str]) -> str | None:
    return classes[int(pixels.argmax())] if pixels.any() else None
