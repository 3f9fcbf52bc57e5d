"""Scenes and probabilities drawn for the tests of the CRF, in each of its ways."""

from __future__ import annotations

import numpy as np
from PIL import Image


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
