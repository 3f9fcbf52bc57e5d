"""PiCIE against arrays of the authors' code (the commit stands in data/manifest.json)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import assign
from models.nets.heads import FPNHead
from training import augment
from training.augment import AugmentSection, Geometric
from training.methods.picie import class_weights, label, view_losses
from training.metrics import confusion, score
from training.minibatch import MiniBatchKMeans


def test_fpn_decoder(golden, same):
    case = golden("picie_fpn_decoder")
    pyramid = [case.res2, case.res3, case.res4, case.res5]
    head = FPNHead([level.shape[1] for level in pyramid], 128)
    with torch.no_grad():
        for lateral, theirs in zip(head.laterals, (4, 3, 2, 1), strict=True):
            lateral.weight.copy_(getattr(case, f"p:layer{theirs}.weight"))
            lateral.bias.copy_(getattr(case, f"p:layer{theirs}.bias"))
    same(head(pyramid), case.out)


def test_metric(golden, same):
    case = golden("picie_metric")
    same(label(case.feat, case.centroids), case.labels)
    flat = case.feat.permute(0, 2, 3, 1).reshape(-1, case.feat.shape[1])
    same(flat, case.flat)
    distances = torch.cdist(flat, case.centroids).square()
    same(-distances.reshape(2, 4, 3, 5).permute(0, 3, 1, 2), case.scores)


def test_geometric(golden, same):
    case = golden("picie_geometric")
    for mirrored, name in ((False, "crop"), (True, "eqv")):
        crops = [
            Geometric(
                scale=float(case.rscale[i]),
                row=float(case.rcrop[i, 0]),
                column=float(case.rcrop[i, 1]),
                mirror=mirrored and float(case.plist[i]) < 0.5,
            )
            for i in case.indices.tolist()
        ]
        same(augment.crop(case.image, crops, case.params["res"]), getattr(case, f"{name}_image"))
        same(augment.crop(case.feat, crops, case.params["res"] // 4), getattr(case, f"{name}_feat"))


def test_blur_is_never_negative(golden):
    """Theirs hands Pillow a negative radius; ours draws from the range both name."""
    case = golden("picie_blur_sigma")
    assert float(case.radius.min()) < 0
    drawn = [augment.draw(AugmentSection(), 0, 0, i) for i in range(200)]
    sigmas = [light.blur for views in drawn for light in (views.first, views.second)]
    low, high = case.params["sigma"]
    assert all(low <= s <= high for s in sigmas if s is not None)
    assert sum(s is None for s in sigmas) / len(sigmas) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["picie_train_step", "picie_train_step_nobalance"])
def test_train_step(golden, same, name):
    case = golden(name)
    weight, bias = case.w0.clone().requires_grad_(), case.b0.clone().requires_grad_()
    codes = [F.normalize(F.conv2d(x, weight, bias), dim=1) for x in (case.input1, case.input2)]
    weights = torch.stack([case.weight1, case.weight2])
    if not case.params["balance"]:
        weights = torch.ones_like(weights)
    labels = (case.label1, case.label2)
    within, across = view_losses(codes, labels, torch.stack([case.cent1, case.cent2]), weights)
    loss = (within + across) / 2
    loss.backward()
    same(within, case.loss_within)
    same(across, case.loss_across)
    same(loss, case.loss)
    same(case.w0 - weight.grad, case.w1)
    same(case.b0 - bias.grad, case.b1)


def test_compute_labels(golden, same):
    case = golden("picie_compute_labels")
    code = F.normalize(F.conv2d(case.images, case.conv_w, case.conv_b), dim=1)
    found = label(code, case.centroids)
    same(found.flatten(1), case.labels)
    same(class_weights(torch.bincount(found.flatten(), minlength=5), "proportional"), case.weight)


@pytest.mark.parametrize("update_batches", [1, 2])
def test_minibatch_kmeans(golden, same, update_batches):
    case = golden(f"picie_minibatch_kmeans_b{update_batches}")
    assert case.params["num_batches"] == update_batches
    solver = MiniBatchKMeans(
        len(case.init_centroids),
        init_batches=case.params["num_init_batches"],
        update_batches=update_batches,
        iterations=0,  # theirs was given these centroids as well
        init=case.init_centroids,
    )
    for batch in case.features:
        solver.add(F.normalize(batch, dim=1).permute(0, 2, 3, 1).reshape(-1, batch.shape[1]))
    same(solver.centroids(), case.centroids)
    same(solver.loss, case.kmeans_loss)


def test_evaluate(golden, same):
    """All classes; theirs slices things and stuff by cluster number, which says nothing, and has no twin here."""
    case = golden("picie_evaluate")
    scores = F.conv2d(F.normalize(case.feat, dim=1), case.clf_w)
    counts = sum(
        confusion(assign.labels(one.numpy(), tuple(true.shape)), true.numpy(), 27, 27)
        for one, true in zip(scores, case.label, strict=True)
    )
    found = score(counts)
    same(found.accuracy * 100, case.acc)
    same(found.miou * 100, case.miou)
    same(found.iou[found.match] * 100, case.iou)
    sure = case.iou > 0  # clusters without a right pixel share their classes in more than one best way
    same(counts[:, found.match].T[sure.numpy()].astype(np.float32), case.new_hist[sure])


def test_hist_metrics(golden, same):
    case = golden("picie_hist_metrics")
    found = score(case.hist.numpy().astype(np.int64).T, np.arange(6))
    same(found.iou * 100, case.iou)
    same(found.miou * 100, case.mean_iou)
    same(found.accuracy * 100, case.acc)
    same(confusion(case.label_pred.numpy(), case.label_true.numpy(), 6, 6).T.astype(np.float32), case.scores)
