"""A tree of clusters as SVG: which become one when fewer are wanted, and how far apart they were.

Knows nothing of bundles' files or of photos.
"""

from collections.abc import Sequence
from html import escape

from models.manifest import Cluster, Merge, TreeBy
from training.report.pictures import label

_ROW, _TOP, _LEFT, _RIGHT, _WIDTH = 22, 26, 190, 24, 640
_NAME = 24  # characters of a name
_ANY_TWO = 0.5  # height, by belonging, of what is as alike as two clusters are on average


def dendrogram(clusters: Sequence[Cluster], hierarchy: Sequence[Merge], by: TreeBy = "centroids") -> str:
    """Leaves down, joined from the left to the right; across, the height of every merge, which stands beside it.

    Heights by belonging are drawn over 0..1, with a line where two clusters are as alike as they are on average.
    """
    order = _order(len(clusters), hierarchy)
    top = 1.0 if by == "belonging" else max((merge.height for merge in hierarchy), default=0.0) or 1.0
    at = {k: (_TOP + (row + 0.5) * _ROW, 0.0) for row, k in enumerate(order)}  # y, height of what an id stands for
    body = _axis(top, _TOP + _ROW * len(order))
    if by == "belonging":
        x, bottom = _across(_ANY_TWO, top), _TOP + _ROW * len(order)
        body += f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{bottom:.1f}"/>'
    for k, (y, _) in at.items():
        name = escape(clusters[k].name)
        body += (
            f'<rect x="2" y="{y - 7:.1f}" width="14" height="14" rx="3" fill="{clusters[k].color}"/>'
            f'<text class="leaf" x="22" y="{y + 4:.1f}">{label(k, clusters, _NAME)}<title>{name}</title></text>'
        )
    numbers = ""  # over all lines
    for merge in hierarchy:
        (y0, x0), (y1, x1) = (at[k] for k in merge.merge)
        height = max(merge.height, x0, x1)  # a merge below its parts would cross their lines
        x = _across(height, top)
        said = f"{merge.merge[0]} and {merge.merge[1]} become {merge.into}: {merge.k} left, height {merge.height:.2f}"
        body += (
            f'<path class="branch" d="M{_across(x0, top):.1f} {y0:.1f}H{x:.1f}V{y1:.1f}H{_across(x1, top):.1f}">'
            f"<title>{escape(said)}</title></path>"
        )
        numbers += f'<text class="height" x="{x + 5:.1f}" y="{(y0 + y1) / 2 + 4:.1f}">{merge.height:.2f}</text>'
        at[merge.into] = ((y0 + y1) / 2, height)
    height_px = _TOP + _ROW * len(order) + 6
    said = f"tree of {len(clusters)} clusters"
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {height_px}" role="img" aria-label="{said}">{body}{numbers}</svg>'


def _order(count: int, hierarchy: Sequence[Merge]) -> list[int]:
    """Leaves so that what becomes one stands together."""
    groups = {k: [k] for k in range(count)}
    for merge in hierarchy:
        a, b = merge.merge
        gone = b if merge.into == a else a
        groups[merge.into] = groups[merge.into] + groups.pop(gone)
    return [k for group in groups.values() for k in group]


def _across(height: float, top: float) -> float:
    return _LEFT + max(0.0, height) / top * (_WIDTH - _LEFT - _RIGHT)


def _axis(top: float, bottom: float) -> str:
    out = ""
    for i in range(5):
        x = _across(i / 4 * top, top)
        out += f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{bottom:.1f}"/>'
        out += f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="middle">{i / 4 * top:.2g}</text>'
    return out
