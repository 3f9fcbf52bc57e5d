"""The report's parts about how a run went: its curves, K, the balance, seconds and memory, the machine.

Knows nothing of photos or bundles: log lines and noted facts in, HTML out.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from training.report import charts, verdict

AXES = ("stage", "step", "epoch", "seconds", "images_per_s")


def curves(log: Sequence[Mapping[str, Any]]) -> str:
    """Every stage's losses, and what else it watched, as charts."""
    out = ""
    for stage, group in groupby(log, key=lambda line: line["stage"]):
        lines = list(group)
        names = [name for name in lines[-1] if name not in AXES]
        losses = [name for name in names if not name.startswith("log/")]
        rest = [name for name in names if name.startswith("log/")]
        out += f'<div class="charts">{figure(f"{stage}: losses", _lines(lines, losses))}'
        out += (figure(f"{stage}: watched", _lines(lines, rest)) if rest else "") + "</div>"
    return out or '<p class="small">no step was logged</p>'


def _lines(log: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str:
    series = {n.removeprefix("log/"): [(line["step"], line[n]) for line in log if n in line] for n in names}
    return charts.lines(series, x="step")


def figure(title: str, chart: str) -> str:
    """A chart under its title."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>"


def number_of_clusters(curve: Mapping[str, Any]) -> str:
    """What other numbers of clusters came to."""
    rows = [row for row in curve.get("curve", []) if "k" in row]

    def by_k(*names: str) -> str:
        return charts.lines({name: [(row["k"], row[name]) for row in rows if name in row] for name in names}, x="K")

    return (
        f"<p>{escape(verdict.sentence(curve.get('sentence', '')))}</p>"
        f'<div class="charts">{figure("by number of clusters", by_k("stability", "chance", "silhouette"))}'
        f"{figure('clusters that nothing falls into', by_k('unused'))}</div>"
    )


def found_without_labels(merging: Mapping[str, Any] | None, crops: Mapping[str, Any] | None) -> str:
    """How far the clusters are the folder's and not one draw's: over parts of it, and over crops."""
    said = []
    if crops:
        said.append(
            f"Of the pixels of a crop, three quarters of the image each way, {crops['stable']:.0%} are in the cluster"
            " that they are in when the whole image is seen."
        )
    if merging and merging["whole"] is not None:
        tried = {int(k): value for k, value in merging["agreement"].items()}
        others = ", ".join(f"{k}: {value:.2f}" for k, value in sorted(tried.items()))
        k, groups = max(tried), merging["groups"]
        made = (
            f"what belongs together made {groups} groups, which gave away what is small and unlike the rest of them"
            f" until there were {k} clusters"
            if groups < k
            else f"what belongs together was joined until there were {k} clusters, and no further"
        )
        said.append(
            f"Regions were clustered into {merging['pieces']} pieces, several times over; {made}. Parts of the folder,"
            f" clustered apart, agree with the clusters to {merging['whole']:.2f} (1: entirely, 0: as by chance), and"
            f" with pieces joined into so many groups to {others}. Groups on which they agree less than on {k}, by more"
            f" than one standard error ({merging.get('error', 0):.2f}), are not trusted."
        )
    elif merging:
        said.append(
            f"Regions were clustered into {merging['pieces']} pieces, several times over, and joined by what belongs"
            " together. The folder is too small for its parts to tell how far that holds of more images like these."
        )
    return "".join(f"<p>{escape(one)}</p>" for one in said)


def carried_over(facts: Mapping[str, Any]) -> str:
    """Which clusters keep id, name and color of an earlier bundle's, and what became of the others."""
    rows = "".join(
        f"<tr><td>{one['id']}</td><td>{escape(str(one['name']))}</td><td>{one['iou']:.0%}</td></tr>"
        for one in facts.get("matched", [])
    )
    said = "".join(f"<li>{escape(verdict.sentence(one))}</li>" for one in facts.get("said", []))
    return (
        f'<p class="small">Held against {escape(str(facts.get("to", "")))} on the same photos.</p>'
        f"{f'<ul>{said}</ul>' if said else ''}<table><tr><th>id</th><th>kept name</th><th>overlap (IoU)</th></tr>{rows}"
        "</table>"
    )


def student(facts: Mapping[str, Any]) -> str:
    """A student beside its teacher: labels, time, size; and how much of each cluster it gets."""
    ms, mb, sizes = facts["ms"], facts["mb"], facts["size"]
    head = "".join(
        f'<tr><th scope="row">{who}</th><td>{ms[who]:.1f} ms</td><td>{sizes[who][1]}×{sizes[who][0]}</td>'
        f"<td>{mb[who]:.1f} MB</td></tr>"
        for who in ("teacher", "student")
    )
    rows = "".join(
        f"<tr><td>{k} {escape(str(name))}</td><td>{_share(share)}</td><td>{_share(iou)}</td></tr>"
        for k, (name, share, iou) in enumerate(zip(facts["names"], facts["by_cluster"], facts["iou"], strict=True))
    )
    return (
        f'<p class="small">The network of this bundle learned the label maps of {escape(str(facts["teacher"]))}. On'
        f" {facts['held_out_images']} images that it has not seen, both give {facts['agreement']:.1%} of the pixels the"
        " same cluster. Time is the median for one image, without torch, on the processor,"
        f" {facts['threads']} thread{'s' * (facts['threads'] != 1)}.</p>"
        f"<table><tr><th></th><th>an image</th><th>pixels</th><th>bundle</th></tr>{head}</table>"
        "<table><tr><th>cluster</th><th>of the teacher's pixels</th><th>overlap (IoU)</th></tr>"
        f"{rows}</table>"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def balance(facts: Mapping[str, Any]) -> str:
    """How STEGO's shifts were steered, and what came of it."""
    columns, rows = facts.get("columns", []), facts.get("rows", [])
    points = {name: [(row[0], row[i]) for row in rows] for i, name in enumerate(columns) if i}
    shifts = {name.removeprefix("shift_"): p for name, p in points.items() if name.startswith("shift_")}
    seen = {name.replace("_", " "): p for name, p in points.items() if not name.startswith("shift_")}
    aims = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.get("aims", {}).items())
    return (
        f'<p class="small">Shifts are moved while training so that these are met: {escape(aims)}.</p>'
        f'<div class="charts">{figure("shifts", charts.lines(shifts, x="step"))}'
        f"{figure('similarities of codes', charts.lines(seen, x='step'))}</div>"
    )


def similarity(found: Mapping[str, Any]) -> str:
    """Histograms of the cosine between two places."""
    names = {"within": "two places of one image", "between": "two images"}
    series = {names[name]: values for name, values in found["similarity"].items()}
    return (
        '<p class="small">Cosine between the codes of two places. A code that has found something has places that'
        " are alike (near 1) and places that are not (near 0), with little between.</p>"
        f'<div class="charts"><figure>{charts.histogram(series, -1, 1, x="cosine")}</figure></div>'
    )


def scores(found: Mapping[str, Any]) -> str:
    """Against label maps, where the data set has any."""
    scores = found["hungarian"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{'–' if value is None else f'{value:.1%}'}</td></tr>"
        for name, value in scores["iou"].items()
    )
    return (
        f'<p class="small">On {found["measured_on"]} of the training images, each cluster matched to at most one'
        f" class (Hungarian): mIoU {scores['miou']:.1%}, accuracy {scores['accuracy']:.1%}. No label was used in"
        " training.</p>"
        f"<table><tr><th>class</th><th>IoU</th></tr>{rows}</table>"
    )


def costs(seconds: Mapping[str, float], stages: Sequence[Mapping[str, Any]] | None) -> str:
    """Seconds and, where it was noted, the most memory of every part."""
    rows = stages or [{"name": name, "seconds": value} for name, value in seconds.items()]
    total = sum(row["seconds"] for row in rows) or 1.0
    body = "".join(
        f"<tr><td>{escape(str(row['name']))}</td><td>{span(row['seconds'])}</td><td>{row['seconds'] / total:.0%}</td>"
        f"<td>{_memory(row.get('peak_mb'))}</td></tr>"
        for row in rows
    )
    return f"<table><tr><th>part</th><th>time</th><th>share</th><th>most memory</th></tr>{body}</table>"


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and what they are."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def span(seconds: float) -> str:
    """A time as people say it: 3 s, 3.3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _memory(mb: float | None) -> str:
    if not mb:
        return "–"
    return f"{mb:.0f} MB" if mb < 2000 else f"{mb / 1024:.1f} GB"
