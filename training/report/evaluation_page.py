"""evaluation.html: what evaluation.json holds, to look at.

Knows nothing of networks or data sets: facts in, one page out, without scripts; every name in it is escaped. No photo
is in it unless examples are handed in.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from models import palette
from models.preprocess import resize
from models.types import Array
from training.data.label_maps import IGNORED
from training.report import charts, pictures
from training.report.html import left_out, page, section

_SIDE_PX = 300  # longest side of an example
_GRAY = np.array([128, 128, 128], np.uint8)  # clusters that have no class
_RED = np.array([220, 40, 40], np.uint8)


class Example(NamedTuple):
    """One photo RGB uint8 [H, W, 3]; predicted int [H, W] of classes or EXTRA; truth uint8 [H, W], 255 = ignored."""

    name: str
    image: Array
    predicted: Array
    truth: Array


def page_of(facts: dict[str, Any], examples: Sequence[Example] = ()) -> str:
    """The page of an evaluation's facts."""
    served = next(row for row in facts["rows"] if row["served"])
    probe = next((row for row in facts["rows"] if row["head"] == "linear probe"), None)
    taught = next((row for row in facts["rows"] if row["head"] == "classes"), None)
    failed = [(one["file"], one["reason"]) for one in facts["failed"]]
    parts = [
        _head(facts, served),
        section("Rows", _rows(facts)),
        section("By class", _classes(facts)),
        section("What became of every class", _confusion(facts, served)),
        section("The same for the linear probe", _confusion(facts, probe)) if probe else "",
        section("The same for the taught classes", _confusion(facts, taught)) if taught else "",
        section("Fewer clusters", _levels(facts["levels"])) if "levels" in facts else "",
        section("Feature correspondences", _curves(facts)) if "correspondence" in facts else "",
        section("Examples", _examples(facts, examples)) if examples else "",
        section("Could not be used", left_out(failed, "evaluation.json")) if failed else "",
    ]
    return page(f"{facts['bundle']} on {facts['data']}", "".join(parts))


def _head(facts: dict[str, Any], served: dict[str, Any]) -> str:
    failed = len(facts["failed"])
    cards = [
        (_percent(served["miou"]), "mIoU as served, after matching"),
        (_percent(served["accuracy"]), "of pixels right"),
        (f"{facts['images']}", f"images, {failed} could not be used" if failed else "images"),
        (f"{facts['clusters']}", f"clusters for {len(facts['classes'])} classes"),
        (f"{1000 * served['seconds_per_image']:.0f} ms", "an image, network and labels"),
    ]
    numbers = "".join(f"<div><b>{escape(n)}</b><span>{escape(what)}</span></div>" for n, what in cards)
    how = {
        "served": "label maps as the service gives them, at the label map's size",
        "crop": "short side at the bundle's size, central square, as the papers score",
    }[facts["protocol"]]
    notes = "".join(f'<p class="small">{escape(note[:1].upper() + note[1:])}.</p>' for note in facts["notes"])
    return (
        f"<header><h1>{escape(facts['bundle'])}</h1><p>{escape(facts['method'])}, measured on {escape(facts['data'])};"
        f' {escape(how)}</p><div class="cards">{numbers}</div>{notes}</header>'
    )


def _rows(facts: dict[str, Any]) -> str:
    lines = ""
    for row in facts["rows"]:
        mark = " · as served" if row["served"] else ""
        figures = (
            "".join(f"<td>{_percent(row[name])}</td>" for name in ("miou", "accuracy", "mean_precision"))
            + f"<td>{row['seconds_per_image']:.3f}</td>"
        )
        lines += f"<tr><td>{escape(row['name'])}{mark}</td>{figures}</tr>"
    said = (
        "Clusters are matched to classes so that most pixels are right, one cluster to a class; pixels of the clusters"
        " left over are errors. Precision is the mean over classes of how much of what was given to a class shows it."
    )
    if "linear_probe" in facts:
        probe = facts["linear_probe"]
        said += (
            f" The linear probe was trained with the labels of {probe['images']} images in {probe['steps']} steps, for"
            " measuring only: nothing of it is in the bundle."
        )
    return (
        f"<table><tr><th></th><th>mIoU</th><th>accuracy</th><th>precision</th><th>seconds an image</th></tr>"
        f'{lines}</table><p class="small">{escape(said)}</p>'
    )


def _classes(facts: dict[str, Any]) -> str:
    rows = facts["rows"]
    head = "".join(f"<th>{escape(row['name'])}</th>" for row in rows)
    body = ""
    for name in facts["classes"]:
        figures = "".join(f"<td>{_percent(row['iou'][name])}</td>" for row in rows)
        body += f"<tr><td>{escape(name)}</td>{figures}</tr>"
    return f'<table><tr><th>IoU</th>{head}</tr>{body}</table><p class="small">A dash: no label map has the class.</p>'


