"""How many photos of other kinds fall below the familiarity threshold, and how many of the same kind do.

    python -m benchmarks.familiarity [BUNDLE] [--data ../shared/data/camvid] [--others ../shared/data/photos]

The threshold is the report's: 2 % of the photos it is taken from, frames of CamVid's train, have a smaller mean
margin. Of CamVid's val and of the other folder it is told how many have. Photos are drawn evenly, no label is read.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from models import assign
from models.bundle import Bundle
from models.preprocess import fit
from models.types import Array
from service.settings import embedded
from training.data import datasets
from training.data.images import Images, evenly
from training.evaluation.exported import Exported
from training.export.photo_stats import PhotoStats


def confidence(bundle: Bundle, network: Exported, images: Images, most: int) -> Array:
    """The mean margin of every photo, as a service answers it: float32 [n]."""
    found, how = [], bundle.manifest.code.assignment
    for i in evenly(len(images), most):
        said = network(fit(images[i], bundle.manifest.input).pixels[None], code=True)
        if said.code is not None:
            found.append(assign.margin(said.scores[0], said.code[0], said.scores.shape[2:], assignment=how).mean())
    return np.array(found, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", nargs="?", type=Path, default=embedded()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--others", type=Path, default=Path("../shared/data/photos"))
    parser.add_argument("--most", type=int, default=60, help="photos of each")
    asked = parser.parse_args()
    bundle, quiet = Bundle.load(asked.bundle), Console(quiet=True)
    network = Exported(bundle.encoder_bytes())
    train, val = (datasets.open("camvid", asked.data, split=split, console=quiet) for split in ("train", "val"))
    others = datasets.open("folder", asked.others, console=quiet)
    known = confidence(bundle, network, train, asked.most)
    blank = np.zeros((len(known), 1))
    stats = PhotoStats(np.arange(len(known)), blank, known, np.zeros((len(known), 16, 16, 3), np.uint8))
    threshold = stats.familiarity["threshold"]
    print(f"{bundle.ref}: threshold {threshold:.3f} from {len(known)} frames of train, their mean {known.mean():.3f}")
    for name, images in (("val", val), (asked.others.name, others)):
        found = confidence(bundle, network, images, asked.most)
        below = (found < threshold).mean()
        print(f"{name:8} {len(found)} photos: mean {found.mean():.3f}, below the threshold {below:.1%}")


if __name__ == "__main__":
    main()
