"""A trained encoder and its centroids → a bundle; refuses when ONNX and torch disagree.

Knows nothing of methods or of how the network was trained. The classic exporter is used because the graph it
writes is the same on every run, holds no path of this machine, and keeps batch, height and width free
for every backbone here (tests/training/test_export.py tries them).

Inside the graph three values have names that measuring can rely on (training/exported.py); none is an output:

    features    float32 [B, C, h, w]   the backbone's answer; its coarsest map where the head takes a pyramid
    code_once   float32 [B, D, h, w]   the head's answer, before it is averaged with the mirrored image's
    code_mean   float32 [B, D, h, w]   after it; where nothing follows the averaging, this is `code` itself

The last two are there only where the encoder averages.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from onnx import load_from_string
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from models import assign, bundle, palette
from models.assign import Assignment
from models.bundle import Bundle, Cluster, CodeSpec, Encoded, Golden, Merge, Provenance
from models.errors import TesseraError
from models.image import InputSpec, fit
from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.heads import FPNHead
from training import recipe as recipes
from training import weights as pretrained
from training.clusters import hierarchy
from training.run import Run
from training.survey import Survey

Array = NDArray[Any]

OPSET = 17
AGREEMENT = 0.999  # of the labels, ONNX against torch
_CHECKED_IMAGES = 8


class ExportError(TesseraError):
    """The exported network does not compute what the trained one does."""


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
    """ONNX against torch: share of equal labels, largest difference of a score, images compared."""

    agreement: float
    difference: float
    images: int


def to_onnx(network: Deployed, spec: InputSpec) -> bytes:
    """The network as one ONNX file; batch, height and width free. The same bytes every time."""
    watched = _Watched(network.cpu()).eval()
    example = torch.zeros(2, 2 * spec.multiple, 3 * spec.multiple, 3, dtype=torch.uint8)
    with torch.inference_mode():
        watched(example)
    names = ["scores", "code", *watched.names]
    free = {name: {0: "batch", 2: "h", 3: "w"} for name in names}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder) / "encoder.onnx"
        warnings.simplefilter("ignore")  # tracing warns of what the check below proves right
        torch.onnx.export(
            watched,
            (example,),
            file,
            input_names=["pixels"],
            output_names=names,
            dynamic_axes={"pixels": {0: "batch", 1: "height", 2: "width"}, **free},
            opset_version=OPSET,
            dynamo=False,
        )
        model = load_from_string(file.read_bytes())
    del model.graph.output[2:]  # the values keep their names
    return bytes(model.SerializeToString(deterministic=True))


class Session:
    """An ONNX file as an encoder, on the CPU."""

    def __init__(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Array, *, code: bool = False) -> Encoded:
        """See models.bundle.Encoder."""
        found = self._session.run(["scores", "code"] if code else ["scores"], {"pixels": pixels})
        return Encoded(*found)


def check(network: Deployed, onnx: bytes, images: Sequence[Array], spec: InputSpec) -> Check:
    """Compares both on real images, turned as well as upright, alone and in a batch of two.

    Raises ExportError when fewer than 99.9 % of the labels are equal.
    """
    session, network = Session(onnx), network.cpu().eval()
    equal, difference = [], 0.0
    for image in images:
        for turned in (image, np.rot90(image)):
            one = fit(np.ascontiguousarray(turned), spec)
            pixels = np.stack([one.pixels, one.pixels[:, ::-1]])
            with torch.inference_mode():
                wanted = network(torch.from_numpy(pixels))[0].numpy()
            for got, want in zip(session(pixels).scores, wanted, strict=True):
                same = assign.labels(got, one.source, one.box) == assign.labels(want, one.source, one.box)
                equal.append(float(same.mean()))
                difference = max(difference, float(np.abs(got - want).max()))
            alone = session(pixels[:1]).scores[0]
            difference = max(difference, float(np.abs(alone - wanted[0]).max()))
    found = Check(float(np.mean(equal)), difference, len(images))
    if not found.agreement >= AGREEMENT:
        raise ExportError(
            f"ONNX and torch agree on {found.agreement:.2%} of the labels, {AGREEMENT:.1%} are needed"
            f" (largest score difference {found.difference:.2g}): no bundle is written. Other versions of torch or"
            " onnxruntime may help; so may more training, if the clusters are still nearly tied"
        )
    return found


@dataclass(frozen=True)
class Origin:
    """What a bundle is called and where it comes from."""

    name: str
    method: str
    provenance: Provenance
    notice: str


def export(
    encoder: Encoder,
    centroids: Tensor,
    *,
    assignment: Assignment,
    temperature: float,
    spec: InputSpec,
    survey: Survey,
    report: Mapping[str, Any],
    run: Run,
    folder: Path,
) -> tuple[Bundle, Check]:
    """Writes the bundle of an encoder that a run trained to `folder`; see `write_bundle`."""
    count = min(_CHECKED_IMAGES, len(run.images))
    return write_bundle(
        encoder,
        centroids,
        assignment=assignment,
        temperature=temperature,
        spec=spec,
        fractions=survey.fractions.tolist(),
        golden=survey.golden,
        exemplars=survey.exemplars,
        images=[run.images[i * len(run.images) // count] for i in range(count)],
        report=report,
        origin=Origin(bundle_name(run), run.recipe.method, provenance(run), notice(run)),
        console=run.console,
        folder=folder,
    )


def write_bundle(
    encoder: Encoder,
    centroids: Tensor,
    *,
    assignment: Assignment,
    temperature: float,
    spec: InputSpec,
    fractions: Sequence[float],
    golden: Golden,
    exemplars: Mapping[int, Sequence[bytes]],
    images: Sequence[Array],
    report: Mapping[str, Any],
    origin: Origin,
    console: Console,
    folder: Path,
) -> tuple[Bundle, Check]:
    """Writes the bundle of an encoder to `folder`, wherever it comes from.

    centroids  float32 [K, D]
    fractions  share of every cluster, summing to 1
    images     RGB uint8 [H, W, 3] on which ONNX is held against torch, besides the golden one
    report     joins what is measured here, as report.json

    Raises ExportError or BundleError; nothing is written then.
    """
    centroids = centroids.detach().float().cpu()
    if assignment == "cosine":
        centroids = F.normalize(centroids, dim=1)
    network = Deployed(encoder, centroids)
    onnx = to_onnx(network, spec)
    checked = check(network, onnx, [*images, golden.image], spec)
    console.print(
        f"ONNX against torch: {checked.agreement:.3%} of the labels equal,"
        f" largest score difference {checked.difference:.2g}",
        highlight=False,
    )
    written = bundle.save(
        folder,
        name=origin.name,
        method=origin.method,
        input=spec,
        code=CodeSpec(dim=centroids.shape[1], stride=encoder.stride, assignment=assignment, temperature=temperature),
        clusters=clusters(fractions),
        hierarchy=list[Merge](hierarchy(centroids, fractions)),
        provenance=origin.provenance,
        encoder_onnx=onnx,
        centroids=centroids.numpy(),
        golden=golden,
        exemplars=exemplars,
        report={
            **report,
            "onnx": {"labels_equal": checked.agreement, "largest_score_difference": checked.difference},
        },
        notice=origin.notice,
    )
    agree = bundle.self_test(written, Session(onnx))
    console.print(f"golden image: {agree:.2%} of the labels equal", highlight=False)
    return written, checked


def clusters(fractions: Sequence[float]) -> list[Cluster]:
    """Unnamed clusters in colors far apart."""
    colors = palette.distinct(len(fractions))
    return [
        Cluster(name=f"cluster {i}", color=palette.to_hex(color), fraction=min(1.0, fraction))
        for i, (color, fraction) in enumerate(zip(colors, fractions, strict=True))
    ]


def bundle_name(run: Run) -> str:
    """export.name, or the data folder's name as a bundle can be called."""
    if run.recipe.export.name:
        return run.recipe.export.name
    return f"{plain_name(run.images.root.name) or 'images'}-{run.recipe.method}"[:63]


