"""Labels that a teacher gives to whole masks, and the cross-entropy of a student with them.

Knows nothing of networks, nor of where masks come from.

Source: PriMaPs-EM (arXiv:2404.16818) §3.2 and §3.3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training import distributed
from training.data.label_maps import IGNORED

_MASKS = 256  # of an image, what is in none among them


def majority(labels: Tensor, masks: Tensor, k: int) -> Tensor:
    """The class that most pixels of a pixel's mask have, the lower one of equals; IGNORED in no mask: int64 [B, H, W].

    labels  int64 [B, H, W], 0..k-1
    masks   uint8 [B, H, W], 0: no mask
    """
    of = torch.arange(len(masks), device=masks.device)[:, None, None] * _MASKS + masks
    votes = torch.bincount((of * k + labels).flatten(), minlength=len(masks) * _MASKS * k)
    winner = votes.view(-1, k).argmax(1)
    return torch.where(masks == 0, IGNORED, winner[of])


def confidence_weighted(logits: Tensor, labels: Tensor, gamma: float, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy, in which a class counts (1 − its mean probability) ** gamma: the mean over all pixels.

    logits  float [B, K, H, W]
    labels  int64 [B, H, W], IGNORED: counts as 0, though the pixel is one of those that the mean is over
    valid   bool [B, H, W], the pixels that hold data and are in the means; None: all of them

    The mean probabilities are those of the whole batch and have no gradient. Of several processes, each with its share
    of the batch, what averages to the loss of all of it.
    """
    logs = logits.log_softmax(1)
    with torch.no_grad():
        confidence = logs.exp()
        inside = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        sums = torch.cat([(confidence * inside[:, None]).sum((0, 2, 3)), inside.sum()[None].to(confidence)])
        portion = distributed.portion(sums[-1])
        mean = (every := distributed.all_reduce_(sums.clone()))[:-1] / every[-1].clamp(min=1)
        weights = (1 - mean) ** gamma
    told = torch.where(inside, labels, IGNORED)
    nll = F.nll_loss(logs, told, weight=weights, ignore_index=IGNORED, reduction="none")
    return portion * nll.sum() / sums[-1].clamp(min=1)
