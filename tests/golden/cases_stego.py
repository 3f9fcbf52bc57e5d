"""STEGO against arrays of the authors' code (the commit stands in the manifest): one function per case, of its name."""

from functools import partial
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from models import assign
from models.crf.dense import refine
from models.crf.params import CRFParams
from models.nets.backbone import VitBackbone
from models.nets.encoder import Encoder
from models.nets.heads import ProjectionHead
from models.nets.positions import resample_positions
from models.preprocess import IMAGENET
from tests.golden.runner import Case
from training.evaluation.metrics import EXTRA, Scores, confusion, match, score
from training.features.neighbors import neighbors
from training.losses.affinity import Kernel, affinity_loss
from training.losses.correspondence import (
    average_norm,
    correlation,
    correspondence,
    normalize,
    pair_loss,
    sample,
    shifted_permutation,
)
from training.losses.probes import ClusterProbe

AGREEMENT = 0.995  # of the CRF's labels: its lattice is an approximation, and ours was written anew
_UPSTREAM_HEADS = 6  # that upstream cuts the keys into, whatever the network


def stego_norm(case: Case) -> None:
    case.same("norm", normalize(case["t"], case.params["eps"]))
    case.same("average_norm", average_norm(case["t"]))


def stego_tensor_correlation(case: Case) -> None:
    case.same("out", correlation(case["a"], case["b"]))
    case.same("out_cos", correlation(normalize(case["a"]), normalize(case["b"])))


def stego_sample(case: Case) -> None:
    case.same("out", sample(case["t"], case["coords"]))


def stego_corr_helper(case: Case) -> None:
    """Every combination of switches there is: loss_zc{0,1}_pw{0,1}_st{0,1}."""
    for key in case.keys("loss_"):
        name = key.removeprefix("loss_")
        switches = {part[:2]: part[2:] == "1" for part in name.split("_")}
        code = case["c1"].clone().requires_grad_()
        pair = pair_loss(
            (case["f1"], case["f2"]),
            (code, case["c2"]),
            case["shift"],
            centering="code" if switches["pw"] else "none",
            zero_clamp=switches["zc"],
            stabilize=switches["st"],
        )
        pair.loss.mean().backward()
        case.same(key, pair.loss)
        case.same(f"gradc1_{name}", code.grad)
        case.same("cd", pair.similarity)


def stego_corr_forward(case: Case) -> None:
    params = case.params
    case.require(
        not params.get("use_salience"), "sampling by saliency is not offered: every published config has it off"
    )
    names = {"self": "pos_intra", "knn": "pos_inter", "rand": "neg_inter"}
    codes = [case[key].clone().requires_grad_() for key in ("code", "code_pos")]
    terms = correspondence(
        (case["feats"], case["feats_pos"]),
        (codes[0], codes[1]),
        (case["coords1"], case["coords2"]),
        list(case["perms"]),
        [params[f"{theirs}_shift"] for theirs in names.values()],
        centering="code" if params["pointwise"] else "none",
        zero_clamp=params["zero_clamp"],
        stabilize=params["stabalize"],
    )
    for ours, theirs in names.items():
        case.same(f"{theirs}_cd", terms[ours].similarity)
        wanted = case[f"{theirs}_loss"]
        case.same(
            f"{theirs}_loss", terms[ours].loss if wanted.ndim else terms[ours].loss.mean(), terms=terms[ours].loss
        )
    total = torch.stack([params["weights"][theirs] * terms[ours].loss.mean() for ours, theirs in names.items()]).sum()
    total.backward()
    case.same("total", total, terms=torch.cat([pair.loss.flatten() for pair in terms.values()]))
    case.same("grad_code", codes[0].grad)
    case.same("grad_code_pos", codes[1].grad)


def stego_cluster_lookup(case: Case) -> None:
    for alpha in case.params["alphas"]:
        probe = ClusterProbe(*case["clusters"].shape)
        probe.centers.data.copy_(case["clusters"])
        loss = probe.loss(case["x"], alpha)
        loss.backward()
        name = f"a{'none' if alpha is None else alpha}"
        case.same(f"loss_{name}", loss, terms=probe(case["x"]))
        case.same(f"gradclusters_{name}", probe.centers.grad)
        case.same(f"probs_{name}", probe.shares(probe(case["x"]), alpha))
        if alpha is not None:
            case.same(f"logprobs_{name}", (alpha * probe(case["x"])).log_softmax(1))


