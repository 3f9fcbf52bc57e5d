"""What a few clicks a class are worth: classes by example on CamVid, beside the unsupervised match and a linear probe.

    make teach [DATA=../shared/data/camvid]
    python -m benchmarks.teach [BUNDLE] [--data …] [--clicks 1,3,5,10,20,50] [--draws 5] [--by pixel|image]
        [--no-probe] [--more | --found]

A click is a labelled pixel of its class, drawn among all of the training frames (`--by image`: a frame first, then a
pixel of the class in it: more small and far-away things), and kept as the service keeps it. Every frame is then told
apart as the service does (`models.prototypes`), at the photo's size. Of five draws the mean is printed, and the range.

Scored are the val frames, of a drive that is in train as well, and every drive of train with the clicks of the others;
the test drives too where labels/test is there. Beside them, with all labels in hand: the clusters matched to the
classes (Hungarian), and a linear layer trained on all labels of train. All classes count in the mean that occur in what
is scored; void counts nowhere. The network has seen the train frames, but no label. "10, and
clusters": every cluster is said besides to be of the class that it mostly shows in the frames that clicks are drawn in.

`--more`: where to click next. Five a class, and as many again: anywhere, where the answer is wrong, at places of least
margin, where the service suggests, or as negative examples where it is wrong.

`--found`: every cluster is a class of its own, as the page begins, and one more class has clicks, 1, 3, 5 or 10 of
them: each class of the labels in turn. Its IoU, precision and recall, and the share of all pixels that it takes from
other things, mean of the classes. And what all classes are worth (mIoU, accuracy) where every cluster is said to be
of the class that it mostly shows, and five classes, drawn, have clicks besides. On every fourth frame.

Codes are computed once, and kept in runs/teach (half a gigabyte). Written to benchmarks/results/teach.json,
teach-image.json, teach-more.json, teach-found.json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console

from benchmarks import load, machine
from models import assign
from models.bundle import Bundle
from models.preprocess import fit
from models.prototypes import Classifier, Example, Taught, code_at
from models.types import Array, Box
from service.inference.results import Facts, NetworkOutput
from service.inference.taught import decided, suggestions
from service.settings import embedded
from training.data import datasets
from training.data.datasets.camvid import CLASS_NAMES, drive
from training.evaluation import linear_probe, metrics
from training.evaluation.exported import Exported
from training.evaluation.linear_probe import Lesson

CACHE = Path("runs/teach")
CLASSES = len(CLASS_NAMES)
_BESIDE = 10  # clicks a class beside clusters that are said to be of a class
_MORE = ("random", "wrong", "margin", "suggested", "negative")
_EVERY = 4  # frames, beside the clusters
_SOME = 5  # classes that have clicks, where the others have clusters only
_STEPS = 400  # of the linear probe


class Split(NamedTuple):
    """Frames of one split.

    codes  float32 [n, D, h, w];  labels  uint8 [n, H, W];  drives  of each;  box  the part of the grid they fill
    pixels int64 [n, N]: how many of each class
    """

    codes: Array
    labels: Array
    drives: Array
    box: Box
    pixels: Array


Maps = Callable[[Array], Array]
"""code float32 [D, h, w] → score maps float32 [M, h, w]."""


def opened(bundle: Bundle, data: Path, split: str) -> Split | None:
    """A split with its codes, computed where they are not kept yet; None where it has no label maps."""
    images = datasets.open("camvid", data, split=split, console=Console(quiet=True))
    if not images.labelled:
        return None
    labels = np.stack([images.labels(i) for i in range(len(images))])
    fitted = fit(images[0], bundle.manifest.input)
    kept = CACHE / f"{bundle.digest[:12]}-{images.digest[:12]}-{split}.npy"
    if not kept.is_file():
        print(f"{split}: codes of {len(images)} frames", file=sys.stderr, flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        network = Exported(bundle.encoder_bytes())
        answers = (network.answer(fit(images[i], bundle.manifest.input).pixels).code for i in range(len(images)))
        half = kept.with_suffix(".part.npy")
        np.save(half, np.stack(list(answers)))
        half.replace(kept)
    counts = np.stack([np.bincount(one.ravel(), minlength=256)[:CLASSES] for one in labels])
    drives = np.array([drive(path) for path in images.paths])
    return Split(np.load(kept, mmap_mode="r"), labels, drives, fitted.box, counts)


def clicks(
    split: Split, frames: Array, count: int, draw: int, by: str, names: Sequence[int] = range(CLASSES)
) -> list[Example]:
    """`count` examples of every class that these frames show, of `names`."""
    rng, found = np.random.default_rng([draw, count]), []
    for name in names:
        shown = split.pixels[frames, name].astype(np.float64)
        if not shown.any():
            continue
        odds = shown if by == "pixel" else (shown > 0).astype(np.float64)
        for i in rng.choice(frames, count, p=odds / odds.sum()):
            rows, columns = np.nonzero(split.labels[i] == name)
            at = rng.integers(len(rows))
            found.append(click(split, i, int(rows[at]), int(columns[at]), name))
    return found


def more_clicks(
    bundle: Bundle, split: Split, examples: list[Example], classifier: Classifier, how: str, draw: int
) -> list[Example]:
    """The examples and 55 more, on frames drawn at random, at a labelled place of each that is drawn.

    how  random  any place;  wrong  where the answer is wrong;  margin  one of the thirty places of least margin
         suggested  one of three that the service suggests
         negative  where it is wrong: it is said what is not there, in place of what is
    """
    rng, found = np.random.default_rng(draw), list(examples)
    for i in rng.choice(len(split.codes), 5 * CLASSES):
        code, truth = np.asarray(split.codes[i]), split.labels[i]
        scores = np.ascontiguousarray(classifier.scores(code, code))
        said = classifier.ids[assign.labels(scores, truth.shape, split.box)]
        known = truth < CLASSES
        if how == "suggested":
            seen = NetworkOutput(scores, code, truth.shape, split.box, Facts(), ids=classifier.ids)
            places = [one for one in suggestions(seen, decided(bundle.manifest, seen), 3) if known[one.y, one.x]]
            rows, columns = np.array([one.y for one in places]), np.array([one.x for one in places])
        elif how == "margin":
            margin = np.where(known, assign.margin(scores, code, truth.shape, box=split.box), np.inf)
            rows, columns = np.unravel_index(np.argsort(margin, axis=None, kind="stable")[:30], truth.shape)
        else:
            rows, columns = np.nonzero(known if how == "random" else known & (said != truth))
        if len(rows):
            y, x = (int(one[at]) for at in [rng.integers(len(rows))] for one in (rows, columns))
            name = said[y, x] if how == "negative" else truth[y, x]
            found.append(click(split, i, y, x, int(name))._replace(negative=how == "negative"))
    return found


def click(split: Split, i: int, y: int, x: int, name: int) -> Example:
    """A pixel of frame i as the service keeps it."""
    (height, width), (top, left, down, across) = split.labels.shape[1:], split.box
    place = (top + y / height * down, left + x / width * across, down / height, across / width)
    code = code_at(split.codes[i], np.ones((1, 1), bool), place)
    return Example(name, code, ((y + 0.5) / height, (x + 0.5) / width))


def counted(split: Split, frames: Array, maps: Maps, ids: Sequence[int], values: int) -> Array:
    """Confusion int64 [values, N] of the label maps that score maps make; `ids` are the values of these maps."""
    total, value = np.zeros((values, CLASSES), np.int64), np.asarray(ids)
    for i in frames:
        truth = split.labels[i]
        found = value[assign.labels(np.ascontiguousarray(maps(split.codes[i])), truth.shape, split.box)]
        total += metrics.confusion(found, truth, values, CLASSES)
    return total


def classifier_of(bundle: Bundle, examples: list[Example], owners: Array | None = None) -> Classifier:
    """Classes of these examples; `owners` int [K]: of which class each cluster is said to be."""
    own = [() if owners is None else tuple(np.flatnonzero(owners == name).tolist()) for name in range(CLASSES)]
    classes = [Taught(name, clusters) for name, clusters in enumerate(own)]
    fractions = [one.fraction for one in bundle.manifest.clusters]
    found = Classifier.fit(bundle.centroids, classes, examples, fractions)
    assert found is not None
    return found


def taught(
    bundle: Bundle, split: Split, frames: Array, examples: list[Example], owners: Array | None = None
) -> metrics.Scores:
    """How well classes of these examples fit."""
    network, classifier = scored_by(bundle), classifier_of(bundle, examples, owners)

    def maps(code: Array) -> Array:
        return classifier.scores(code, network(code) if owners is not None else code)

    return metrics.score(counted(split, frames, maps, classifier.ids.tolist(), CLASSES), np.arange(CLASSES))


def beside_clusters(bundle: Bundle, split: Split, frames: Array, examples: list[Example]) -> Array:
    """Of the class of these examples where every cluster is a class of its own: pixels that are it and are found,
    that are found, that are it, and all; int64 [4]."""
    name, network, total = examples[0].class_id, scored_by(bundle), np.zeros(4, np.int64)
    count = len(bundle.manifest.clusters)
    classes = [Taught(k, (k,)) for k in range(count)] + [Taught(count)]
    fractions = [one.fraction for one in bundle.manifest.clusters]
    told = [one._replace(class_id=count) for one in examples]
    classifier = Classifier.fit(bundle.centroids, classes, told, fractions)
    assert classifier is not None
    for i in frames:
        code, truth = np.asarray(split.codes[i]), split.labels[i]
        scores = np.ascontiguousarray(classifier.scores(code, network(code)))
        found = classifier.ids[assign.labels(scores, truth.shape, split.box)] == count
        known, own = truth < CLASSES, truth == name
        total += [(found & own).sum(), (found & known).sum(), own.sum(), known.sum()]
    return total


def told_beside_clusters(name: str, draws: Sequence[Sequence[tuple[int, Array]]]) -> dict[str, Any]:
    """Prints what a class beside the clusters is worth, and gives it for JSON.

    draws  of each, for every class and drive that shows it, its number and what `beside_clusters` gives
    """
    of = np.array([[_shares(counts) for _, counts in draw] for draw in draws])  # draws × (classes and drives) × 4
    found: dict[str, Any] = {}
    for what, values in zip(("iou", "precision", "recall", "taken from others"), of.mean(axis=1).T, strict=True):
        found[what] = {"mean": round(float(values.mean()), 4), "draws": [round(float(one), 4) for one in values]}
    low, high = min(found["iou"]["draws"]), max(found["iou"]["draws"])
    print(
        f"  {name:12}" + "   ".join(f"{one['mean']:.3f}" for one in found.values()) + f"   IoU [{low:.3f}–{high:.3f}]"
    )
    names, means = np.array([number for number, _ in draws[0]]), of.mean(axis=0)
    for what, column in (("iou by class", 0), ("taken by class", 3)):
        found[what] = {CLASS_NAMES[n]: round(float(means[names == n, column].mean()), 3) for n in np.unique(names)}
    return found


def _shares(counts: Array) -> tuple[float, float, float, float]:
    hit, found, own, known = (float(one) for one in counts)
    return hit / (found + own - hit), hit / max(found, 1), hit / own, (found - hit) / known


def clusters(bundle: Bundle, split: Split, frames: Array) -> Array:
    """What each cluster shows: confusion int64 [K, N]."""
    count = len(bundle.manifest.clusters)
    return counted(split, frames, scored_by(bundle), range(count), count)


def scored_by(bundle: Bundle) -> Maps:
    """The network's own scores."""
    return lambda code: np.asarray(np.tensordot(bundle.centroids, code, 1))


