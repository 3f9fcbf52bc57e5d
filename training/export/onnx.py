"""A trained encoder and its centroids as one ONNX file, held against torch.

Knows nothing of methods or of how the network was trained. The classic exporter is used because the graph it
writes is the same on every run, holds no path of this machine, and keeps batch, height and width free
wherever the backbone takes any size (tests/training/export/test_onnx_families.py tries them).

Inside the graph three values have names that measuring can rely on (training/evaluation/exported.py); none is an
output:

    features    float32 [B, C, h, w]   the backbone's answer; its coarsest map where the head takes a pyramid
    code_once   float32 [B, D, h, w]   the head's answer, before it is averaged with the mirrored image's
    code_mean   float32 [B, D, h, w]   after it; where nothing follows the averaging, this is `code` itself

The last two are there only where the encoder averages.
"""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import checker, load_from_string
from torch import Tensor, nn
from torch.nn import functional as F

from models import assign, onnx_rules
from models.errors import TesseraError
from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.heads import FPNHead
from models.preprocess import InputSpec, fit
from models.types import Array
from training.evaluation.exported import Exported

OPSET = 17
AGREEMENT = 0.999  # of the labels, ONNX against torch


class Deployed(nn.Module):
    """What is exported: pixels uint8 [B, H, W, 3] → scores [B, K, h, w] and code [B, D, h, w]."""

    def __init__(self, encoder: Encoder, centroids: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centroids", centroids.float()[:, :, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(pixels)
        return F.conv2d(code, self.get_buffer("centroids")), code


class _Watched(nn.Module):
    """`Deployed` with the values inside it that get a name; `names` is known after the first call."""

    def __init__(self, network: Deployed) -> None:
        super().__init__()
        self.network = network
        self.names: list[str] = []

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        encoder, seen = self.network.encoder, dict[str, Tensor]()

        def features(module: nn.Module, given: Any, answer: Tensor | list[Tensor]) -> None:
            coarsest = answer[-1] if isinstance(answer, list) else answer
            seen.setdefault("features", coarsest)  # the first call's: the second one sees the mirrored image

        def average(module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
            seen.update(code_once=given[0], code_mean=answer)

        source: nn.Module = encoder.backbone
        if isinstance(encoder.backbone, CnnBackbone) and isinstance(encoder.head, FPNHead):
            source = encoder.backbone.body
        hooks = [source.register_forward_hook(features), encoder.average.register_forward_hook(average)]
        try:
            scores, code = self.network(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        if seen.get("code_mean") is code:
            del seen["code_mean"]  # one value, one name
        self.names = list(seen)
        return (scores, code, *seen.values())


@dataclass(frozen=True)
class Check:
    """ONNX against torch: share of equal labels, largest difference of a score."""

    agreement: float
    difference: float


def to_onnx(network: Deployed, spec: InputSpec) -> bytes:
    """The network as one ONNX file; batch, height and width free, of a network that takes one size the batch alone.

    The same bytes every time.

    Raises BundleError where the graph holds what no bundle may hold.
    """
    watched = _Watched(network.cpu()).eval()
    free_size = spec.resize == "short_side"
    height, width = (2 * spec.multiple, 3 * spec.multiple) if free_size else spec.size
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        watched(example)
    names = ["scores", "code", *watched.names]
    free = {name: {0: "batch", 2: "h", 3: "w"} if free_size else {0: "batch"} for name in names}
    free["pixels"] = {0: "batch", 1: "height", 2: "width"} if free_size else {0: "batch"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder) / "encoder.onnx"
        warnings.simplefilter("ignore")  # tracing warns of what the check below proves right
        torch.onnx.export(
            watched,
            (example,),
            file,
            input_names=["pixels"],
            output_names=names,
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
        model = load_from_string(file.read_bytes())
    del model.graph.output[2:]  # the values keep their names
    written = bytes(model.SerializeToString(deterministic=True))
    checker.check_model(written, full_check=True)
    onnx_rules.check(written)
    return written


def check(network: Deployed, onnx: bytes, images: Sequence[Array], spec: InputSpec) -> Check:
    """Compares both on real images, every other one turned, alone and in a batch of two.

    Raises TesseraError when fewer than 99.9 % of the labels are equal.
    """
    session, network = Exported(onnx, threads=torch.get_num_threads()), network.cpu().eval()
    equal, difference = [], 0.0
    for number, image in enumerate(images):
        one = fit(np.ascontiguousarray(np.rot90(image) if number % 2 else image), spec)
        pixels = np.stack([one.pixels, one.pixels[:, ::-1]])
        with torch.inference_mode():
            wanted = network(torch.from_numpy(pixels))[0].numpy()
        for got, want in zip(session(pixels).scores, wanted, strict=True):
            same = assign.labels(got, one.source, one.box) == assign.labels(want, one.source, one.box)
            equal.append(float(same.mean()))
            difference = max(difference, float(np.abs(got - want).max()))
        alone = session(pixels[:1]).scores[0]
        difference = max(difference, float(np.abs(alone - wanted[0]).max()))
    found = Check(float(np.mean(equal)), difference)
    if not found.agreement >= AGREEMENT:
        raise TesseraError(
            f"ONNX and torch agree on {found.agreement:.2%} of the labels, {AGREEMENT:.1%} are needed"
            f" (largest score difference {found.difference:.2g}): no bundle is written. Other versions of torch or"
            " onnxruntime may help; so may more training, if the clusters are still nearly tied"
        )
    return found
