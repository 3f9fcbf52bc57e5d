"""A run in words: what was found, whether K is right, what went wrong, what would help.

Knows nothing of pages: the numbers of report.json and what the run noted go in, sentences come out.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

_UNUSED = 1e-4  # share of the pixels: less is nothing that anybody will see
_TOO_LARGE = 0.5  # of the pixels in one cluster; with few clusters one may hold more
_UNSTABLE = 0.5
_TIED = 0.6  # of a cluster's cells with one and the same second choice, and the other way round
_FEW_CLUSTERS = 4  # among fewer, being each other's second choice says nothing
_ALIKE = 0.8  # mean cosine between places of two photos: nothing is told apart
_FEW_PHOTOS = 30
_SKIPPED = 0.1
_REPEATED = 0.1
_ROSE = 1.05  # end of a loss against its beginning
_LEAST_LINES = 12  # of the log: fewer say nothing of where a loss is going

_LESS_OF_ONE = {  # per method: the option against one cluster that takes all, unless the run had it already
    "stego": ("balance", "auto"),
    "picie": ("class_weights", "none"),
    "cause": ("center", True),
    "smooseg": ("shifts", "auto"),
}


class Trouble(NamedTuple):
    """What went wrong, and what would help: a sentence, and an option of the recipe as --set takes it; may be empty."""

    text: str
    help: str
    option: str = ""


def used(found: Mapping[str, Any]) -> list[int]:
    """The clusters that photos show."""
    return [k for k, share in enumerate(found["usage"]["fractions"]) if share >= _UNUSED]


def pairs_alike(found: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Clusters that are each other's second choice in most places: they may well be one thing."""
    seconds = found.get("runners_up", [])
    if len(seconds) < _FEW_CLUSTERS:
        return []
    first = {k: rows[0] for k, rows in enumerate(seconds) if rows and rows[0][1] >= _TIED}
    return [(a, b) for a, (b, _) in first.items() if a < b and b in first and first[b][0] == a]


def what_was_found(found: Mapping[str, Any]) -> str:
    """How many clusters, in how many photos, and how evenly."""
    shares = found["usage"]["fractions"]
    largest = int(np.argmax(shares))
    seen = f" (measured on {found['measured_on']} of them)" if found["measured_on"] < found["images"] else ""
    return (
        f"{len(used(found))} of {len(shares)} clusters are in use in {_photos(found['images'])}{seen}."
        f" The largest, cluster {largest}, holds {shares[largest]:.0%} of the pixels."
    )


def is_k_right(found: Mapping[str, Any], curve: Mapping[str, Any] | None) -> str:
    """What is known of the number of clusters."""
    k, some = len(found["usage"]["fractions"]), len(used(found))
    if _takes_all(found["usage"]["fractions"]) or _alike(found):
        return "It cannot be told: these codes hold hardly anything apart. Mend what went wrong first."
    said, mends, choices = [], some < k or found["stability"] < _UNSTABLE, bool(pairs_alike(found))
    if curve and curve.get("sentence"):
        said.append(sentence(curve["sentence"]))
        if curve.get("proposed", k) != k:
            said.append(f"This bundle has {k}.")
            choices = True
    if some < k:
        said.append(f"K = {k} is more than these photos fill: {k - some} {_are(k - some)} empty, so {some} would do.")
    if alike := pairs_alike(found):
        names = ", ".join(f"{a} and {b}" for a, b in alike[:4])
        said.append(f"Each the other's second choice in most places, and perhaps one thing: {names}.")
    if found["stability"] < _UNSTABLE:
        said.append(
            f"Clustering the same codes from other seeds gives other clusters (agreement {found['stability']:.2f} of"
            f" 1): K = {k} is not a number that these codes ask for."
        )
    if not said:
        said.append(
            f"Nothing speaks against K = {k}: all clusters are in use, no two are each other's second choice in"
            f" most places, and other seeds find the same ones (agreement {found['stability']:.2f} of 1)."
        )
    if not curve:
        said.append("Other numbers have not been tried; the command below tries them, from stored codes.")
    lead = "Not quite." if mends else "It is one that works, not the only one." if choices else "Yes."
    return " ".join([lead, *said])


def warnings(
    found: Mapping[str, Any], log: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any], noted: Sequence[Any]
) -> list[Trouble]:
    """What went wrong, the worst first.

    recipe  its nested tables;  noted  what the run itself warned of: texts, or {text, option}
    """
    told = [_of_the_run(one) for one in noted]
    return [*_of_clusters(found, recipe), *_of_losses(log, recipe), *_of_photos(found), *told]


