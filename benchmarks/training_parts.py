"""What the parts of training cost: a step of STEGO's head beside one that computes its features, and cutting regions.

    python -m benchmarks.training_parts                  both
    python -m benchmarks.training_parts --only step      STEGO: batch 32, ViT-S/8, crops of 224 pixels
    python -m benchmarks.training_parts --only regions   compiled beside scikit-image, photos of ../shared/data

Weights and features are random: what is computed does not depend on their values. Seconds are of one core.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console

from models.native import bindings
from training import methods
from training.config import precision, recipe
from training.config.run import Run
from training.data import datasets
from training.data.images import evenly, read_image
from training.data.regions import RegionOptions, cover, equalize, segment_at, smallest
from training.features.store import Features
from training.methods.stego import Stego, StegoConfig

_BATCH, _SIZE, _AT_ONCE, _PHOTOS = 32, 224, 8, 12


def seconds(work: Callable[[], object], times: int) -> float:
    """Median over some times, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def step(asked: recipe.Precision) -> tuple[float, float]:
    """Seconds of a step on features that are kept, and of computing the features of its 64 crops."""
    settled = recipe.parse(
        {"backbone": {"name": "vit_small_patch8_224.dino", "weights": "random"}, "compute": {"precision": asked}},
        config_of=methods.config,
        overrides=[f"stego.batch_size={_BATCH}"],
    )
    with tempfile.TemporaryDirectory() as folder:
        images = datasets.open("folder", drawn(Path(folder) / "photos"), split="train", console=Console(quiet=True))
        run = Run(settled, images, Path(folder), torch.device("cpu"), Console(quiet=True))
        method = Stego(StegoConfig.model_validate(settled.options), run)
    backbone, rng = method.network.backbone, np.random.default_rng(0)
    side, crops = _SIZE // backbone.stride, 2 * _BATCH
    maps = rng.normal(size=(crops, backbone.channels, side, side)).astype(np.float16)
    method.features = Features(maps, (np.arange(crops)[:, None] + np.arange(31)) % crops)
    (stage,) = method.stages()
    optimizer = stage.optimizer(list(stage.groups))
    batch = next(iter(stage.batches(0)))

    def train() -> None:
        total = torch.stack([v for name, v in stage.loss(batch).items() if not name.startswith("log/")]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    pixels = torch.randn(_AT_ONCE, 3, _SIZE, _SIZE)

    def features() -> None:
        with torch.inference_mode(), precision.autocast(asked, run.device):
            backbone(pixels)

    return seconds(train, 3), seconds(features, 1) * crops / _AT_ONCE


def drawn(folder: Path) -> Path:
    """A few drawn images: a run wants some."""
    from PIL import Image

    from training.data.synthetic import street

    folder.mkdir()
    for i in range(4):
        Image.fromarray(street()).save(folder / f"{i}.png")
    return folder


def regions(photos: Path) -> tuple[float, float, float]:
    """Seconds to equalize and cut a photo at three scales: compiled, by scikit-image; share of pixels of equal ids."""
    options = RegionOptions()
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [cover(read_image(paths[i]).image, options.size) for i in evenly(len(paths), _PHOTOS)]

    def cut() -> list[np.ndarray]:
        least = [smallest(scale) for scale in options.scales]
        even = [equalize(image, options.contrast) for image in images]
        return [segment_at(one, scales=options.scales, min_sizes_px=least, sigma=options.sigma) for one in even]

    compiled, ours = seconds(cut, 3) / len(images), cut()
    with patch.object(bindings, "_library", return_value=None):
        return compiled, seconds(cut, 1) / len(images), float((np.stack(ours) == np.stack(cut())).mean())


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("step", "regions"))
    parser.add_argument("--photos", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "regions":
        for asked in ("float32", "bfloat16"):
            head, backbone = step(asked)
            print(
                f"STEGO, {asked}: a step {head:.2f} s, its features {backbone:.1f} s: 1/{(head + backbone) / head:.0f}"
            )
    if given.only != "step":
        compiled, plain, equal = regions(given.photos)
        print(
            f"regions: {1000 * compiled:.0f} ms a photo, scikit-image {1000 * plain:.0f} ms; {equal:.2%} of ids equal"
        )


if __name__ == "__main__":
    main()
