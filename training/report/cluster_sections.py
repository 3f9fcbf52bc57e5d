"""The report's parts about clusters: their shares, patches, what each is like, the tree.

Knows nothing of training: a bundle and the numbers of its report.json in, HTML out.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from models.bundle import Bundle
from training.report import charts, pictures
from training.report.dendrogram import dendrogram

_PATCH_BYTES = 1_500_000  # of all patches together: with very many clusters each shows fewer of its own
_LIKE = 0.15  # of a cluster's cells: rarer second choices are not told


def order(bundle: Bundle) -> list[int]:
    """Ids by share, the largest first."""
    return sorted(range(len(bundle.manifest.clusters)), key=lambda k: -bundle.manifest.clusters[k].fraction)


def sheet(bundle: Bundle, found: Mapping[str, Any], *, private: bool) -> str:
    """One bar of all shares, and a card for every cluster. private: patches are means, and show no photo."""
    clusters, room = bundle.manifest.clusters, _patches_each(bundle)
    bar = charts.stack([(f"{k} {clusters[k].name}", clusters[k].color, clusters[k].fraction) for k in order(bundle)])
    said = (
        "A patch is the mean of many, so that it shows no photo."
        if private
        else "Patches are of different photos: first the surest, then those least like it: the row shows how wide"
        " the cluster is. The cluster is what is bright and outlined."
    )
    cards = "".join(_card(bundle, found, k, room) for k in order(bundle))
    return f'{bar}<p class="small">{said}</p><div class="sheet">{cards}</div>'


def _card(bundle: Bundle, found: Mapping[str, Any], k: int, room: int) -> str:
    cluster, presence = bundle.manifest.clusters[k], found.get("presence", [])
    facts = [f"{cluster.fraction:.1%} of pixels"]
    if k < len(presence):
        facts.append(f"in {presence[k]:.0%} of images")
    matched = found.get("hungarian", {}).get("class_of_cluster", [None] * (k + 1))[k]
    if matched:
        facts.append(f"matched to {matched}")
    patches = "".join(
        pictures.patch(path, f"patch {i + 1} of cluster {k}") for i, path in enumerate(bundle.exemplars(k)[:room])
    )
    none = '<p class="small">no photo shows enough of it</p>'
    return (
        f"<article><h3>{pictures.swatch(cluster)}{pictures.label(k, bundle.manifest.clusters, 200)}</h3>"
        f'<p class="small">{escape(" · ".join(facts))}{_like(bundle, found, k)}</p>'
        f'<div class="patches">{patches or none}</div></article>'
    )


def _like(bundle: Bundle, found: Mapping[str, Any], k: int) -> str:
    seconds = found.get("runners_up", [])
    rows = [(other, share) for other, share in (seconds[k] if k < len(seconds) else []) if share >= _LIKE]
    if not rows:
        return ""
    clusters = bundle.manifest.clusters
    named = ", ".join(
        f'<span class="like">{pictures.swatch(clusters[other])}{pictures.label(other, clusters)} ({share:.0%})</span>'
        for other, share in rows
    )
    return f"<br>looks like {named}"


def _patches_each(bundle: Bundle) -> int:
    """How many patches of every cluster are shown, so that all of them stay below a size."""
    sizes = [[path.stat().st_size for path in bundle.exemplars(k)] for k in range(len(bundle.manifest.clusters))]
    most = max(map(len, sizes), default=1)
    return next((n for n in range(most, 1, -1) if sum(sum(one[:n]) for one in sizes) <= _PATCH_BYTES), 1)


def tree(bundle: Bundle) -> str:
    """The hierarchy as a drawing."""
    manifest = bundle.manifest
    drawn = dendrogram(manifest.clusters, manifest.hierarchy, manifest.hierarchy_by)
    means = {
        "belonging": "0 is the same thing, 0.5 (the line) as alike as two of the clusters are on average: what is"
        " joined beyond it belongs together no more than any two do.",
        "centroids": "it is the cosine distance of the network's centroids, which may join what does not belong"
        " together.",
    }[manifest.hierarchy_by]
    return (
        '<p class="small">What becomes one when fewer clusters are asked for (<code>k=</code> of the service): joined'
        " early, on the left, belongs together most. The number at a merge is how far apart the two were:"
        f' {means}</p><figure class="tree">{drawn}</figure>'
    )
