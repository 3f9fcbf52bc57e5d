"""Makes the pictures of the docs with the program itself: python -m docs.pictures

A street drawn by `training/data/synthetic.py` (no photo stands in this repository) beside what the embedded default
makes of it, and beside that the clusters it names, largest first.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models import palette
from models.bundle import Bundle
from models.inference import segment
from models.io.encode import encode
from service.engines import open_engine
from service.settings import Settings, embedded
from training.data.synthetic import street

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Writes docs/street.jpg, a photo to try the service with, and docs/street.webp, the README's picture."""
    bundle = Bundle.load(embedded()[0])
    photo = street((360, 480), seed=0)
    (HERE / "street.jpg").write_bytes(encode(photo, "jpeg"))
    labels = segment(bundle, open_engine(bundle, Settings(engine="onnxruntime")), photo)
    over = palette.overlay(photo, labels, bundle.colors, 0.6)
    legend = _legend(bundle, labels, len(photo))
    (HERE / "street.webp").write_bytes(encode(np.hstack([photo, over, legend]), "webp"))


def _legend(bundle: Bundle, labels: np.ndarray, height: int) -> np.ndarray:
    shares = np.bincount(labels.ravel(), minlength=len(bundle.manifest.clusters)) / labels.size
    page = Image.new("RGB", (190, height), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(15)
    for row, cluster in enumerate(np.argsort(-shares)[: height // 30 - 1]):
        top = 14 + 30 * row
        draw.rectangle([16, top, 36, top + 20], fill=tuple(int(v) for v in bundle.colors[cluster]))
        name = bundle.manifest.clusters[cluster].name
        draw.text((46, top + 1), f"{name}  {shares[cluster]:.0%}", fill="black", font=font)
    return np.asarray(page)


if __name__ == "__main__":
    main()
