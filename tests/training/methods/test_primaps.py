"""PriMaPs-EM on eight small images: where prototypes begin, who teaches whom, and what is exported."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.bundle import Bundle
from models.errors import UsageError
from models.inference import segment
from models.nets.backbone import Backbone
from tests.training.gaps import gap, halves
from tests.training.methods.test_methods import fitted
from tests.training.small_run import draw, make, small_run
from training import pipeline
from training.data.label_maps import IGNORED
from training.evaluation.exported import Exported
from training.features.store import digest
from training.losses.mask_votes import confidence_weighted, majority
from training.trainer import initial, loop

SMALL = ["method=primaps", "backbone.name=test_vit", "primaps.batch_size=4", "primaps.kmeans_steps=3"]
STORED = ["primaps.views=stored"]
STEGO = ["method=stego", "backbone.name=test_vit", "stego.code_dim=8", "stego.points=4", "stego.steps=2"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        STORED,
        ["primaps.label_stride=4", "primaps.precision=float32", "primaps.gamma=0"],
        [*STORED, "backbone.name=test_resnet", "primaps.least_stride=32", "input.train_size=96"],
        [*STORED, "primaps.center=true"],
        ["backbone.features=keys", "primaps.threshold=0.8", "primaps.flip_average=false"],
    ],
)
def test_two_steps_leave_the_backbone_as_it_was(tmp_path, overrides):
    run = small_run(tmp_path, *SMALL, "primaps.steps=2", "primaps.teach_every=1", *overrides)
    method = make(run)
    before, student = digest(method.network), digest(method.student)
    loop.fit(method, method.stages(), run)
    assert digest(method.network) == before
    assert digest(method.student) != student
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    assert [line["stage"] for line in loop.read_log(run.log)] == ["kmeans"] * 3 + ["em"] * 2
    with torch.inference_mode():
        code = method.encoder()(torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8))
    assert code.shape[1] == method.network.backbone.channels == method.centroids().shape[1]
    assert torch.allclose(code.norm(dim=1), torch.ones(()), atol=1e-5)


def test_stages_as_published(tmp_path):
    kmeans, em = make(small_run(tmp_path, *SMALL, "primaps.kmeans_steps=0")).stages()
    assert (kmeans.steps, em.steps) == (100, 300)
    many = make(small_run(tmp_path, *SMALL, "primaps.kmeans_steps=0", "primaps.batch_size=1"))
    assert [stage.steps for stage in many.stages()] == [100, 50 * 8]
    assert [[group["lr"] for group in stage.groups] for stage in (kmeans, em)] == [[5e-3], [5e-3]]


def test_centers_begin_at_the_principal_directions_of_the_first_batches(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "primaps.pca_batches=1", "primaps.precision=float32"))
    kmeans, _ = method.stages()
    kmeans.before_epoch(0)
    crops = next(iter(kmeans.batches(0)))["crop"]
    points = np.array(method.features.maps[crops.numpy()]).transpose(0, 2, 3, 1).reshape(-1, 64)
    wanted = np.linalg.svd(points - points.mean(0))[2][:3]
    found = method.current_centroids().numpy()
    assert np.abs((found * wanted).sum(1)) == pytest.approx(np.ones(3), abs=1e-4)
    method.probe.centers.data.zero_()
    kmeans.before_epoch(1)
    assert (method.probe.centers == 0).all()


def test_em_begins_where_kmeans_has_come_and_the_teacher_follows(tmp_path):
    method = make(small_run(tmp_path, *SMALL, *STORED, "primaps.teach_every=2", "primaps.momentum=0.6"))
    _, em = method.stages()
    with torch.no_grad():
        method.probe.centers.normal_(generator=torch.Generator().manual_seed(0))
        method.student.lengths.fill_(7)
    em.before_epoch(0)
    centers = F.normalize(method.probe.centers.detach(), dim=1)
    for prototypes in (method.student, method.teacher):
        assert torch.allclose(prototypes.rows(), centers, atol=1e-6)
    wanted: Any = None
    for step in range(1, 11):
        with torch.no_grad():
            method.student.directions += step
            method.student.lengths *= 1.1
        em.after_step()
        now = [p.detach().clone() for p in method.student.parameters()]
        if step % 2 == 0:
            keep = min(0.6, 1 - 2 / step)  # 0, 1/2, then the momentum
            wanted = [keep * w + (1 - keep) * n for w, n in zip(wanted or now, now, strict=True)]
            for found, mean in zip(method.teacher.parameters(), wanted, strict=True):
                assert torch.allclose(found, mean)
    assert torch.equal(method.centroids(), method.teacher.rows())


@pytest.mark.parametrize("views", ["photometric", "stored"])
def test_the_loss_is_the_teachers_majority_of_every_mask_at_full_size(tmp_path, views):
    method = make(small_run(tmp_path, *SMALL, f"primaps.views={views}"))
    _, em = method.stages()
    em.before_epoch(0)
    method.student.directions.data += 0.1
    batch = next(iter(em.batches(0)))
    code = method.features.batch(batch["crop"].numpy(), torch.device("cpu"))
    full = F.interpolate(code, (64, 64), mode="bilinear", align_corners=False)  # the papers' order: features first
    told = torch.einsum("bchw,kc->bkhw", full, method.teacher.rows()).argmax(1)
    masks = torch.from_numpy(np.array(method.masks[batch["crop"].numpy()])).long()
    labels = majority(told, masks, 3)
    assert (labels == IGNORED).float().mean() < 0.5
    if views == "photometric":
        pixels = (batch["view"].permute(0, 3, 1, 2).float() - method.network.mean) / method.network.std
        seen = method.network.backbone(pixels)
        seen = torch.stack([c.flip(-1) if m else c for c, m in zip(seen, batch["mirrored"], strict=True)])
        full = F.interpolate(seen, (64, 64), mode="bilinear", align_corners=False)
    scores = torch.einsum("bchw,kc->bkhw", full, method.student.rows())
    wanted = confidence_weighted(scores, labels, 2.0)
    assert em.loss(batch)["cross_entropy"].item() == pytest.approx(wanted.item(), rel=1e-3)


class Blocks(Backbone):
    """Mean colors of 16 × 16 pixels: a mirrored image's features are the mirrored features."""

    channels, stride = 3, 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 16)


