"""What clustering reaches without a method: k-means of pixels, of regions, of a backbone's features.

Knows nothing of labels, bundles or training runs. A baseline is fitted on images and answers with a
function from an image, RGB uint8 [H, W, 3], to its clusters, uint8 [H, W].
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor, nn

from models import assign
from models.nets.build import build
from models.nets.encoder import Encoder
from models.preprocess import InputSpec, fit
from models.types import Array
from training.clustering.kmeans import kmeans, nearest
from training.data.regions import cover, equalize, segment, smallest

Labeler = Callable[[Array], Array]

_PIXELS = 2000  # of an image, for k-means; 500 000 points of 266 frames
_CELLS = 1500
_SIZE = (240, 320)  # regions are cut at this size
_SCALE = 250.0


def pixels(images: Iterable[Array], k: int, seed: int) -> Labeler:
    """k-means of every pixel's color (CIELAB) and place, each column scaled to variance 1."""
    rng = np.random.default_rng(seed)
    drawn = []
    for image in images:
        columns = _pixel_columns(image).reshape(-1, 5)
        drawn.append(columns[rng.integers(0, len(columns), _PIXELS)])
    answer = _fitted(np.concatenate(drawn), k, seed)

    def label(image: Array) -> Array:
        return answer(_pixel_columns(image).reshape(-1, 5)).reshape(image.shape[:2])

    return label


def regions(images: Iterable[Array], k: int, seed: int) -> Labeler:
    """k-means of Felzenszwalb regions, each with the same weight: mean and spread of color, and place."""
    answer = _fitted(np.concatenate([_region_columns(image)[0] for image in images]), k, seed)

    def label(image: Array) -> Array:
        columns, ids = _region_columns(image)
        small = answer(columns)[ids]
        rows = ((np.arange(image.shape[0]) + 0.5) * small.shape[0] / image.shape[0]).astype(int)
        across = ((np.arange(image.shape[1]) + 0.5) * small.shape[1] / image.shape[1]).astype(int)
        found: Array = small[rows][:, across]
        return found

    return label


def features(images: Iterable[Array], k: int, seed: int, *, name: str, weights: str | Path) -> Labeler:
    """Cosine k-means of the cells of a backbone's map; labels as the service makes them.

    weights  a file, or "random"
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        neck = 128 if str(weights) == "random" else 0  # a pretrained file brings its own
        backbone = build(name, weights, levels=3, neck=neck)
    encoder = Encoder(backbone, nn.Identity()).eval()
    spec = InputSpec(size=(240, 240), multiple=16, max_side_px=960)

    def maps(image: Array) -> Tensor:
        with torch.inference_mode():
            found: Tensor = encoder(torch.tensor(fit(image, spec).pixels)[None])[0]
        return found

    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for image in images:
        cells = maps(image).flatten(1).T
        drawn.append(cells[torch.randperm(len(cells), generator=generator)[:_CELLS]])
    centroids, _ = kmeans(torch.cat(drawn), k, seed=seed)

    def label(image: Array) -> Array:
        scores = torch.einsum("kd,dhw->khw", centroids, maps(image)).numpy()
        return assign.labels(scores, (image.shape[0], image.shape[1]))

    return label


def _fitted(points: Array, k: int, seed: int) -> Callable[[Array], Array]:
    """Euclidean k-means of columns scaled to variance 1."""
    middle, spread = points.mean(0), points.std(0).clip(1e-6)

    def scaled(values: Array) -> Tensor:
        return torch.from_numpy(((values - middle) / spread).astype(np.float32))

    centroids, _ = kmeans(scaled(points), k, seed=seed, metric="euclidean")
    return lambda values: nearest(scaled(values), centroids)[1].numpy().astype(np.uint8)


def _place(height: int, width: int) -> Array:
    """(row, column), each 0..1: float64 [H, W, 2]."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(rows + 0.5) / height, (columns + 0.5) / width], axis=-1)


def _pixel_columns(image: Array) -> Array:
    return np.concatenate([rgb2lab(image), _place(*image.shape[:2])], axis=-1)


def _region_columns(image: Array) -> tuple[Array, Array]:
    """Columns [R, 8] of every region, and the region of every pixel uint16 [240, 320]."""
    small = cover(image, _SIZE)
    ids = segment(equalize(small, 0.01), scale=_SCALE, min_size_px=smallest(_SCALE))
    flat, count = ids.ravel(), int(ids.max()) + 1
    area = np.bincount(flat, minlength=count).clip(1)

    def mean(values: Array) -> Array:
        return np.stack(
            [
                np.bincount(flat, weights=values[..., i].ravel(), minlength=count) / area
                for i in range(values.shape[-1])
            ],
            axis=-1,
        )

    color = rgb2lab(small)
    average = mean(color)
    spread = np.sqrt((mean(color**2) - average**2).clip(0))
    return np.concatenate([average, spread, mean(_place(*_SIZE))], axis=1), ids