def _confusion(facts: dict[str, Any], row: dict[str, Any]) -> str:
    """Classes down, what they were taken for across: matched clusters in the classes' order, then the rest."""
    counts = np.array(row["confusion"], np.float64)
    classes, matched = facts["classes"], row["class_of_cluster"]
    order = sorted(range(len(matched)), key=lambda k: (matched[k] is None, _place(classes, matched[k]), k))
    # A cluster without a class that no pixel fell into says nothing.
    order = [k for k in order if matched[k] is not None or counts[k].any()]
    totals = counts.sum(axis=0)
    seen = [n for n in range(len(classes)) if totals[n]]
    shares = [[counts[k, n] / totals[n] for k in order] for n in seen]
    clusters = row["head"] == "clusters"
    names = [(f"{k} {matched[k]}" if clusters else matched[k]) if matched[k] else f"{k} –" for k in order]
    if "taught" in row:
        names = [row["taught"][k] if matched[k] else f"{row['taught'][k]} –" for k in order]
    picture = charts.matrix([classes[n] for n in seen], names, shares)
    across = "the clusters, each with the class it was matched to" if clusters else f"what the {row['head']} said"
    return (
        f'<figure class="wide">{picture}</figure>'
        f'<p class="small">Down: true classes. Across: {across}. In a cell: percent of the class\'s pixels.</p>'
    )


def _place(classes: list[str], name: str | None) -> int:
    return len(classes) if name is None else classes.index(name)


def _levels(facts: dict[str, Any]) -> str:
    beside = "centroids" in facts["rows"][0]
    lines = ""
    for row in facts["rows"]:
        figures = [_percent(row["one_to_one"]), _percent(row["many_to_one"])]
        if beside:
            figures += [_percent(row["centroids"][name]) for name in ("one_to_one", "many_to_one")]
        height = "" if row["height"] is None else f"{row['height']:.2f}"
        joined = " + ".join(name or "nothing" for name in row["joined"] or ())
        cells = "".join(f"<td>{cell}</td>" for cell in (*figures, height, escape(joined)))
        lines += f"<tr><td>{row['k']}</td>{cells}</tr>"
    other = "<th>one to one, by centroids</th><th>many to one, by centroids</th>" if beside else ""
    how = {
        "belonging": "0 is the same thing, 0.5 as alike as two of the clusters are on average",
        "centroids": "cosine distances of the network's centroids, which may join what does not belong together:"
        " tessera remeasure gives the bundle a tree of what does",
    }[facts["by"]]
    said = (
        "Accuracy with k clusters, as the service joins them. One to one: a class has one cluster, and pixels of the"
        " others are errors. Many to one: every cluster has the class that most of its pixels show. What the step there"
        f" joined stands behind it, by what it mostly shows; height: {how}."
    )
    return (
        f"<table><tr><th>k</th><th>one to one</th><th>many to one</th>{other}<th>height</th><th>joined</th></tr>"
        f'{lines}</table><p class="small">{escape(said)}</p>'
    )


def _curves(facts: dict[str, Any]) -> str:
    figures = ""
    for kind, by_source in facts["correspondence"].items():
        series = {
            f"{source}: average precision {_percent(curve['average_precision'])}": list(
                zip(curve["recall"], curve["precision"], strict=True)
            )
            for source, curve in by_source.items()
        }
        first = next(iter(by_source.values()))
        chance = f"{_percent(first['positives'])} of {first['pairs']} pairs show one class"
        figures += (
            f"<figure><figcaption>{escape(kind)}</figcaption>{charts.lines(series, x='precision over recall')}"
            f'<p class="small">{escape(chance)}</p></figure>'
        )
    return (
        '<p class="small">Two places are guessed to show one class where the vectors at them are alike. Each point of a'
        " curve is one threshold on their cosine. Features are the backbone's, the code is what is clustered.</p>"
        f'<div class="charts">{figures}</div>'
    )


def _examples(facts: dict[str, Any], examples: Sequence[Example]) -> str:
    names = facts["classes"]
    colors = np.concatenate([palette.distinct(len(names)), _GRAY[None]])  # EXTRA = −1 is the last
    legend = "".join(
        f'<span><i style="background:{palette.to_hex(color)}"></i>{escape(name)}</span>'
        for name, color in zip([*names, "cluster without a class"], colors, strict=True)
    )
    out = f'<p class="legend">{legend}</p>'
    for one in examples:
        known = one.truth != IGNORED
        truth = np.where(known[..., None], colors[np.where(known, one.truth, 0)], 0)
        wrong = known & (one.predicted != one.truth)
        gray = np.repeat(one.image.mean(axis=2, keepdims=True), 3, axis=2)
        gray = resize(gray.astype(np.uint8), (wrong.shape[0], wrong.shape[1]))
        errors = np.where(wrong[..., None], _RED, gray)
        shown = [("photo", one.image), ("served", colors[one.predicted]), ("truth", truth), ("errors in red", errors)]
        figures = "".join(
            f"<figure>{pictures.photo(_small(array.astype(np.uint8), smooth=word == 'photo'), word, 85)}"
            f'<p class="small">{word}</p></figure>'
            for word, array in shown
        )
        share = wrong.sum() / max(1, known.sum())
        out += f'<h3>{escape(one.name)}</h3><p class="small">{share:.1%} wrong</p><div class="four">{figures}</div>'
    return out


def _small(array: Array, *, smooth: bool) -> Array:
    step = max(1, -(-max(array.shape[:2]) // _SIDE_PX))
    if smooth:
        return resize(array, (-(-array.shape[0] // step), -(-array.shape[1] // step)))
    return array[::step, ::step]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