def probe(train: Split) -> linear_probe.LinearProbe:
    """A linear layer that learned from every label of train."""

    def lesson(i: int) -> Lesson:
        return Lesson(np.array(train.codes[i]), train.labels[i], train.box)

    print("the linear probe learns from train", file=sys.stderr, flush=True)
    quiet, cpu = Console(quiet=True), torch.device("cpu")
    return linear_probe.train(lesson, len(train.codes), CLASSES, steps=_STEPS, seed=0, device=cpu, console=quiet)


def found_first(bundle: Bundle, train: Split, data: Path, counts: Sequence[int], draws: int, by: str) -> dict[str, Any]:
    """What `--found` says: the rows of val and of the drives left out."""
    everything, drives = np.arange(len(train.codes)), sorted(set(train.drives))
    places = {
        "left-out drives": [(train, everything[train.drives != d], everything[train.drives == d]) for d in drives]
    }
    if (val := opened(bundle, data, "val")) is not None:
        places = {"val": [(val, everything, np.arange(len(val.codes)))], **places}
    results: dict[str, Any] = {}
    for where, parts in places.items():
        parts = [(split, others, own[::_EVERY]) for split, others, own in parts]
        print(
            f"{where}: one class of clicks beside the clusters; IoU, precision, recall, taken from others", flush=True
        )
        rows = results[where] = {}
        for count in counts:
            beside = [
                [
                    (name, beside_clusters(bundle, split, own, examples))
                    for split, others, own in parts
                    for name in range(CLASSES)
                    if split.pixels[own, name].any() and (examples := clicks(train, others, count, draw, by, [name]))
                ]
                for draw in range(draws)
            ]
            rows[f"clicks {count}"] = told_beside_clusters(f"{count} click{'s' * (count > 1)}", beside)
        print(f"{where}: all clusters are of classes, {_SOME} of these have clicks; mIoU, accuracy", flush=True)
        owners = [clusters(bundle, train, others[::_EVERY]).argmax(axis=1) for _, others, _ in parts]
        for count in counts:
            scores = []
            for draw in range(draws):
                names = np.random.default_rng(draw).permutation(CLASSES)[:_SOME].tolist()
                told_of = [clicks(train, others, count, draw, by, names) for _, others, _ in parts]
                scores.append(
                    [
                        taught(bundle, split, own, of, owner)
                        for (split, _, own), of, owner in zip(parts, told_of, owners, strict=True)
                    ]
                )
            rows[f"clicks {count}, some"] = told(f"{count} click{'s' * (count > 1)}", scores)
    return results


