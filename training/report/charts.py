"""Small charts as SVG text.

Knows nothing of training: numbers and words in, a picture that needs no other file out.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 560, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 24, 28
COLORS = ("#3f6fb5", "#c8643c", "#3d9970", "#8e5ea2", "#b08d2a", "#5f6b7a", "#c0487f", "#2a9db0")


def lines(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str) -> str:
    """Curves over one axis; `series` maps a name to its (x, y) points. Empty series are left out."""
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    every = [point for points in series.values() for point in points]
    x0, x1 = min(p[0] for p in every), max(p[0] for p in every)
    low, high = min(p[1] for p in every), max(p[1] for p in every)
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-12 else (low, high)
    body = _axes(x0, x1, low, high, x, whole=all(float(point[0]).is_integer() for point in every))
    for color, (_, points) in zip(_cycle(len(series)), series.items(), strict=True):
        at = " ".join(f"{_across(a, x0, x1):.1f},{_up(b, low, high):.1f}" for a, b in thinned(points))
        body += f'<polyline points="{at}" fill="none" stroke="{color}" stroke-width="1.6" stroke-linejoin="round"/>'
    return _svg(body) + _legend(list(series))


def histogram(series: Mapping[str, Sequence[float]], low: float, high: float, *, x: str) -> str:
    """Histograms of equal bins from low to high, drawn over each other as filled steps."""
    top = max((value for values in series.values() for value in values), default=0) or 1.0
    body = _axes(low, high, 0.0, top, x)
    for color, values in zip(_cycle(len(series)), series.values(), strict=True):
        step = (high - low) / len(values)
        corners = [(low, 0.0)]
        for i, value in enumerate(values):
            corners += [(low + i * step, value), (low + (i + 1) * step, value)]
        corners.append((high, 0.0))
        at = " ".join(f"{_across(a, low, high):.1f},{_up(b, 0, top):.1f}" for a, b in corners)
        body += f'<polygon points="{at}" fill="{color}" fill-opacity=".28" stroke="{color}" stroke-width="1.2"/>'
    return _svg(body) + _legend(list(series))


def stack(parts: Sequence[tuple[str, str, float]]) -> str:
    """One bar cut into (name, color, share); shares sum to 1."""
    out, at = "", 0.0
    for name, color, share in parts:
        out += (
            f'<rect x="{1000 * at:.2f}" y="0" width="{1000 * share:.2f}" height="34" fill="{escape(color)}">'
            f"<title>{escape(name)}: {share:.1%}</title></rect>"
        )
        at += share
    return f'<svg class="stack" viewBox="0 0 1000 34" preserveAspectRatio="none" role="img">{out}</svg>'


def matrix(rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]]) -> str:
    """A table of shares 0..1 as a picture: the darker a cell, the more; its share in percent stands in it.

    shares  one line for each of `rows`, one number for each of `columns`
    """
    left, top = 8 + _text_width(rows), 8 + _text_width(columns)
    cell = 30
    body = "".join(
        f'<text x="{left - 6}" y="{top + (i + 0.5) * cell + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        for i, name in enumerate(rows)
    )
    for j, name in enumerate(columns):
        x = left + (j + 0.5) * cell + 4
        body += f'<text transform="translate({x:.1f} {top - 6}) rotate(-90)">{escape(name)}</text>'
    for i, line in enumerate(shares):
        for j, share in enumerate(line):
            x, y = left + j * cell, top + i * cell
            said = f"{rows[i]} → {columns[j]}: {share:.1%}"
            body += (
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{COLORS[0]}"'
                f' fill-opacity="{0.06 + 0.94 * share:.3f}"><title>{escape(said)}</title></rect>'
            )
            if share >= 0.005:
                shade = ' class="on"' if share > 0.45 else ""
                body += (
                    f'<text{shade} x="{x + (cell - 1) / 2}" y="{y + cell / 2 + 4}" text-anchor="middle">'
                    f"{100 * share:.0f}</text>"
                )
    width, height = left + cell * len(columns) + 4, top + cell * len(rows) + 4
    return f'<svg class="chart matrix" width="{width}" viewBox="0 0 {width} {height}" role="img">{body}</svg>'


def thinned(points: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbors."""
    size = math.ceil(len(points) / most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(p[0] for p in g) / len(g), sum(p[1] for p in g) / len(g)) for g in groups]


def _text_width(names: Sequence[str]) -> int:
    return round(6.4 * max((len(name) for name in names), default=0))


def _cycle(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]


def _across(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT)


def _up(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(x0: float, x1: float, low: float, high: float, name: str, *, whole: bool = False) -> str:
    body = ""
    for i in range(5):
        value = low + i / 4 * (high - low)
        y = _up(value, low, high)
        body += f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        body += f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    marks = [x0 + i / 4 * (x1 - x0) for i in range(5)]
    for value in sorted({round(mark) for mark in marks}) if whole else marks:
        body += f'<text x="{_across(value, x0, x1):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{value:.4g}</text>'
    return body + f'<text class="name" x="{_WIDTH - _RIGHT}" y="{_TOP - 10}" text-anchor="end">{escape(name)}</text>'


def _svg(body: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{body}</svg>'


def _legend(names: Sequence[str]) -> str:
    keys = "".join(
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for color, name in zip(_cycle(len(names)), names, strict=True)
    )
    return f'<p class="legend">{keys}</p>'
