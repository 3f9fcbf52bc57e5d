"""CAUSE against arrays of the authors' code (the commit stands in the manifest): one function per case, of its name."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import assign
from models.nets.codebook import CodebookDecoder, quantize
from models.nets.heads import ProjectionHead
from tests.golden.runner import Case
from training.clustering.kmeans import nearest
from training.evaluation.metrics import confusion, score
from training.losses.concepts import ConceptBank, concept_contrast, ema_update
from training.losses.correspondence import correlation, normalize
from training.losses.modularity import affinity, assignment, modularity, modularity_loss, thin
from training.losses.probes import ClusterProbe


def _maps(tokens: Tensor) -> Tensor:
    """Tokens [B, P, D] of a square grid as maps [B, D, s, s]."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def _probe(centers: Tensor) -> ClusterProbe:
    probe = ClusterProbe(*centers.shape)
    probe.centers.data.copy_(centers)
    return probe


def _project(weights: dict[str, Tensor], head: nn.Module) -> None:
    """Their f1 (linear) and f2 (hidden, output) into our head, whose parameters stand in that order."""
    parts = [f"{part}.{kind}" for part in ("f1", "f2.0", "f2.2") for kind in ("weight", "bias")]
    with torch.no_grad():
        for ours, theirs in zip(head.parameters(), parts, strict=True):
            ours.copy_(weights[theirs])


@torch.no_grad()
def cause_mlp_head(case: Case) -> None:
    head = ProjectionHead(case["feat"].shape[2], case["seg_feat"].shape[2])
    _project(case.parameters("p:head."), head)
    code = head(_maps(case["feat"]))
    case.same("seg_feat", _tokens(code))
    projection, linear = case.parameters("p:projection_head.f."), case.parameters("p:linear.f.")
    case.same("proj", _tokens(F.conv2d(code, projection["weight"], projection["bias"])))
    case.same("linear", F.conv2d(code, linear["weight"], linear["bias"]))


@torch.no_grad()
def cause_tr_decoder(case: Case) -> None:
    weights = case.parameters("p:tr.")
    concepts, channels = case["codebook"].shape
    side = math.isqrt(case["feat"].shape[1])
    hidden = len(weights["linear1.weight"])
    head = CodebookDecoder(channels, case["out"].shape[2], (side, side), concepts=concepts, hidden=hidden).eval()
    head.codebook.copy_(case["codebook"])
    head.positions.copy_(case["p:query_pos"])
    head.layer.load_state_dict({k: v for k, v in weights.items() if not k.startswith(("f1.", "f2."))})
    _project(weights, head.projection)
    case.same("vq", quantize(case["feat"], case["codebook"])[1])
    case.same("out", _tokens(head(_maps(case["feat"]))))


def cause_vq(case: Case) -> None:
    z, c = case["z"], case["c"]
    index, rows = quantize(z, c)
    case.same("index_cos", index)
    case.same("vqt", rows)
    case.same("cos", _tokens(_probe(c)(z.transpose(1, 2)[..., None])))
    flat, dim = z.flatten(0, 1), z.shape[2]
    case.same("index_l2", nearest(flat, c)[1].reshape(z.shape[:2]))
    squares = torch.stack([nearest(flat, one[None])[0] for one in c], 1).reshape(*z.shape[:2], -1)
    case.same("l2sim", torch.exp(-squares / dim / dim / 2))
    unit = normalize(z[:1].transpose(1, 2)[..., None])
    case.same("auto_cs", correlation(unit, unit)[0, :, 0, :, 0])


