"""A folder of drawn pictures to try the training on, without photos:

    python -m training.data.synthetic runs/demo/photos
    python -m training.data.synthetic runs/tissue/photos 80 --kind tissue --labels runs/tissue/labels

Knows nothing of what is drawn.
"""

import argparse
from pathlib import Path

from PIL import Image

from training.data.synthetic import class_names, draw, kinds

_SIZE = (240, 320)


def main() -> None:
    """A folder of drawn pictures to try the training on."""
    parser = argparse.ArgumentParser(prog="python -m training.data.synthetic", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where they are drawn; it is made where it is not there")
    parser.add_argument("count", type=int, nargs="?", default=24, help="default: %(default)s")
    parser.add_argument("--kind", choices=kinds(), default="streets", help="what they show; default: %(default)s")
    parser.add_argument("--labels", type=Path, help="where the class of every pixel is written, a PNG for each picture")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.labels:
        given.labels.mkdir(parents=True, exist_ok=True)
        print(", ".join(f"{value} {name}" for value, name in enumerate(class_names(given.kind))))
    for seed in range(given.count):
        image, labels = draw(given.kind, _SIZE, seed)
        Image.fromarray(image).save(given.folder / f"{seed:03d}.jpg", quality=92)
        if given.labels:
            Image.fromarray(labels).save(given.labels / f"{seed:03d}.png")


if __name__ == "__main__":
    main()
