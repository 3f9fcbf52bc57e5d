"""What a run was and what it found: numbers for report.json, and one page to look at.

Knows nothing of methods: it shows what the log, the statistics and the bundle hold. The page is one file without
scripts; every name in it is escaped. Where the run keeps exemplars private, no photo is in it either.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Bundle
from training.config.run import Run
from training.data.images import Images
from training.export.corpus_stats import CorpusStats
from training.report import charts
from training.report.html import left_out, page, section
from training.trainer.loop import read_log

_AXES = ("stage", "step", "epoch", "seconds", "images_per_s")


def facts(
    images: Images,
    stats: CorpusStats,
    device: torch.device,
    log: Sequence[dict[str, Any]],
    seconds: Mapping[str, float],
    agreement: float | None = None,
) -> dict[str, Any]:
    """report.json: fractions 0..1, seconds; `hungarian` only where there is ground truth.

    log        the lines of the training, if there was one;  seconds  of its parts
    agreement  of the clusterings that the network was distilled from
    """
    last = {stage: list(lines)[-1] for stage, lines in groupby(log, key=lambda line: line["stage"])}
    found: dict[str, Any] = {
        "images": len(images),
        "skipped": len(images.skipped),
        "measured_on": stats.images,
        "device": device.type,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "usage": {"entropy": stats.entropy, "fractions": stats.fractions.tolist()},
        "presence": stats.presence.tolist(),
        "stability": stats.stability,
        "similarity": stats.similarity,
        "losses": {s: {n: v for n, v in line.items() if n not in _AXES} for s, line in last.items()},
    }
    if agreement is not None:
        found["agreement"] = agreement
    if stats.scores is not None:
        classes = images.class_names
        found["hungarian"] = {
            "miou": stats.scores.miou,
            "accuracy": stats.scores.accuracy,
            "iou": {n: None if np.isnan(v) else float(v) for n, v in zip(classes, stats.scores.iou, strict=True)},
            "class_of_cluster": [classes[c] if c >= 0 else None for c in stats.scores.match.tolist()],
        }
    return found


def page_of(bundle: Bundle, recipe: str, run: Run) -> str:
    """report.html of a bundle; `recipe` is shown as it stands."""
    manifest, found = bundle.manifest, bundle.report()
    log, root = read_log(run.log), run.images.root
    skipped = [(str(one.path.relative_to(root)), one.reason) for one in run.images.skipped]
    sections = [
        _head(bundle, found),
        section("Clusters", _usage(bundle, found) + _sheet(bundle, found)),
        section("Training", curves(log)),
        section("Similarity of codes", _similarity(found)),
        section("Against ground truth", _scores(found)) if "hungarian" in found else "",
        section("Left out", left_out(skipped, "skipped.txt")) if skipped else "",
        section("Recipe", f"<pre>{escape(recipe)}</pre>"),
    ]
    return page(f"{manifest.name}: what was found", "".join(sections))


def _head(bundle: Bundle, found: dict[str, Any]) -> str:
    manifest = bundle.manifest
    seconds = sum(found["seconds"].values())
    cards = [
        (f"{len(manifest.clusters)}", "clusters"),
        (f"{found['images']}", f"images, {found['skipped']} left out" if found["skipped"] else "images"),
        (span(seconds), f"on {found['device']}"),
        (f"{found['usage']['entropy']:.2f}", "evenness of use (1: all alike)"),
        (f"{found['stability']:.2f}", "stability over seeds (1: the same)"),
        (f"{found['onnx']['labels_equal']:.2%}", "of labels: ONNX = torch"),
    ]
    if "agreement" in found:
        cards.append((f"{found['agreement']:.1%}", "of pixels on which the clusterings agree"))
    if "hungarian" in found:
        cards.append((f"{found['hungarian']['miou']:.1%}", "mIoU after matching"))
    numbers = "".join(f"<div><b>{escape(n)}</b><span>{escape(what)}</span></div>" for n, what in cards)
    steps = ", ".join(f"{name} {span(value)}" for name, value in found["seconds"].items())
    return (
        f"<header><h1>{escape(manifest.name)}</h1><p>{escape(manifest.method)} on {escape(manifest.provenance.data)};"
        f" seed {manifest.provenance.seed}; {escape(manifest.provenance.created)};"
        f" <code>{escape(bundle.ref)}</code></p>"
        f'<div class="cards">{numbers}</div><p class="small">{escape(steps)}</p></header>'
    )


def span(seconds: float) -> str:
    """A time as people say it: 3 s, 3.3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _order(bundle: Bundle) -> list[int]:
    return sorted(range(len(bundle.manifest.clusters)), key=lambda k: -bundle.manifest.clusters[k].fraction)