def told(name: str, scores: Sequence[Sequence[metrics.Scores]]) -> dict[str, Any]:
    """Prints mIoU and accuracy of draws, each the mean of what it was scored on, and gives them for JSON."""
    found: dict[str, Any] = {}
    words = []
    for what in ("miou", "accuracy"):
        of = [float(np.mean([getattr(one, what) for one in draw])) for draw in scores]
        found[what] = {"mean": round(float(np.mean(of)), 4), "draws": [round(one, 4) for one in of]}
        words.append(f"{np.mean(of):.3f}" + (f" [{min(of):.3f}–{max(of):.3f}]" if len(of) > 1 else " " * 14))
    iou = np.nanmean([[one.iou for one in draw] for draw in scores], axis=(0, 1))
    found["iou"] = {n: round(float(v), 3) for n, v in zip(CLASS_NAMES, iou, strict=True)}
    print(f"  {name:24} {words[0]}   {words[1]}", flush=True)
    return found


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: the embedded one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--clicks", default="1,3,5,10,20,50")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--by", choices=("pixel", "image"), default="pixel")
    parser.add_argument("--no-probe", action="store_true")
    parser.add_argument("--more", action="store_true", help="where to click next: 55 more clicks beside five a class")
    parser.add_argument("--found", action="store_true", help="one class of clicks beside the clusters")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle or embedded()[0])
    train = opened(bundle, given.data, "train")
    if train is None:
        sys.exit(f"{given.data}/labels/train is not there: clicks are drawn among labels")
    counts = [int(one) for one in given.clicks.split(",")]
    variant = "".join(
        f"-{one}" for one in (given.by, "more" * given.more, "found" * given.found) if one not in ("pixel", "")
    )
    if given.found:
        written(bundle, given, variant, found_first(bundle, train, given.data, counts, given.draws, given.by))
        return
    everything = np.arange(len(train.codes))
    results: dict[str, Any] = {}
    owners = clusters(bundle, train, everything).argmax(axis=1)
    learned: linear_probe.LinearProbe | None = None
    for name in ("val", "test"):
        if (split := opened(bundle, given.data, name)) is None:
            continue
        frames = np.arange(len(split.codes))
        print(f"{name}: {len(frames)} frames, clicks of {len(everything)} frames of train; mIoU, accuracy")
        rows = {"unsupervised": told("unsupervised match", [[metrics.score(clusters(bundle, split, frames))]])}
        for count in counts:
            scores = [
                [taught(bundle, split, frames, clicks(train, everything, count, draw, given.by))]
                for draw in range(given.draws)
            ]
            rows[f"clicks {count}"] = told(f"{count} click{'s' * (count > 1)} a class", scores)
        scores = [
            [taught(bundle, split, frames, clicks(train, everything, _BESIDE, draw, given.by), owners)]
            for draw in range(given.draws)
        ]
        rows[f"clicks {_BESIDE}, clusters"] = told(f"{_BESIDE}, and clusters", scores)
        for how in _MORE if given.more else ():
            scores = []
            for draw in range(given.draws):
                few = clicks(train, everything, 5, draw, given.by)
                examples = more_clicks(bundle, train, few, classifier_of(bundle, few), how, draw)
                scores.append([taught(bundle, split, frames, examples)])
            rows[f"clicks 5, {how}"] = told(f"5, and {5 * CLASSES} {how}", scores)
        if not given.no_probe:
            learned = learned or probe(train)
            counted_by_probe = counted(split, frames, learned.logits, range(CLASSES), CLASSES)
            rows["linear probe"] = told("linear probe", [[metrics.score(counted_by_probe, np.arange(CLASSES))]])
        results[name] = rows
    parts = [(everything[train.drives != one], everything[train.drives == one]) for one in sorted(set(train.drives))]
    print(f"train, one of {len(parts)} drives left out, clicks of the others: mean of the drives")
    shown = [clusters(bundle, train, own) for _, own in parts]
    rows = {"unsupervised": told("unsupervised match", [[metrics.score(one) for one in shown]])}
    for count in counts:
        scores = [
            [taught(bundle, train, own, clicks(train, others, count, draw, given.by)) for others, own in parts]
            for draw in range(given.draws)
        ]
        rows[f"clicks {count}"] = told(f"{count} click{'s' * (count > 1)} a class", scores)
    scores = [
        [
            taught(
                bundle, train, own, clicks(train, others, _BESIDE, draw, given.by), (sum(shown) - one).argmax(axis=1)
            )
            for (others, own), one in zip(parts, shown, strict=True)
        ]
        for draw in range(given.draws)
    ]
    rows[f"clicks {_BESIDE}, clusters"] = told(f"{_BESIDE}, and clusters", scores)
    results["left-out drives"] = rows
    written(bundle, given, variant, results)


def written(bundle: Bundle, given: argparse.Namespace, variant: str, results: dict[str, Any]) -> None:
    """To benchmarks/results."""
    file = load.RESULTS / f"teach{variant}.json"
    what = {
        "what": "python -m benchmarks.teach" + "".join(f" {one}" for one in sys.argv[1:]),
        "bundle": bundle.ref, "draws": given.draws, "clicks drawn by": given.by, "machine": machine.describe(),
    }  # fmt: skip
    load.RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps({**what, "results": results}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
