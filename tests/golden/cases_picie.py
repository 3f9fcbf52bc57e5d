"""PiCIE against arrays of the authors' code (the commit stands in the manifest): one function per case, of its name."""

import re

import numpy as np
import torch
from torch.nn import functional as F

from models import assign
from models.nets.heads import FPNHead
from models.types import Array
from tests.golden.runner import Case
from training.clustering.kmeans import nearest
from training.clustering.minibatch_kmeans import MiniBatchKMeans
from training.evaluation.metrics import confusion, score
from training.methods.picie import augment
from training.methods.picie.augment import AugmentSection, Geometric
from training.methods.picie.losses import class_weights, label, view_losses

_THINGS = 12  # of COCO-27's classes, which come first


@torch.no_grad()
def picie_fpn_decoder(case: Case) -> None:
    """Their layer1 reads the coarsest map; our laterals go from fine to coarse."""
    pyramid = [case[key] for key in sorted(case.keys("res"), key=_number)]
    layers = sorted({_number(key) for key in case.keys("p:layer")}, reverse=True)
    head = FPNHead([level.shape[1] for level in pyramid], case["out"].shape[1])
    for lateral, layer in zip(head.laterals, layers, strict=True):
        lateral.weight.copy_(case[f"p:layer{layer}.weight"])
        lateral.bias.copy_(case[f"p:layer{layer}.bias"])
    case.same("out", head(pyramid))


def _number(key: str) -> int:
    return int(re.findall(r"\d+", key)[0])


def picie_metric(case: Case) -> None:
    batch, dim, height, width = case["feat"].shape
    flat = case["feat"].permute(0, 2, 3, 1).reshape(-1, dim)
    case.same("flat", flat)
    case.same("labels", label(case["feat"], case["centroids"]))
    distances = torch.stack([nearest(flat, one[None])[0] for one in case["centroids"]], 1)
    case.same("scores", -distances.reshape(batch, height, width, -1).permute(0, 3, 1, 2))