def plain_name(text: str) -> str:
    """The part of a text that a bundle can be called; may be empty."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]


def tessera_version() -> str:
    """Of the installed package."""
    try:
        return version("tessera-segmentation")
    except PackageNotFoundError:
        return "unknown"


def licence(run: Run) -> str:
    """Of the pretrained weights: as the recipe says, or as timm knows it."""
    said, weights = run.recipe.export.licence, run.recipe.backbone.weights
    if said != "unknown":
        return said
    if weights == "random":
        return "none used: trained from random weights"
    if weights.endswith(pretrained.FILE):
        return "trained from random weights on the images themselves"
    if weights == "timm":
        known = timm.get_pretrained_cfg(run.recipe.backbone.name, allow_unregistered=True)
        if known is not None and known.license:
            return f"{known.license} ({run.recipe.backbone.name}, by timm)"
    return said


def provenance(run: Run) -> Provenance:
    """Where the bundle comes from. Paths of this machine are left out."""
    backbone = run.recipe.backbone
    backbone = backbone.model_copy(update={"weights": Path(backbone.weights).name})
    recipe = run.recipe.model_copy(update={"backbone": backbone})
    skipped = f", {len(run.images.skipped)} unreadable ones skipped" if run.images.skipped else ""
    return Provenance(
        tessera=tessera_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipes.page_of(recipe),
        recipe_sha256=recipe.sha256,
        seed=run.recipe.seed,
        images=len(run.images),
        data=f"{len(run.images)} images of {run.images.root.name}{skipped}",
        data_sha256=run.images.digest,
        licence=licence(run),
    )


def notice(run: Run) -> str:
    """The NOTICE file."""
    shown = "real patches of them" if run.recipe.export.exemplars else "no single one of them"
    return (
        f"Segmentation bundle {bundle_name(run)}, made by Tessera with the method {run.recipe.method}.\n\n"
        f"Pretrained weights: {run.recipe.backbone.name}, licence: {licence(run)}.\n"
        f"Training images: {len(run.images)} of {run.images.root.name}, licence: whatever their owner gave."
        f" The bundle holds {shown}.\n"
    )