def stego_head(case: Case) -> None:
    parameters = [case[key] for key in ("w_lin", "b_lin", "w1", "b1", "w2", "b2")]
    channels, dim = case.params["in_channels"], case.params["dim"]
    case.same("code", _head(channels, dim, parameters)(case["x"]))
    case.same("code_linear", _head(channels, dim, parameters[:2])(case["x"]))


def _head(channels: int, dim: int, parameters: list[Tensor]) -> ProjectionHead:
    """Our head with their parameters: linear, and where there are more, hidden and output."""
    head = ProjectionHead(channels, dim, nonlinear=len(parameters) > 2)
    with torch.no_grad():
        for ours, theirs in zip(head.parameters(), parameters, strict=True):
            ours.copy_(theirs)
    return head


@torch.no_grad()
def stego_dino_vit(case: Case) -> None:
    params = case.params
    vit = VisionTransformer(
        img_size=params["img_size"],
        patch_size=params["patch"],
        embed_dim=params["embed"],
        depth=params["depth"],
        num_heads=params["heads"],
        mlp_ratio=params["mlp_ratio"],
        norm_layer=partial(nn.LayerNorm, eps=params["ln_eps"]),
        num_classes=0,
    )
    vit.load_state_dict(case.parameters())
    backbone, keys = VitBackbone(vit).eval(), VitBackbone(vit, features="keys").eval()
    image, grid = case["img"], case["image_feat"].shape[-2:]
    own, spatial = vit.pos_embed[:, :1], vit.pos_embed[:, 1:]
    case.same("pos", torch.cat([own, resample_positions(spatial, backbone.grid, *grid)], 1))
    tokens = backbone.tokens(image)
    case.same("tokens", tokens)
    case.same("cls_feat", tokens[:, 0, :, None, None])
    case.same("image_feat", backbone(image))
    case.same("tokens_default_grid", backbone.tokens(case["img_default_grid"]))
    queries, seen = backbone.queries_keys(image)
    attention = (queries @ seen.transpose(2, 3) / queries.shape[-1] ** 0.5).softmax(-1)
    case.same("attn", attention[:, :, : case["attn"].shape[2]])
    if params["heads"] == _UPSTREAM_HEADS:
        case.same("image_feat_kk", keys(image))
    else:
        reason = f"upstream cuts the keys of {params['heads']} heads into {_UPSTREAM_HEADS}; ours are the real ones"
        case.differs(case["image_feat_kk"], keys(image), reason)
    names = [f"cluster{part}.{kind}" for part in ("1.0", "2.0", "2.2") for kind in ("weight", "bias")]
    head = case.parameters("h:")
    encoder = Encoder(backbone, _head(params["embed"], case["code"].shape[1], [head[name] for name in names]))
    case.same("code", encoder.code(image))


def stego_crf_loss(case: Case) -> None:
    kernel = Kernel(**{field: case.params[field] for field in Kernel._fields})
    case.same("out", affinity_loss(case["guidance"], case["clusters"], case["coords"], kernel))


def stego_dense_crf(case: Case) -> None:
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET.mean, IMAGENET.std))
    image = ((case["image"] * std + mean) * 255).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    upsampled = F.interpolate(case["logits"][None], size=image.shape[:2], mode="bilinear", align_corners=False)
    params = case.params
    theirs = CRFParams(
        iterations=params["MAX_ITER"],
        gaussian_sxy=params["POS_XY_STD"],
        gaussian_compat=params["POS_W"],
        bilateral_sxy=params["Bi_XY_STD"],
        bilateral_srgb=params["Bi_RGB_STD"],
        bilateral_compat=params["Bi_W"],
    )
    labels, shares = refine(upsampled[0].softmax(0).numpy(), image.contiguous().numpy(), theirs, return_marginals=True)
    agree = float((torch.from_numpy(labels.astype(np.int64)) == case["Q"].argmax(0)).float().mean())
    off = (torch.from_numpy(shares) - case["Q"]).abs()
    case.error = float(off.max())
    case.note(f"{agree:.2%} of the labels equal, mean |ΔQ| {float(off.mean()):.1e}")
    case.require(agree >= AGREEMENT, f"{AGREEMENT:.1%} of the labels are to be equal")