def cause_modularity(case: Case) -> None:
    """The loss at every temperature there is: loss at the parameters' own, loss_t0.05 and the like."""
    x = case["x"]
    excess, edges = modularity(affinity(x))
    case.same("W", excess)
    case.same("e", edges)
    euclidean, their_edges = modularity(affinity(x, "euclidean"))
    case.same("W_l2", euclidean)
    case.same("e_l2", their_edges)
    case.same("C", assignment(x, case["c"]))
    added = excess.abs().sum((1, 2)).mean() / edges.mean()  # what the loss is a sum of, however much of it cancels
    for key in case.keys("loss"):
        suffix = key.removeprefix("loss")
        centers = case["c"].clone().requires_grad_()
        temperature = float(suffix.removeprefix("_t")) if suffix else case.params["temp"]
        loss = modularity_loss(x, centers, temperature)
        loss.backward()
        case.same(key, loss, terms=added)
        case.same(f"grad{suffix}" if suffix else "grad_c", centers.grad)


def cause_stochastic_sampling(case: Case) -> None:
    case.same("out", thin(case["x"], case["order"], case.params["k"]))


def cause_contrastive(case: Case) -> None:
    codebook, params = case["codebook"], case.params
    bank = ConceptBank(len(codebook), case["proj_ema"].shape[2], params["bank_max"])

    def held_against(partners: ConceptBank | None, name: str) -> None:
        student = case["proj"].clone().requires_grad_()
        loss = concept_contrast(
            student,
            case["proj_ema"],
            case["feat"],
            codebook,
            partners,
            temperature=params["temp"],
            positive=params["pos_thresh"],
            negative=params["neg_thresh"],
        )
        loss.backward()
        case.same(f"loss_{name}", loss)
        case.same(f"gradproj_{name}", student.grad)

    held_against(None, "nobank")
    held_against(bank, "nobank")  # an empty bank changes nothing
    orders = [order[order >= 0] for order in case["perms"]]
    for key in case.keys("bank_feat"):
        ids = quantize(case[key], codebook)[0]
        count = len(ids.unique())
        if key == "bank_feat1":
            case.same("n_perms_update1", torch.tensor(count))
        bank.add(ids, case[key.replace("feat", "proj")], permutations=orders[:count])
        orders = orders[count:]
    concepts, keys = bank.ordered()
    case.same("bank_lens", torch.bincount(concepts, minlength=len(codebook)))
    case.same("bank_vq", F.normalize(codebook, dim=1)[concepts])
    case.same("bank_keys", keys)
    held_against(bank, "bank")


def cause_cluster_probe(case: Case) -> None:
    code = _maps(case["x"])
    probe = _probe(case["cluster_probe"])
    loss = probe.loss(code)
    loss.backward()
    case.same("loss", loss)
    case.same("gradprobe", probe.centers.grad)
    case.same("pred", probe(code).argmax(1))
    size = tuple(code.shape[2:])
    scores = torch.einsum("kd,bdhw->bkhw", probe.centroids(), code)
    case.same("inference", np.stack([assign.labels(one.numpy(), size) for one in scores]))
    found = [
        assign.probabilities(one.numpy(), whole.numpy(), size, temperature=case.params["alpha"])
        for one, whole in zip(scores, code, strict=True)
    ]
    case.same("crf_logprobs", np.log(np.stack(found)))


def cause_ema(case: Case) -> None:
    student, teacher = (nn.Linear(*case["student_w"].shape[::-1]) for _ in range(2))
    with torch.no_grad():
        for module, weight, bias in ((student, "student_w", "student_b"), (teacher, "teacher_w0", "teacher_b0")):
            module.weight.copy_(case[weight])
            module.bias.copy_(case[bias])
    ema_update(teacher, student, case.params["lamb"])
    case.same("teacher_w1", teacher.weight)
    case.same("teacher_b1", teacher.bias)


def cause_metrics(case: Case) -> None:
    n = case.params["n_classes"]
    counts = np.zeros((n, n), np.int64)
    for key in case.keys("pred"):
        counts += confusion(case[key].numpy(), case[key.replace("pred", "label")].numpy(), n, n)
    case.same("histogram", counts.astype(np.float32))
    found = score(counts)
    case.same("assign_cols", found.match)
    case.same("hungarian_ids", found.match)
    case.same("mIoU", 100 * found.miou)
    case.same("mAP", 100 * found.mean_precision)
    case.same("Acc", 100 * found.accuracy)