def picie_geometric(case: Case) -> None:
    size = case.params["res"]
    for mirrored, name in ((False, "crop"), (True, "eqv")):
        crops = [
            Geometric(
                scale=float(case["rscale"][i]),
                row=float(case["rcrop"][i, 0]),
                column=float(case["rcrop"][i, 1]),
                mirror=mirrored and float(case["plist"][i]) < 0.5,
            )
            for i in case["indices"].tolist()
        ]
        case.same(f"{name}_image", augment.resized_crop(case["image"], crops, size))
        case.same(f"{name}_feat", augment.resized_crop(case["feat"], crops, size // 4))


def picie_blur_sigma(case: Case) -> None:
    """Ours draws from the range both name, and as often."""
    (low, high), chance = case.params["sigma"], case.params["p"]
    options = AugmentSection(blur=chance, blur_sigma=(low, high))
    drawn = [augment.draw_views(options, 0, 0, i) for i in range(400)]
    sigmas = [light.blur for views in drawn for light in (views.first, views.second)]
    applied = [sigma for sigma in sigmas if sigma is not None]
    case.require(all(low <= sigma <= high for sigma in applied), f"a radius outside {low}–{high}")
    case.require(
        abs(len(applied) / len(sigmas) - chance) < 0.1, f"blurred {len(applied) / len(sigmas):.0%} of the time"
    )
    theirs = case["radius"][case["plist"] < chance]
    outside = int(((theirs < low) | (theirs > high)).sum())
    case.require(outside > 0, "upstream's radii should lie outside the range, but do not")
    case.note(
        f"upstream hands Pillow radii down to {float(theirs.min()):.1f}, {outside} of {len(theirs)} outside"
        f" {low}–{high}; ours are {min(applied):.2f}–{max(applied):.2f}"
    )


def picie_train_step(case: Case) -> None:
    weight, bias = case["w0"].clone().requires_grad_(), case["b0"].clone().requires_grad_()
    codes = [F.normalize(F.conv2d(x, weight, bias), dim=1) for x in (case["input1"], case["input2"])]
    weights = torch.stack([case["weight1"], case["weight2"]])
    if not case.params["balance"]:
        weights = torch.ones_like(weights)
    labels = case["label1"], case["label2"]
    within, across = view_losses(codes, labels, torch.stack([case["cent1"], case["cent2"]]), weights)
    loss = (within + across) / 2
    loss.backward()
    case.same("loss_within", within)
    case.same("loss_across", across)
    case.same("loss", loss)
    assert weight.grad is not None
    assert bias.grad is not None
    case.same("w1", case["w0"] - weight.grad)
    case.same("b1", case["b0"] - bias.grad)


picie_train_step_nobalance = picie_train_step


def picie_compute_labels(case: Case) -> None:
    code = F.normalize(F.conv2d(case["images"], case["conv_w"], case["conv_b"]), dim=1)
    found = label(code, case["centroids"])
    case.same("labels", found.flatten(1))
    counts = torch.bincount(found.flatten(), minlength=len(case["centroids"]))
    case.same("weight", class_weights(counts, "proportional"))


def picie_minibatch_kmeans_b1(case: Case) -> None:
    solver = MiniBatchKMeans(
        len(case["init_centroids"]),
        init_batches=case.params["num_init_batches"],
        update_batches=case.params["num_batches"],
        iterations=0,  # theirs was given these centroids as well
        init=case["init_centroids"],
    )
    for batch in case["features"]:
        solver.add(F.normalize(batch, dim=1).permute(0, 2, 3, 1).reshape(-1, batch.shape[1]))
    case.same("centroids", solver.centroids())
    case.same("kmeans_loss", solver.loss)


picie_minibatch_kmeans_b2 = picie_minibatch_kmeans_b1


def picie_evaluate(case: Case) -> None:
    """All classes as upstream; things and stuff by class, where upstream slices by cluster number."""
    k = case.params["K_test"]
    scores = F.conv2d(F.normalize(case["feat"], dim=1), case["clf_w"], case["clf_b"])
    counts = sum(
        (
            confusion(assign.labels(one.numpy(), tuple(true.shape)), true.numpy(), k, k)
            for one, true in zip(scores, case["label"], strict=True)
        ),
        np.zeros((k, k), np.int64),
    )
    found = score(counts)
    theirs = _match_of(case["new_hist"].numpy(), counts, found.match)
    if not np.array_equal(theirs, found.match):
        case.note(f"{(theirs != found.match).sum()} clusters could as well be matched otherwise; scored as upstream's")
        case.same("acc", 100 * found.accuracy)  # ours is as good a match
        found = score(counts, theirs)
    case.same("acc", 100 * found.accuracy)
    case.same("miou", 100 * found.miou)
    case.same("iou", 100 * found.iou[found.match])
    case.same("new_hist", counts.T[found.match].astype(np.float32))
    _things_and_stuff(case, counts, found.match)


def _things_and_stuff(case: Case, counts: Array, match: Array) -> None:
    """Upstream slices a matrix of clusters where it means one of classes."""
    upstream, ours = [], []
    for name, part in (("thing", slice(0, _THINGS)), ("stuff", slice(_THINGS, None))):
        by_cluster = case["new_hist"].numpy()[part, part]
        by_class = counts[np.argsort(match)].T[part, part]
        upstream += [float(case[f"acc_{name}_upstream"]), float(case[f"miou_{name}_upstream"])]
        ours += list(_partition(by_class))
        if not np.allclose(upstream[-2:], _partition(by_cluster), rtol=1e-4, equal_nan=True):
            case.note(f"upstream's {name} figures are not those of its slice by cluster number either")
    if set(match[:_THINGS]) != set(range(min(_THINGS, len(match)))):
        case.differs(
            upstream,
            ours,
            f"upstream slices things and stuff by cluster number: accuracy {upstream[0]:.1f} and {upstream[2]:.1f};"
            f" by class they are {ours[0]:.1f} and {ours[2]:.1f}",
        )


def _match_of(new_hist: Array, counts: Array, ours: Array) -> Array:
    """The class of every cluster in `new_hist`, whose row j is the ground truth of the class of cluster j."""
    free, found = list(range(counts.shape[1])), ours.copy()
    for cluster, row in enumerate(new_hist):
        fitting = [n for n in free if np.array_equal(counts[:, n], row)]
        if fitting:
            found[cluster] = ours[cluster] if ours[cluster] in fitting else fitting[0]
            free.remove(found[cluster])
    return found


def _partition(counts: Array) -> tuple[float, float]:
    """Accuracy and mean IoU, in percent, of a square of counts [true, predicted]; NaN where nothing is counted."""
    right = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - right
    if not union.any():
        return float("nan"), float("nan")
    return float(100 * right.sum() / counts.sum()), float(100 * (right[union > 0] / union[union > 0]).mean())


def picie_hist_metrics(case: Case) -> None:
    n = case.params["n"]
    given = case["hist"].numpy().astype(np.int64)  # rows are true
    found = score(given.T, np.arange(n))
    case.same("iou", 100 * found.iou)
    case.same("mean_iou", 100 * found.miou)
    case.same("acc", 100 * found.accuracy)
    turned = score(given, np.arange(n))  # their precision is over true classes: what others call recall
    case.same("prc", 100 * turned.precision)
    case.same("mean_prc", 100 * turned.mean_precision)
    case.same("scores", confusion(case["label_pred"].numpy(), case["label_true"].numpy(), n, n).T.astype(np.float32))