def stego_super_perm(case: Case) -> None:
    case.same("out", torch.stack([shifted_permutation(drawn) for drawn in case["randperm"]]))


def stego_knn(case: Case) -> None:
    means = case["feat_maps"].mean((2, 3))
    case.same("global_feats", F.normalize(means, dim=1))
    case.same("nns", neighbors(means, case.params["k"] - 1))


def stego_eval_chain(case: Case) -> None:
    """Flip average, then log-probabilities of both probes at the labels' size."""
    code = (case["code"] + case["code_of_flipped"].flip(-1)) / 2
    size = tuple(case.params["out_size"])
    cosines = torch.einsum("kd,bdhw->bkhw", F.normalize(case["clusters"], dim=1), code)
    logits = F.conv2d(code, case["lin_w"], case["lin_b"])
    alpha = case.params["alpha"]
    clusters = [
        assign.probabilities(one.numpy(), whole.numpy(), size, temperature=alpha)
        for one, whole in zip(cosines, code, strict=True)
    ]
    linear = [assign.probabilities(one.numpy(), None, size, temperature=1, assignment="dot") for one in logits]
    case.same("cluster_logprobs", np.log(np.stack(clusters)))
    case.same("linear_logprobs", np.log(np.stack(linear)))
    labels = np.stack([assign.labels(one.numpy(), size) for one in cosines])
    case.require(bool((labels == case["cluster_logprobs"].argmax(1).numpy()).all()), "labels differ")


def stego_metrics_hungarian(case: Case) -> None:
    n = case.params["n_classes"]
    counts = _counted(case, n + case.params["extra_clusters"], n)
    case.same("stats", counts)
    found = score(counts)
    case.same("assign_cols", match(counts)[case["assign_rows"].numpy()])
    case.same("map_of_ids", found.match)
    _same_scores(case, found)
    case.same("histogram", counts[np.argsort(found.match)])


def stego_metrics_linear(case: Case) -> None:
    n = case.params["n_classes"]
    counts = _counted(case, n, n)
    case.same("stats", counts)
    case.same("histogram", counts)
    _same_scores(case, score(counts, np.arange(n)))


def stego_metrics_extra(case: Case) -> None:
    """Upstream forgets every pixel of an extra cluster. Ours counts it, as an error where no class matches."""
    n, extra = case.params["n_classes"], case.params["extra_clusters"]
    counts = _counted(case, n + extra, n)
    forgetful = counts.copy()
    forgetful[n:] = 0
    theirs = score(forgetful)  # what upstream's slip makes of our own counts
    case.same("stats", forgetful)
    case.same("assign_cols", theirs.match[case["assign_rows"].numpy()])
    ordered = np.zeros((n + 1, n + 1), np.float32)
    ordered[:n, :n] = forgetful[[int(np.flatnonzero(theirs.match == label)[0]) for label in range(n)]]
    ordered[n, :n] = forgetful[theirs.match == EXTRA].sum(0)
    case.same("histogram", ordered)
    _same_scores(case, theirs)
    if not np.array_equal(case["map_of_ids"].numpy(), theirs.match):
        case.note("upstream's map of ids puts its extra clusters in the wrong places")
    ours = score(counts)
    case.require((ours.match == EXTRA).sum() == extra, f"{extra} clusters are to be left over")
    lost = counts[n:].sum() / counts.sum()
    case.differs(
        [float(case["accuracy"]), float(case["mIoU"])],
        [100 * ours.accuracy, 100 * ours.miou],
        f"upstream leaves out the {lost:.0%} of pixels in extra clusters: accuracy {float(case['accuracy']):.1f},"
        f" mIoU {float(case['mIoU']):.1f}; ours counts them: {100 * ours.accuracy:.1f}, {100 * ours.miou:.1f}",
    )


def _counted(case: Case, clusters: int, classes: int) -> np.ndarray[Any, Any]:
    """All batches. Theirs has predictions of −1 and leaves them out; our label maps have no such value."""
    total = np.zeros((clusters, classes), np.int64)
    for key in case.keys("preds"):
        predicted, true = case[key].numpy(), case[key.replace("preds", "target")].numpy()
        given = (predicted >= 0) & (predicted < clusters)
        total += confusion(predicted[given], true[given], clusters, classes)
    return total


def _same_scores(case: Case, found: Scores) -> None:
    case.same("mIoU", 100 * found.miou)
    case.same("accuracy", 100 * found.accuracy)
