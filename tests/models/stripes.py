"""A bundle of three stripes whose labels are known by hand, and a network for it."""

from typing import Any

import numpy as np

from models.bundle import Golden
from models.inference import Prediction
from models.manifest import Cluster, CodeSpec, Merge, Provenance
from models.preprocess import InputSpec

K, D, STRIDE = 3, 3, 4
CENTROIDS = np.eye(K, dtype=np.float32)


class Patches:
    """An encoder whose code is each 4×4 patch's mean color: labels are known by hand."""

    def __call__(self, pixels: np.ndarray, *, code: bool = False) -> Prediction:
        b, h, w, _ = pixels.shape
        means = pixels.reshape(b, h // STRIDE, STRIDE, w // STRIDE, STRIDE, 3).mean(axis=(2, 4))
        means = means.transpose(0, 3, 1, 2).astype(np.float32) / 255
        return Prediction(np.einsum("kd,bdhw->bkhw", CENTROIDS, means), means if code else None)


def thirds() -> Golden:
    """Red, green and blue stripes, and their clusters."""
    labels = np.repeat(np.arange(3, dtype=np.uint8), 16)[None].repeat(32, axis=0)
    return Golden((CENTROIDS * 255).astype(np.uint8)[labels], labels)


def parts(**changed: Any) -> dict[str, Any]:
    """What bundle.save is given."""
    sha = "0" * 64
    given: dict[str, Any] = {
        "name": "stripes",
        "method": "none",
        "input": InputSpec(size=(32, 32), multiple=STRIDE),
        "code": CodeSpec(dim=D, stride=STRIDE, assignment="cosine", temperature=2.0),
        "clusters": [Cluster(name=f"c{i}", color=f"#00000{i}", fraction=1 / 3) for i in range(K)],
        "hierarchy": [Merge(k=2, merge=(0, 1), into=0, height=0.5)],
        "provenance": Provenance(
            tessera="0.1.0", created="2026-01-01T00:00:00Z", recipe={}, recipe_sha256=sha, seed=0, images=1,
            data="drawn", data_sha256=sha, licence="none",
        ),
        "encoder_onnx": b"not run here",
        "centroids": CENTROIDS,
        "golden": thirds(),
        "exemplars": {0: [b"webp"], 2: [b"webp", b"webp"]},
        "report": {"miou": None},
        "notice": "drawn by a program",
    }  # fmt: skip
    return given | changed
