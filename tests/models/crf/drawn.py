"""Scenes and probabilities for the tests of the CRF, in each of its ways: drawn ones, and STEGO's own case."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PUBLISHED = Path(__file__).parents[2] / "golden" / "data" / "stego_dense_crf.npz"


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=0))
    return (e / e.sum(axis=0)).astype(np.float32)


def unary(kind: str, k: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random probabilities [K, H, W] with the look of a network's: blobs, upsampled from a small grid."""
    cells, spread = {"smooth": (12, 1.0), "peaked": (40, 6.0), "flat": (12, 0.5)}[kind]
    coarse = np.random.default_rng(seed).standard_normal((k, cells, cells)).astype(np.float32) * spread
    if kind == "flat":  # softmax(2 · cosine): no label ever above e^4 times another
        coarse = 2 * np.tanh(coarse)
    return softmax(np.stack([np.array(Image.fromarray(c).resize((width, height), 2)) for c in coarse]))


def scene(height: int = 48, width: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disk on a ground, both slightly noisy: image, true labels, and a unary that is wrong at one pixel in five."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    truth = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2).astype(np.uint8)
    color = np.array([[200, 60, 40], [40, 90, 180]], np.int64)[truth] + rng.integers(-2, 3, (height, width, 3))
    seen = truth ^ (rng.random(truth.shape) < 0.2)
    return color.astype(np.uint8), truth, np.stack([0.7 - 0.4 * seen, 0.3 + 0.4 * seen]).astype(np.float32)


def published() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, unary, and the marginals of STEGO's own code; the file has the image normalized, logits on a grid."""
    torch = pytest.importorskip("torch")
    case = np.load(PUBLISHED, allow_pickle=False)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    colors = case["image"].transpose(1, 2, 0) * std.astype(np.float32) + mean.astype(np.float32)
    image = (colors * 255).astype(np.uint8)
    logits = torch.nn.functional.interpolate(torch.tensor(case["logits"])[None], image.shape[:2], mode="bilinear")
    return image, torch.softmax(logits[0], dim=0).numpy(), case["Q"]