def _of_the_run(one: Any) -> Trouble:
    if not isinstance(one, Mapping):
        return Trouble(sentence(one), "")
    text, option = str(one.get("text", "")), str(one.get("option", ""))
    where = (
        f" (noticed in stage {one['stage']}, step {one['step']})"
        if "stage" in one and one.get("step") is not None
        else ""
    )
    return Trouble(sentence(f"{text}{where}"), "May help" if option else "", option)


def _of_clusters(found: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[Trouble]:
    shares, method = found["usage"]["fractions"], str(recipe.get("method", ""))
    k, largest = len(shares), int(np.argmax(shares))
    out = []
    if _takes_all(shares):
        key, value = _LESS_OF_ONE.get(method, ("", ""))
        known = not key or recipe.get(method, {}).get(key) == value
        option = "" if known else f"{method}.{key}={str(value).lower()}"
        help = (
            "More photos, more steps or pretrained weights (backbone.weights) may help" if known else "Train anew with"
        )
        out.append(
            Trouble(f"Cluster {largest} takes {shares[largest]:.0%} of all pixels: little is told apart.", help, option)
        )
    if _alike(found):
        text = "The codes of any two places are nearly the same: training has collapsed, or the photos are all alike."
        help = "Train anew with a lower learning rate, or with pretrained weights (backbone.weights)"
        out.append(Trouble(text, help))
    if out:
        return out  # what else would be said of these clusters follows from it
    if missing := k - len(used(found)):
        text = f"{missing} of {k} clusters {_are(missing)} in no photo."
        help = "Cluster the stored codes anew with fewer (below), or train with"
        out.append(Trouble(text, help, f"clusters.k={max(2, k - missing)}"))
    if found["stability"] < _UNSTABLE:
        text = f"Clusters depend on the seed: agreement {found['stability']:.2f} (0: as by chance, 1: fully)."
        out.append(Trouble(text, "Let K be chosen by stability (below); more photos or more steps may help"))
    return out


def _takes_all(shares: Sequence[float]) -> bool:
    """Of two clusters one may well hold 80 % of the pixels, of six none should hold half."""
    return max(shares) > max(_TOO_LARGE, min(0.9, 2.5 / len(shares)))


def _alike(found: Mapping[str, Any]) -> bool:
    """Whether the codes of any two places are nearly the same."""
    shares = found["similarity"]["between"]
    centers = -1 + (np.arange(len(shares)) + 0.5) * 2 / len(shares)
    return float(np.dot(shares, centers)) > _ALIKE


def _of_losses(log: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> list[Trouble]:
    out = []
    for stage, group in groupby(log, key=lambda line: line["stage"]):
        losses = [line["loss"] for line in group if "loss" in line]
        if len(losses) < _LEAST_LINES:
            continue
        few = len(losses) // 4
        first, last = float(np.mean(losses[:few])), float(np.mean(losses[-few:]))
        if last - first > (_ROSE - 1) * max(abs(first), 1e-6):
            method = str(recipe.get("method", ""))
            rate = recipe.get(method, {}).get("lr")
            option = f"{method}.lr={rate / 3:.1g}" if isinstance(rate, float) else ""
            text = f"In stage {stage} the loss rose, from {first:.3g} in its first quarter to {last:.3g} in its last."
            out.append(Trouble(text, "Look at the curve; a lower learning rate may help", option))
    return out


def _of_photos(found: Mapping[str, Any]) -> list[Trouble]:
    out, count = [], found["images"]
    if found["skipped"] > _SKIPPED * (count + found["skipped"]):
        text = f"{found['skipped']} of {count + found['skipped']} files could not be read."
        out.append(Trouble(text, "The reasons are listed below, and in skipped.txt"))
    if count < _FEW_PHOTOS:
        text = f"{_photos(count)} are few: clusters are of these very photos, and may not be found in others."
        out.append(Trouble(text, "Add photos, a hundred or more"))
    repeated = found.get("near_duplicates", 0)
    if repeated > _REPEATED * found["measured_on"]:
        text = f"{repeated} of {found['measured_on']} photos nearly repeat another one: they count twice in everything."
        out.append(Trouble(text, "Leave the repetitions out; they are listed below"))
    return out


def sentence(text: object) -> str:
    """A text as a sentence: a capital first, a stop last."""
    said = str(text).strip()
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '!', '?')) else '.'}" if said else ""


def _photos(count: int) -> str:
    return f"{count} photo{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
