"""The correspondence loss: codes are to resemble each other where features do.

Knows nothing of images, networks or optimizers: maps in, numbers out.

Source: STEGO, Unsupervised Semantic Segmentation by Distilling Feature Correspondences
(arXiv:2203.08414) §3; facts of the published code where the paper is silent.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import validity

Centering = Literal["code", "paper", "none"]

_ROUNDING = 1e-4  # of a bilinear sample's weights


class Pair(NamedTuple):
    """Loss and code similarity of every pair of sampled points: both [N, S, S, S, S]."""

    loss: Tensor
    similarity: Tensor


def normalize(x: Tensor, eps: float = 1e-10) -> Tensor:
    """Every pixel of x [B, C, h, w] at length 1; one shorter than eps is divided by eps instead."""
    return F.normalize(x, dim=1, eps=eps)


def average_norm(x: Tensor) -> Tensor:
    """x [B, C, h, w] over the mean length of all its pixels: lengths keep their ratios and are 1 on average."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1).mean()
    return x / length


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Dot product of every pixel of a [N, C, h, w] with every pixel of b [N, C, i, j]: [N, h, w, i, j]."""
    return torch.einsum("nchw,ncij->nhwij", a, b)


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples [N, C, S, S] of maps [N, C, h, w] at points [N, S, S, 2], (x, y) in −1..1.

    The two S axes come out transposed, as in the published code; drawn at random, they are alike.
    """
    return F.grid_sample(maps, points.transpose(1, 2), padding_mode="border", align_corners=True)


def center(similarity: Tensor, centering: Centering) -> Tensor:
    """Feature similarities [N, h, w, i, j] less the mean over the other map's pixels.

    paper  F − mean over (i, j) of F                            (eq. 3)
    code   the same, then shifted so that the overall mean is what it was; the published shifts need this
    """
    if centering == "none":
        return similarity
    centered = similarity - similarity.mean((3, 4), keepdim=True)
    return centered if centering == "paper" else centered - centered.mean() + similarity.mean()


