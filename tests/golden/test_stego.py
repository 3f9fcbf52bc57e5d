"""STEGO against arrays of the authors' code (the commit stands in data/manifest.json)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import assign
from models.nets.backbone import MEAN, STD, VitBackbone
from models.nets.encoder import Encoder
from models.nets.heads import ProjectionHead
from training.correspondence import (
    correlation,
    correspondence,
    normalize,
    pair_loss,
    sample,
    shifted_permutation,
)
from training.features import neighbors
from training.metrics import EXTRA, confusion, match, score
from training.probes import ClusterProbe


def test_norm(golden, same):
    case = golden("stego_norm")
    same(normalize(case.t), case.norm)


def test_tensor_correlation(golden, same):
    case = golden("stego_tensor_correlation")
    same(correlation(case.a, case.b), case.out)
    same(correlation(normalize(case.a), normalize(case.b)), case.out_cos)


def test_sample(golden, same):
    case = golden("stego_sample")
    same(sample(case.t, case.coords), case.out)


@pytest.mark.parametrize(("clamp", "centered", "stable"), list(product((0, 1), repeat=3)))
def test_pair_loss(golden, same, clamp, centered, stable):
    case = golden("stego_corr_helper")
    code = case.c1.clone().requires_grad_()
    pair = pair_loss(
        (case.f1, case.f2),
        (code, case.c2),
        case.shift,
        centering="code" if centered else "none",
        zero_clamp=bool(clamp),
        stabilize=bool(stable),
    )
    pair.loss.mean().backward()
    name = f"zc{clamp}_pw{centered}_st{stable}"
    same(pair.loss, getattr(case, f"loss_{name}"))
    same(pair.similarity, case.cd)
    same(code.grad, getattr(case, f"gradc1_{name}"))


def test_correspondence(golden, same):
    case = golden("stego_corr_forward")
    params = case.params
    codes = case.code.clone().requires_grad_(), case.code_pos.clone().requires_grad_()
    terms = correspondence(
        (case.feats, case.feats_pos),
        codes,
        (case.coords1, case.coords2),
        list(case.perms),
        [params["pos_intra_shift"], params["pos_inter_shift"], params["neg_inter_shift"]],
    )
    for ours, theirs in (("self", "pos_intra"), ("knn", "pos_inter"), ("rand", "neg_inter")):
        same(terms[ours].similarity, getattr(case, f"{theirs}_cd"))
    same(terms["self"].loss.mean(), case.pos_intra_loss)
    same(terms["knn"].loss.mean(), case.pos_inter_loss)
    same(terms["rand"].loss, case.neg_inter_loss)
    weights = params["weights"]
    total = sum(
        weights[theirs] * terms[ours].loss.mean()
        for ours, theirs in (("self", "pos_intra"), ("knn", "pos_inter"), ("rand", "neg_inter"))
    )
    total.backward()
    same(total, case.total)
    same(codes[0].grad, case.grad_code)
    same(codes[1].grad, case.grad_code_pos)


@pytest.mark.parametrize("alpha", [None, 2, 3])
def test_cluster_lookup(golden, same, alpha):
    case = golden("stego_cluster_lookup")
    probe = ClusterProbe(*case.clusters.shape)
    probe.centers.data.copy_(case.clusters)
    loss = probe.loss(case.x, alpha)
    loss.backward()
    name = f"a{'none' if alpha is None else alpha}"
    same(loss, getattr(case, f"loss_{name}"))
    same(probe.centers.grad, getattr(case, f"gradclusters_{name}"))
    same(probe.shares(probe(case.x), alpha), getattr(case, f"probs_{name}"))
    if alpha is not None:
        same((alpha * probe(case.x)).log_softmax(1), getattr(case, f"logprobs_{name}"))


def test_head(golden, same):
    case = golden("stego_head")
    head = ProjectionHead(case.params["in_channels"], case.params["dim"])
    load_head(head, case, ["w_lin", "b_lin", "w1", "b1", "w2", "b2"])
    same(head(case.x), case.code)
    head.mlp = None
    same(head(case.x), case.code_linear)


def load_head(head, case, names):
    """Their parameters into our head, in its own order: linear, hidden, output."""
    with torch.no_grad():
        for ours, theirs in zip(head.parameters(), names, strict=True):
            ours.copy_(getattr(case, theirs))


def test_dino_vit(golden, same):
    from timm.models.vision_transformer import VisionTransformer

    case = golden("stego_dino_vit")
    params = case.params
    vit = VisionTransformer(
        img_size=params["img_size"],
        patch_size=params["patch"],
        embed_dim=params["embed"],
        depth=params["depth"],
        num_heads=params["heads"],
        num_classes=0,
    )
    vit.load_state_dict({k[2:]: v for k, v in vars(case).items() if k.startswith("p:")})
    backbone = VitBackbone(vit).eval()
    head = ProjectionHead(params["embed"], 5)
    names = [f"h:cluster{part}.{kind}" for part in ("1.0", "2.0", "2.2") for kind in ("weight", "bias")]
    load_head(head, case, names)
    with torch.inference_mode():
        same(backbone(case.img), case.image_feat)
        same(Encoder(backbone, head).code(case.img), case.code)
        dense = case.tokens_default_grid[:, 1:].transpose(1, 2).reshape(1, params["embed"], 4, 4)
        same(backbone(case.img_default_grid), dense)


def test_super_perm(golden, same):
    case = golden("stego_super_perm")
    same(torch.stack([shifted_permutation(drawn) for drawn in case.randperm]), case.out)


def test_knn(golden, same):
    case = golden("stego_knn")
    means = case.feat_maps.mean((2, 3))
    same(F.normalize(means, dim=1), case.global_feats)
    same(neighbors(means, case.params["k"] - 1), case.nns)


def test_eval_chain(golden, same):
    case = golden("stego_eval_chain")
    code = (case.code + case.code_of_flipped.flip(-1)) / 2
    centroids = F.normalize(case.clusters, dim=1)
    scores = torch.einsum("kd,bdhw->bkhw", centroids, code)
    for one, theirs in enumerate(case.cluster_logprobs):
        ours = assign.probabilities(
            scores[one].numpy(),
            code[one].numpy(),
            tuple(case.params["out_size"]),
            temperature=case.params["alpha"],
        )
        same(np.log(ours), theirs)
        labels = assign.labels(scores[one].numpy(), tuple(case.params["out_size"]))
        same(labels, theirs.argmax(0))


def test_metrics_hungarian(golden, same):
    case = golden("stego_metrics_hungarian")
    counts = counted(case, 5)
    same(counts, case.stats)
    found = score(counts)
    same(found.miou * 100, case.mIoU)
    same(found.accuracy * 100, case.accuracy)
    same(match(counts)[case.assign_rows.numpy()], case.assign_cols)
    same(found.match, case.map_of_ids)


def test_metrics_linear(golden, same):
    case = golden("stego_metrics_linear")
    found = score(counted(case, 5), np.arange(5))
    same(found.miou * 100, case.mIoU)
    same(found.accuracy * 100, case.accuracy)


def test_extra_clusters_are_not_dropped(golden):
    """Theirs forgets every pixel of an extra cluster; ours counts it as an error."""
    case = golden("stego_metrics_extra")
    counts = counted(case, 7)
    assert np.array_equal(counts[:5], case.stats.numpy()[:5])
    assert case.stats[5:].sum() == 0 < counts[5:].sum()
    found = score(counts)
    assert (found.match == EXTRA).sum() == 2
    assert abs(found.accuracy * 100 - float(case.accuracy)) > 1


def counted(case, clusters):
    """Both batches. Theirs has predictions of −1 and leaves them out; our label maps have no such value."""
    pairs = ((case.preds0, case.target0), (case.preds1, case.target1))
    return sum(confusion(p[p >= 0].numpy(), t[p >= 0].numpy(), clusters, 5) for p, t in pairs)


def test_dense_crf(golden):
    """The lattice is an approximation: one written anew agrees on the labels and, to 1e-3, on the shares."""
    from models.crf import refine

    case = golden("stego_dense_crf")
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    image = ((case.image * std + mean) * 255).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    upsampled = F.interpolate(case.logits[None], size=image.shape[:2], mode="bilinear", align_corners=False)
    labels, shares = refine(upsampled[0].softmax(0).numpy(), image.numpy(), return_marginals=True)
    assert (torch.from_numpy(labels.astype(np.int64)) == case.Q.argmax(0)).float().mean() >= 0.995
    assert float((torch.from_numpy(shares) - case.Q).abs().mean()) < 1e-3
