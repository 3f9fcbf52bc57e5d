"""A bundle's clusters on one page: patches, names, colors, shares, neighbors, the tree. Nothing in it is fetched.

Knows nothing of commands.
"""

import base64
from collections.abc import Sequence
from html import escape

from models import similarity
from models.bundle import Bundle
from models.manifest import Cluster, Merge

NEIGHBORS = 3
_ROW, _TOP, _LEFT, _WIDTH, _RIGHT = 22, 8, 200, 720, 44
_SHOWN_BYTES = 4_000_000  # of all patches: with very many clusters each shows fewer of its own
_NAME = 26  # characters beside the tree
_HEIGHTS = {
    "belonging": "0 the same thing, 0.5 as alike as two of the clusters are on average",
    "centroids": "the cosine distance of the network's centroids, which may join what does not belong together;"
    " tessera remeasure gives the bundle a tree of what does",
}


def contact_sheet(bundle: Bundle) -> str:
    """The page, HTML."""
    manifest = bundle.manifest
    order = sorted(range(len(manifest.clusters)), key=lambda k: -manifest.clusters[k].fraction)
    room, near = _patches_each(bundle), similarity.nearest(bundle.centroids, NEIGHBORS)
    facts = (
        f"{manifest.method} · {len(order)} clusters · {manifest.provenance.images} images · {manifest.provenance.data}"
    )
    bar = "".join(
        f'<span style="width:{100 * manifest.clusters[k].fraction:.3f}%;background:{manifest.clusters[k].color}"'
        f' title="{escape(manifest.clusters[k].name)} {manifest.clusters[k].fraction:.1%}"></span>'
        for k in order
    )
    cards = "".join(_card(bundle, k, near[k], room) for k in order)
    return _PAGE.format(
        title=escape(bundle.ref),
        facts=escape(facts),
        bar=bar,
        cards=cards,
        tree=_tree(manifest.clusters, manifest.hierarchy, 1.0 if manifest.hierarchy_by == "belonging" else 0.0),
        heights=_HEIGHTS[manifest.hierarchy_by],
        digest=bundle.digest,
        licence=escape(manifest.provenance.licence),
    )


def _card(bundle: Bundle, k: int, near: Sequence[tuple[int, float]], room: int) -> str:
    clusters = bundle.manifest.clusters
    patches = "".join(
        f'<img src="data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="patch {n} of {k}">'
        for n, path in enumerate(bundle.exemplars(k)[:room], 1)
    )
    like = ", ".join(f"{_swatch(clusters[other])}{_called(other, clusters)} {cosine:+.2f}" for other, cosine in near)
    return (
        f'<article id="cluster-{k}"><h3>{_swatch(clusters[k])}{_called(k, clusters)}</h3>'
        f"<p>{clusters[k].fraction:.1%} of the training pixels · {clusters[k].color}</p>"
        f'<div class="patches">{patches or "<p>training kept no patch of it</p>"}</div><p>nearest: {like}</p></article>'
    )


def _swatch(cluster: Cluster) -> str:
    return f'<i style="background:{cluster.color}"></i>'


def _called(k: int, clusters: Sequence[Cluster]) -> str:
    name = clusters[k].name
    return escape(name if name == f"cluster {k}" else f"{k} {name}")


def _patches_each(bundle: Bundle) -> int:
    sizes = [[path.stat().st_size for path in bundle.exemplars(k)] for k in range(len(bundle.manifest.clusters))]
    most = max(map(len, sizes), default=0)
    return next((n for n in range(most, 1, -1) if sum(sum(one[:n]) for one in sizes) <= _SHOWN_BYTES), 1)


def _tree(clusters: Sequence[Cluster], hierarchy: Sequence[Merge], top: float) -> str:
    """Leaves down, joined from the left to the right at the height of every merge, which is written there: SVG.

    top  the largest height that there can be; 0: the largest there is
    """
    groups = {k: [k] for k in range(len(clusters))}
    for merge in hierarchy:
        gone = merge.merge[1] if merge.into == merge.merge[0] else merge.merge[0]
        groups[merge.into] = groups[merge.into] + groups.pop(gone)
    order = [k for group in groups.values() for k in group]
    top = top or max((merge.height for merge in hierarchy), default=0.0) or 1.0
    at = {k: (_TOP + (row + 0.5) * _ROW, float(_LEFT)) for row, k in enumerate(order)}
    drawn = "".join(
        f'<rect x="2" y="{at[k][0] - 7:.1f}" width="14" height="14" rx="3" fill="{clusters[k].color}"/>'
        f'<text x="22" y="{at[k][0] + 4:.1f}">{escape(_short(k, clusters))}</text>'
        for k in order
    )
    numbers = ""  # over all lines
    for merge in hierarchy:
        (y0, x0), (y1, x1) = (at[k] for k in merge.merge)
        x = max(_LEFT + max(0.0, merge.height) / top * (_WIDTH - _LEFT - _RIGHT), x0, x1)
        drawn += (
            f'<path d="M{x0:.1f} {y0:.1f}H{x:.1f}V{y1:.1f}H{x1:.1f}"><title>{merge.merge[0]} and {merge.merge[1]}'
            f" become {merge.into}: {merge.k} left, height {merge.height:.3f}</title></path>"
        )
        numbers += f'<text class="height" x="{x + 5:.1f}" y="{(y0 + y1) / 2 + 4:.1f}">{merge.height:.2f}</text>'
        at[merge.into] = ((y0 + y1) / 2, x)
    height = 2 * _TOP + _ROW * len(order)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="which clusters become one">{drawn}{numbers}</svg>'
    )


def _short(k: int, clusters: Sequence[Cluster]) -> str:
    name = clusters[k].name if clusters[k].name == f"cluster {k}" else f"{k} {clusters[k].name}"
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 1180px; padding: 28px 20px 60px; font: 15px/1.5 system-ui, sans-serif; }}
h1, h3 {{ margin: 0; overflow-wrap: anywhere; }}
p {{ margin: 4px 0 10px; color: GrayText; font-size: 13px; overflow-wrap: anywhere; }}
.bar {{ display: flex; height: 32px; border-radius: 8px; overflow: hidden; margin: 14px 0; }}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 14px; }}
article {{ padding: 14px; border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: 10px; }}
i {{ display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }}
.patches {{ display: grid; grid-template-columns: repeat(5, 1fr); gap: 5px; }}
.patches img {{ width: 100%; aspect-ratio: 1; border-radius: 5px; display: block; }}
svg {{ width: 100%; max-width: 820px; }}
svg text {{ font-size: 12px; fill: CanvasText; }}
svg .height {{ paint-order: stroke; stroke: Canvas; stroke-width: 7px; stroke-linejoin: round; }}
svg path {{ fill: none; stroke: GrayText; stroke-width: 1.5; }}
</style></head><body>
<header><h1>{title}</h1><p>{facts}</p></header>
<div class="bar">{bar}</div>
<div class="sheet">{cards}</div>
<h2>Which become one</h2>
<p>asked for fewer (k=), clusters are merged from the left to the right;
the number at a merge is how far apart the two were: {heights}</p>
{tree}
<p>sha256 of the manifest {digest}; weights: {licence}</p>
</body></html>
"""