def test_a_mirrored_answer_is_turned_back(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    method.network.backbone = Blocks()
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    mirrored = torch.tensor([False, True, True, False])
    view = torch.where(mirrored[:, None, None, None], pixels.flip(2), pixels)
    found = method._seen({"view": view, "mirrored": mirrored})
    assert torch.allclose(found, method._seen({"view": pixels, "mirrored": torch.zeros(4, dtype=torch.bool)}))


def test_views_differ_from_their_image_and_between_epochs_and_never_between_runs(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    _, em = method.stages()
    first, again, later = (list(em.batches(epoch)) for epoch in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["crop"], b["crop"])
        assert torch.equal(a["view"], b["view"])
    assert [b["crop"].tolist() for b in first] != [b["crop"].tolist() for b in later]
    assert sorted(torch.cat([b["crop"] for b in first]).tolist()) == list(range(8))
    for batch in first:
        image = torch.from_numpy(np.array(method.pixels[batch["crop"].numpy()]))
        turned = torch.stack([v.flip(1) if m else v for v, m in zip(batch["view"], batch["mirrored"], strict=True)])
        off = (turned.float() - image.float()).abs().mean((1, 2, 3))
        assert (off > 0).all()
        assert (off < 40).all()
    drawn = [method._view(epoch, crop)[1] for epoch in range(20) for crop in range(8)]
    assert 0.3 < np.mean(drawn) < 0.7


@pytest.mark.parametrize("stop_after", [2, 5, 6])  # in k-means, within an epoch of em and between two
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, stop_after):
    images, overrides = draw(tmp_path / "images"), [*SMALL, "primaps.steps=5", "primaps.teach_every=2"]
    whole = fitted(tmp_path / "whole", overrides, images)
    resumed = fitted(tmp_path / "stopped", overrides, images, stop_after)
    for name, wanted in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], wanted), name
    assert resumed.taught == 5


def test_what_a_frozen_backbone_says_of_gaps_changes_nothing(tmp_path):
    images = halves(tmp_path / "images")

    def losses(garbage: float) -> list[Any]:
        method = make(small_run(tmp_path, *SMALL, *STORED, images=images))
        maps = np.array(method.features.maps)
        maps[:, :, gap(maps.shape[-1])] = garbage
        method.features = replace(method.features, maps=maps)
        found: list[Any] = []
        for stage in method.stages():
            stage.before_epoch(0)
            for batch in stage.batches(0):
                terms = stage.loss(batch)
                found.append({name: value.item() for name, value in terms.items()})
                sum(value for name, value in terms.items() if not name.startswith("log/")).backward()
                stage.after_step()
        return [*found, [p.grad.tolist() for p in method.parameters() if p.grad is not None]]

    assert losses(0) == losses(7)


def test_the_loss_falls(tmp_path):
    run = small_run(tmp_path, *SMALL, *STORED, "primaps.kmeans_steps=40", "primaps.steps=60", "primaps.label_stride=4")
    method = make(run)
    loop.fit(method, method.stages(), run)
    for stage in ("kmeans", "em"):
        losses = [line["loss"] for line in loop.read_log(run.log) if line["stage"] == stage]
        assert sum(losses[-5:]) < sum(losses[:5]), stage


