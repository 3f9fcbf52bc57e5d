"""DeepCluster: what a round begins with, what it learns, and that both survive being stopped."""

from pathlib import Path

import pytest
import torch

from models.errors import TesseraError
from tests.training.small_run import make, small_run
from training.methods.deepcluster import DeepCluster

FEW = (
    "method=deepcluster", "backbone.name=test_resnet", "deepcluster.clusters=6", "deepcluster.clusterings=2",
    "deepcluster.code_dim=8", "deepcluster.steps=2", "deepcluster.batch_size=4",
)  # fmt: skip


def begun(folder: Path, *overrides: str) -> DeepCluster:
    """Regions are cut, no round has begun."""
    method = make(small_run(folder, *FEW, *overrides))
    assert isinstance(method, DeepCluster)
    method.prepare()
    return method


def test_a_round_gives_every_region_a_cluster_of_each_clustering(tmp_path: Path) -> None:
    method = begun(tmp_path)
    assert (method.labels == -1).all()
    before = method.classifiers.detach().clone()
    stage = method.stages()[0]
    stage.before_epoch(0)
    counts = method.regions.counts[:, 0].tolist()
    for image, count in enumerate(counts):
        known = method.labels[image, :count]
        assert (known.max(1).values < 6).all()
        assert (method.labels[image, count:] == -1).all()
    assert float((method.labels >= 0).float().sum()) >= 0.8 * 2 * sum(counts)  # some are smaller than a cell
    assert not method.classifiers.equal(before)
    one, other = method.labels[..., 0], method.labels[..., 1]
    assert not one.equal(other)  # each has its own seed
    labels = method.labels.clone()
    stage.before_epoch(1)  # within a round nothing is clustered anew
    assert method.labels.equal(labels)


def test_the_loss_is_the_mean_cross_entropy_of_cells_with_a_region(tmp_path: Path) -> None:
    method = begun(tmp_path).eval()
    stage = method.stages()[0]
    stage.before_epoch(0)
    batch = dict(next(iter(stage.batches(0))))
    batch["ids"] = batch["ids"].clone()
    batch["ids"][:, :2] = -1  # no data
    method.eval()
    with torch.no_grad():
        loss = float(method._loss(batch)["naming"])
        with torch.autocast("cpu", torch.bfloat16):
            code = method.network(batch["pixels"])
    code = torch.nn.functional.normalize(code.float(), dim=1)
    total, cells = 0.0, 0
    unit = torch.nn.functional.normalize(method.classifiers.detach(), dim=2)
    for b in range(len(code)):
        for y in range(code.shape[2]):
            for x in range(code.shape[3]):
                region = int(batch["ids"][b, y, x])
                wanted = method.labels[batch["images"][b], region] if region >= 0 else torch.tensor([-1])
                if int(wanted[0]) < 0:
                    continue
                cells += 1
                scores = 10 * unit @ code[b, :, y, x]
                total -= sum(float(scores[i].log_softmax(0)[int(wanted[i])]) for i in range(2)) / 2
    assert loss == pytest.approx(total / cells, rel=1e-4)


def test_what_is_no_cnn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match=r"DeepCluster trains a CNN.*set backbone\.name=resnet10t"):
        make(small_run(tmp_path, *FEW, "backbone.name=test_vit"))
