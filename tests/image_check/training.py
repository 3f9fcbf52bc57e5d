"""What the training's container is asked: its help, and a run on a few drawn streets.

Knows nothing of how it was built or how it is run.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from models.bundle import Bundle
from tests.image_check import container
from tests.image_check.image import Image

ROOT = Path(__file__).parents[2]


def training(image: Image, work: Path) -> Iterator[str]:
    """A line for each thing that was seen."""
    volumes = {
        "/data": container.volume(work / "data", image),
        "/runs": container.volume(work / "runs", image),
        "/var/lib/tessera": container.volume(work / "home", image),
    }
    said = container.output(image, work, ["--help"], volumes)
    assert "--data" in said, said
    yield "training/train.py --help"
    photos = volumes["/data"] / "photos"
    subprocess.run(
        [sys.executable, "-m", "training.data.synthetic", photos],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    small = ("clusters.k=6", "picie.epochs=1", "input.train_size=96", "input.size=128")
    command = ["--data", "/data/photos", "--out", "/runs/x", "--method", "picie"]
    container.output(image, work, [*command, *(part for one in small for part in ("--set", one))], volumes)
    bundle = Bundle.load(volumes["/runs"] / "x" / "bundle")
    yield f"a run on {len([*photos.iterdir()])} drawn streets left a bundle of {len(bundle.manifest.clusters)} clusters"