def learned(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """What a checkpoint of a finished run holds, by name."""
    run = small_run(folder, *overrides)
    method = make(run)
    loop.fit(method, method.stages(), run)
    return initial.read(initial.find(run.folder))


@pytest.mark.parametrize("nonlinear", [True, False])
def test_on_a_stego_runs_code_and_from_its_centers(tmp_path, nonlinear):
    weights = learned(tmp_path / "stego", *STEGO, f"stego.nonlinear={str(nonlinear).lower()}")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    run = small_run(tmp_path, *SMALL, "primaps.steps=2", "export.exemplars=0")
    method = pipeline.build(run)
    method.begin(weights, "stego")
    method.prepare()
    (em,) = method.stages()
    em.before_epoch(0)
    assert torch.allclose(method.teacher.rows(), F.normalize(weights["probe.centers"], dim=1))
    method.run.folder.joinpath("checkpoints").mkdir(exist_ok=True)
    initial.checkpoint.save(
        run.checkpoints / initial.FILE, {f"module/{name}": value for name, value in weights.items()}, {}
    )
    bundle = pipeline.train(run)
    assert bundle.centroids.shape == (3, 8)
    photo = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    assert segment(bundle, Exported(bundle.encoder_bytes()), photo).shape == (64, 80)


def test_from_a_run_of_its_own(tmp_path):
    weights = learned(tmp_path / "first", *SMALL, "primaps.steps=3", "primaps.teach_every=1")
    method = make(small_run(tmp_path, *SMALL))
    method.begin(weights, "first")
    (em,) = method.stages()
    em.before_epoch(0)
    assert torch.equal(method.teacher.directions, weights["teacher.directions"])
    assert torch.equal(method.student.lengths, weights["student.lengths"])


def test_the_mean_is_taken_off_in_training_and_in_the_exported_network(tmp_path):
    overrides = [*SMALL, "primaps.center=true", "primaps.precision=float32", "primaps.steps=2"]
    method = make(small_run(tmp_path, *overrides))
    code = method._code(torch.arange(8))
    assert torch.allclose(code.mean((0, 2, 3)), torch.zeros(64), atol=1e-5)
    pixels = torch.from_numpy(np.array(method.pixels[:]))
    with torch.inference_mode():
        x = (pixels.permute(0, 3, 1, 2).float() - method.network.mean) / method.network.std
        assert torch.allclose(method.network.code(x), code, atol=1e-4)
    method.student.directions.data += 1
    again = make(small_run(tmp_path, *overrides))
    weights = {name: value.clone() for name, value in method.state_dict().items() if value.ndim}
    again.begin(weights, "the first")
    again.prepare()
    assert torch.equal(again._center(), method._center())
    assert torch.equal(again._code(torch.arange(8)), code)
    assert again.masks.path == method.masks.path


@pytest.mark.parametrize(
    ("overrides", "what"),
    [(["clusters.k=5"], r"probe\.centers is \[3, 8\] there and \[5, 8\] here"),
     (["primaps.least_stride=32"], r"network\.backbone\.\S+ is not there")],
)  # fmt: skip
def test_a_run_of_another_network_is_refused(tmp_path, overrides, what):
    weights = learned(tmp_path / "stego", *STEGO)
    with pytest.raises(UsageError, match=what):
        make(small_run(tmp_path, *SMALL, *overrides)).begin(weights, "stego")


def test_the_bundle_labels_as_the_teacher_does(tmp_path):
    run = small_run(tmp_path, *SMALL, *STORED, "primaps.steps=4", "primaps.teach_every=1", "export.exemplars=0")
    bundle = pipeline.train(run)
    assert isinstance(bundle, Bundle)
    method = pipeline.build(run)
    method.load_state_dict(initial.read(initial.find(run.folder)), strict=False)
    image = run.images[3]
    with torch.inference_mode():
        features = method.network.backbone(
            (torch.from_numpy(np.stack([image, image[:, ::-1]])).permute(0, 3, 1, 2).float() - method.network.mean)
            / method.network.std
        )
        code = F.normalize((features[:1] + features[1:].flip(-1)) / 2, dim=1)
        wanted = F.interpolate(method.teacher(code), (64, 64), mode="bilinear", align_corners=False).argmax(1)[0]
    assert (segment(bundle, Exported(bundle.encoder_bytes()), image) == wanted.numpy()).mean() > 0.999
    assert bundle.centroids == pytest.approx(method.teacher.rows().detach().numpy(), abs=1e-5)


def test_more_prototypes_than_channels_are_refused(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "clusters.k=70"))
    with pytest.raises(Exception, match=r"64 channels have no 70 principal directions: lower clusters\.k"):
        method.stages()[0].before_epoch(0)


@pytest.mark.parametrize("count", [1, 5])
def test_few_images_do_not_crash(tmp_path, count):
    images = draw(tmp_path / "few", count=count)
    run = small_run(tmp_path, *SMALL, "primaps.steps=2", images=images)
    method = make(run)
    loop.fit(method, method.stages(), run)
    assert torch.isfinite(method.centroids()).all()


def test_the_head_is_none_and_the_network_the_backbone(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    assert isinstance(method.network.head, nn.Identity)
