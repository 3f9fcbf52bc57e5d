"""A finished bundle as a teacher: what its network makes of an image, as probabilities and as labels.

Knows nothing of students, nor of how the bundle was made. A bundle's network is an ONNX file, and is run as one: a
teacher of the run's own and one from elsewhere are asked in the same way.
"""

import hashlib
import json
from dataclasses import dataclass

import torch

from models import assign
from models.bundle import Bundle
from models.inference import Prediction, Predictor
from models.preprocess import Fit, fit
from models.types import Array
from training.evaluation.exported import Device, Exported


@dataclass(frozen=True)
class Teacher:
    """A bundle and its network."""

    bundle: Bundle
    predict: Predictor

    @classmethod
    def of(cls, bundle: Bundle, device: torch.device) -> "Teacher":
        """The teacher that a bundle is, on the GPU where training runs on one and onnxruntime can."""
        where: Device = "auto" if device.type == "cuda" else "cpu"
        return cls(bundle, Exported(bundle.encoder_bytes(), device=where, threads=torch.get_num_threads()))

    @property
    def k(self) -> int:
        """Its clusters."""
        return len(self.bundle.manifest.clusters)

    @property
    def identity(self) -> str:
        """What decides its answers, as a digest: another name or date of the bundle does not change it."""
        manifest = self.bundle.manifest
        facts = [manifest.files["encoder.onnx"], manifest.code.model_dump(), manifest.input.model_dump()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def answer(self, image: Array) -> tuple[Fit, Prediction]:
        """What it says of one image RGB uint8 [H, W, 3], and how it saw it."""
        seen = fit(image, self.bundle.manifest.input)
        return seen, self.predict(seen.pixels[None], code=True)

    def soft(self, seen: Fit, answer: Prediction, grid: tuple[int, int], sharpness: float) -> Array:
        """softmax over clusters of sharpness × similarity, at any size: float32 [K, h, w]."""
        code = self.bundle.manifest.code
        assert answer.code is not None  # it was asked for
        return assign.probabilities(
            answer.scores[0], answer.code[0], grid, temperature=sharpness, assignment=code.assignment, box=seen.box,
            interpolation=code.interpolation,
        )  # fmt: skip
