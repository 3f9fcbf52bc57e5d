"""The same small trainings in one process or in several: what the tests of training/distributed.py compare.

Knows nothing of what is right. Run as a program it is one of several processes (tests/training/several.py):

    python -m tests.training.together FOLDER WHAT
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from tests.training import several
from tests.training.few_steps import few_steps
from tests.training.small_run import make, small_run
from training import distributed
from training.data.images import Images
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import Pretraining, train
from training.pretraining.views import draw
from training.trainer import batch_norm, loop
from training.trainer.loop import Workspace

_CNN, _VIT = "backbone.name=test_resnet", "backbone.name=test_vit"
_SHORT = {"steps": 3, "batch_size": 5}
RUNS = {
    "stego": [_VIT, "stego.weight_crf=0.1", "stego.crf_points=9", "stego.weight_reconstruction=0.5"],
    "cause": [_VIT, "cause.concepts=6", "cause.projection_dim=8", "cause.cell=2", "cause.thresholds=auto"],
    "cause-tr": [_VIT, "cause.head=tr", "cause.concepts=6", "cause.projection_dim=8", "cause.hidden=16"],
    "primaps": [_VIT, "primaps.teach_every=1", "primaps.kmeans_steps=3", "primaps.center=true"],
    "smooseg": [_VIT, "smooseg.shifts=auto"],
    "picie": [_CNN, "picie.overcluster=5", "picie.kmeans_points=2000"],
    "mdc": [_CNN, "picie.views=1", "picie.batch_norm=upstream"],
    "san": [_CNN, "input.size=128", "san.code_dim=64"],
    "iic": [_CNN, "input.size=96"],
    "deepcluster": [_CNN, "input.size=128", "deepcluster.clusters=6", "deepcluster.clusterings=2"],
}
_METHODS = {"cause-tr": "cause", "mdc": "picie"}


def trained(what: str, folder: Path) -> dict[str, Tensor]:
    """Weights, buffers and centroids after a few steps on the drawn images below FOLDER/images."""
    # In float32: what bfloat16 rounds away depends on how the batch is divided.
    with patch("torch.autocast", lambda *_, **__: nullcontext()):
        return _pretrained(folder) if what == "pretraining" else _fitted(what, folder)


def _fitted(what: str, folder: Path) -> dict[str, Tensor]:
    name = _METHODS.get(what, what)
    images = Images(folder / "images", sorted((folder / "images").iterdir()))
    run = small_run(folder / what, f"method={name}", *few_steps(name, **_SHORT), *RUNS[what], images=images)
    method = make(run)
    batch_norm.synchronize(method)
    loop.fit(method, method.stages(), run)
    found = {key: value.clone() for key, value in method.state_dict().items()}
    centroids = method.centroids()
    return found | ({} if centroids is None else {"centroids": centroids.clone()})


def _pretrained(folder: Path) -> dict[str, Tensor]:
    images = Images(folder / "images", sorted((folder / "images").iterdir()))
    run = small_run(folder / "pretraining", images=images)
    options = PretrainOptions(steps=4, batch_size=5, clusters=3, min_cells=2)
    regions = run.regions(options.regions)
    model = Pretraining(regions, options, run.device)
    batch_norm.synchronize(model)
    model.loss(draw(regions, options, 0)).backward()
    weights = list(model.network.parameters())
    distributed.average_gradients(weights)
    gradients = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    # What follows is told apart by its losses: AdamW takes whole steps along gradients that are 0 but for rounding.
    place = Workspace(run.folder / "partial", run.log, 0, run.console, "")
    losses = train(regions, options, run.device, place).losses
    return {"gradients": gradients / gradients.abs().max(), "first": losses[:1], "all": (losses / 100)}


if __name__ == "__main__":
    several.answer(Path(sys.argv[1]), lambda: trained(sys.argv[2], Path(sys.argv[1])))