def _usage(bundle: Bundle, found: dict[str, Any]) -> str:
    shown = [(bundle.manifest.clusters[k], k) for k in _order(bundle)]
    return charts.stack([(f"{c.name} (id {k})", c.color, c.fraction) for c, k in shown])


def _sheet(bundle: Bundle, found: dict[str, Any]) -> str:
    cards = ""
    for k in _order(bundle):
        cluster = bundle.manifest.clusters[k]
        patches = "".join(_image(path) for path in bundle.exemplars(k)) or '<p class="small">in no image</p>'
        matched = found.get("hungarian", {}).get("class_of_cluster", [None] * (k + 1))[k]
        known = f" · {escape(matched)}" if matched else ""
        cards += (
            f'<article><h3><i style="background:{cluster.color}"></i>{escape(cluster.name)}</h3>'
            f'<p class="small">id {k} · {cluster.fraction:.1%} of pixels · in {found["presence"][k]:.0%} of images'
            f'{known}</p><div class="patches">{patches}</div></article>'
        )
    return f'<div class="sheet">{cards}</div>'


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" loading="lazy" src="data:image/webp;base64,{data}">'


def curves(log: list[dict[str, Any]]) -> str:
    """Every stage's losses, and what else it watched, as charts."""
    out = ""
    for stage, group in groupby(log, key=lambda line: line["stage"]):
        lines = list(group)
        names = [name for name in lines[-1] if name not in _AXES]
        losses = [name for name in names if not name.startswith("log/")]
        rest = [name for name in names if name.startswith("log/")]
        out += f'<div class="charts"><figure><figcaption>{escape(stage)}: losses</figcaption>'
        out += f"{_lines(lines, losses)}</figure>"
        if rest:
            out += f"<figure><figcaption>{escape(stage)}: watched</figcaption>{_lines(lines, rest)}</figure>"
        out += "</div>"
    return out or '<p class="small">no step was logged</p>'


def _lines(log: list[dict[str, Any]], names: Iterable[str]) -> str:
    series = {n.removeprefix("log/"): [(line["step"], line[n]) for line in log if n in line] for n in names}
    return charts.lines(series, x="step")


def _similarity(found: dict[str, Any]) -> str:
    names = {"within": "two places of one image", "between": "two images"}
    series = {names[name]: values for name, values in found["similarity"].items()}
    return (
        '<p class="small">Cosine between the codes of two places. A code that has found something has places that'
        " are alike (near 1) and places that are not (near 0), with little between.</p>"
        f'<div class="charts"><figure>{charts.histogram(series, -1, 1, x="cosine")}</figure></div>'
    )


def _scores(found: dict[str, Any]) -> str:
    scores = found["hungarian"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{'–' if value is None else f'{value:.1%}'}</td></tr>"
        for name, value in scores["iou"].items()
    )
    return (
        f'<p class="small">On the training images, each cluster matched to at most one class (Hungarian):'
        f" mIoU {scores['miou']:.1%}, accuracy {scores['accuracy']:.1%}. No label was used in training.</p>"
        f"<table><tr><th>class</th><th>IoU</th></tr>{rows}</table>"
    )