def pair_loss(
    features: tuple[Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    shift: float | Tensor,
    *,
    centering: Centering = "code",
    zero_clamp: bool = True,
    stabilize: bool = False,
) -> Pair:
    """−S · (F − shift) for every pair of points of two maps.

    features    two float [N, C, S, S]; no gradient flows into them
    codes       two float [N, D, S, S]; both receive gradients
    zero_clamp  a negative S counts as 0, so that codes that should differ become unrelated, not opposite
    stabilize   an S over 0.8 counts as 0.8: enough is enough

    Source: §3, eq. 4.
    """
    with torch.no_grad():
        units = normalize(features[0]), normalize(features[1])
    return _pair_loss(units, codes, shift, centering, zero_clamp, stabilize)


def _pair_loss(
    units: tuple[Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    shift: float | Tensor,
    centering: Centering,
    zero_clamp: bool,
    stabilize: bool,
) -> Pair:
    """`pair_loss` of features of length 1: an image's own take part in every term, and are brought there once."""
    with torch.no_grad():
        wanted = center(correlation(*units), centering)
    similarity = correlation(*map(normalize, codes))
    clamped = similarity.clamp(min=0.0 if zero_clamp else -9999.0, max=0.8 if stabilize else None)
    return Pair(-clamped * (wanted - shift), similarity)


def correspondence(
    features: tuple[Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    points: tuple[Tensor, Tensor],
    others: Sequence[Tensor],
    shifts: Sequence[float] | Tensor,
    *,
    centering: Centering = "code",
    zero_clamp: bool = True,
    stabilize: bool = False,
    valid: tuple[Tensor | None, Tensor | None] = (None, None),
    generator: torch.Generator | None = None,
) -> dict[str, Pair]:
    """The three terms: an image with itself, with a neighbor, with random other images.

    features, codes  of the images and of one neighbor each: float [B, C, h, w], float [B, D, h, w]
    points           where the image is sampled, and where all its partners are: float [B, S, S, 2]
    others           one int64 [B] per negative: which image of the batch is the partner; may be empty
    shifts           b for self, knn, rand: similarities above it attract, below it repel
    valid            which cells of the images and of the neighbors hold data, bool [B, h, w]; None: all of them
    generator        draws the points that stand for those without data

    returns          self, knn and (unless `others` is empty) rand; rand holds [len(others) · B, S, S, S, S]
    """

    def unit(maps: Tensor, at: Tensor) -> Tensor:
        with torch.no_grad():
            return normalize(sample(maps, at))

    def sampled(which: int, at: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps, code, known = features[which], codes[which], valid[which]
        if known is not None:
            at = onto_valid(at, known if order is None else known[order], generator)
        if order is None:
            return unit(maps, at), sample(code, at)
        turned = order.argsort()
        if torch.equal(order[turned], torch.arange(len(order), device=order.device)):
            # A permutation: maps are sampled where their images are partners, and samples change places, not maps.
            return unit(maps, at[turned])[order], sample(code, at[turned])[order]
        return unit(maps[order], at), sample(code[order], at)

    def term(other: tuple[Tensor, Tensor], shift: float | Tensor) -> Pair:
        return _pair_loss((own[0], other[0]), (own[1], other[1]), shift, centering, zero_clamp, stabilize)

    here, there = points
    own = sampled(0, here)
    terms = {"self": term(own, shifts[0]), "knn": term(sampled(1, there), shifts[1])}
    drawn = [term(sampled(0, there, o), shifts[2]) for o in others]
    if drawn:
        terms["rand"] = Pair(torch.cat([p.loss for p in drawn]), torch.cat([p.similarity for p in drawn]))
    return terms


def reconstruction(decoded: Tensor, features: Tensor, valid: Tensor | None = None) -> Tensor:
    """−mean over pixels of the cosine between what was decoded from the code and the features: both [B, C, h, w].

    valid  bool [B, h, w], the pixels that hold data; None: all of them

    Source: the published code; its weight is 0 in every published run.
    """
    return -validity.mean((normalize(decoded) * normalize(features)).sum(1), valid)


def draw_points(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Uniform points [count, side, side, 2] in −1..1."""
    return 2 * torch.rand(count, side, side, 2, generator=generator) - 1


def onto_valid(points: Tensor, valid: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The points, those to which a cell without data would add moved to the middle of a random cell that holds some.

    points  float [N, S, S, 2], (x, y) in −1..1, as `sample` takes them
    valid   bool [N, h, w], some of every map
    """
    height, width = valid.shape[1:]
    whole = sample(valid[:, None].to(points), points)[:, 0].transpose(1, 2) > 1 - _ROUNDING
    cell = validity.draw(valid.flatten(1), points.shape[1] * points.shape[2], generator).view(whole.shape)
    last = torch.tensor([max(1, width - 1), max(1, height - 1)]).to(points)  # corners stand for middles of cells
    middle = 2 * torch.stack([cell % width, cell // width], dim=-1) / last - 1
    return torch.where(whole[..., None], points, middle)


def derangement(n: int, generator: torch.Generator) -> Tensor:
    """A permutation int64 [n] that maps nothing to itself, every one equally likely. n ≥ 2.

    Drawn again until it fits: that takes e ≈ 2.7 draws on average, whatever n.
    """
    if n < 2:
        raise ValueError("one image alone has no other image")
    own = torch.arange(n)
    while bool(((drawn := torch.randperm(n, generator=generator)) == own).any()):
        pass
    return drawn


def shifted_permutation(drawn: Tensor) -> Tensor:
    """Upstream's way to avoid itself: every fixed point i of a permutation becomes i + 1, modulo n.

    No longer a permutation: at 16 images, 58 % of the draws use one image twice.
    """
    own = torch.arange(len(drawn))
    return (drawn + (drawn == own)) % len(drawn)


def drop_channels(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Whole channels of x [B, C, h, w] set to 0 at `rate`, the rest scaled to make up for them."""
    if not rate:
        return x
    kept = torch.rand(x.shape[0], x.shape[1], 1, 1, generator=generator) >= rate
    return x * (kept / (1 - rate)).to(x)
