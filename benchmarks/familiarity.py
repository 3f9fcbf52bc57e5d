"""How well familiarity tells street frames from other photos, and how many of each kind lie below the threshold.

    python -m benchmarks.familiarity [BUNDLE] [--data ../shared/data/camvid] [--others ../shared/data/photos]

Of CamVid's test against the photos of the other folder, the ROC-AUC of what a service answers as `familiarity` (ties
count half), and beside it that of the mean margin alone. Then how many frames of test are below the threshold once
they are altered: cut, turned, darkened. Quantiles and threshold are the bundle's; of a bundle without them they are
taken from CamVid's train first. No label is read.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from models import assign, familiarity
from models.bundle import Bundle
from models.io.samples import Decoded
from models.preprocess import fit
from models.types import Array
from service.settings import embedded
from training.data import datasets, validity
from training.data.images import Images, evenly
from training.evaluation.exported import Exported
from training.export.photo_stats import familiarity_of

Altered = Callable[[Array], Array]  # RGB uint8 [H, W, 3]

_SPLITS = ("train", "val", "test")
_ALTERED_FRAMES = 60
_ALTERATIONS: dict[str, Altered] = {
    "left half": lambda image: image[:, : image.shape[1] // 2],
    "middle quarter": lambda image: image[
        image.shape[0] // 4 : -image.shape[0] // 4, image.shape[1] // 4 : -image.shape[1] // 4
    ],
    "gray": lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
    "three tenths of the light": lambda image: (image * 0.3).astype(np.uint8),
    "a quarter turn": lambda image: np.rot90(image),
    "upside down": lambda image: image[::-1],
}


class Measured(NamedTuple):
    """Of every image, as a service takes it: float64 [n] each.

    sureness  of `models.familiarity`;  margin  the mean margin of its cells
    """

    sureness: Array
    margin: Array


def measure(bundle: Bundle, network: Exported, images: Images, most: int, altered: Altered | None = None) -> Measured:
    """One pass of the bundle's network over at most `most` images, drawn evenly.

    altered  what is done with each before, where all of its pixels hold data
    """
    fractions, how, found = [c.fraction for c in bundle.manifest.clusters], bundle.manifest.code, []
    for place in evenly(len(images), most):
        decoded = images.load(place)
        if altered is not None:
            decoded = Decoded(np.ascontiguousarray(altered(decoded.image)))
        one = fit(decoded.image, bundle.manifest.input, decoded.size)
        said = network(one.pixels[None], code=True)
        scores, code = said.scores[0], None if said.code is None else said.code[0]
        tally = familiarity.tally(
            scores, code, validity.cells(decoded.valid, assign.cells(scores.shape[1:], one.box)),
            assignment=how.assignment, box=one.box, interpolation=how.interpolation,
        )  # fmt: skip
        found.append((tally.sureness(fractions) or 0.0, tally.mean_margin(len(fractions)) or 0.0))
    return Measured(*np.array(found).T)


def roc_auc(known: Array, others: Array) -> float:
    """The chance that one of `known` [n] is larger than one of `others` [m]; of equal ones half."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, known, "left") + np.searchsorted(ranked, known, "right")
    return float(below.mean() / (2 * len(others)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", nargs="?", type=Path, default=embedded()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--others", type=Path, default=Path("../shared/data/photos"))
    parser.add_argument("--most", type=int, default=10_000, help="photos of each, drawn evenly")
    asked = parser.parse_args()
    bundle, quiet = Bundle.load(asked.bundle), Console(quiet=True)
    network = Exported(bundle.encoder_bytes())
    folders = {split: datasets.open("camvid", asked.data, split=split, console=quiet) for split in _SPLITS}
    folders[asked.others.name] = datasets.open("folder", asked.others, console=quiet)
    sure = {name: measure(bundle, network, images, asked.most) for name, images in folders.items()}
    known = bundle.manifest.familiarity or familiarity_of(sure["train"].sureness)
    said = {name: np.array([known.of(value) for value in found.sureness]) for name, found in sure.items()}
    whose = "its own" if bundle.manifest.familiarity else "train's"
    print(f"{bundle.ref}: {whose} quantiles, threshold {known.threshold:.3f}")
    for name, found in sure.items():
        below = (found.sureness < known.threshold).mean()
        print(
            f"{name:8} {len(found.sureness):5} photos: mean margin {found.margin.mean():.3f},"
            f" sureness {found.sureness.mean():.3f}, familiarity {said[name].mean():.3f}, below {below:.1%}"
        )
    test, other = "test", asked.others.name
    print(f"ROC-AUC of test against {other}: familiarity {roc_auc(said[test], said[other]):.4f},", end=" ")
    print(f"mean margin {roc_auc(sure[test].margin, sure[other].margin):.4f}")
    for name, altered in _ALTERATIONS.items():
        found = measure(bundle, network, folders[test], min(asked.most, _ALTERED_FRAMES), altered)
        print(f"{len(found.sureness)} frames of test, {name}: below {(found.sureness < known.threshold).mean():.1%}")


if __name__ == "__main__":
    main()
