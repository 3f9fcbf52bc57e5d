"""Concepts held against each other: tokens of like concepts attract, of unlike ones repel.

Knows nothing of networks or images: projections of a student and a teacher, and the tokens' concepts. A concept is a
row of a codebook; how alike two tokens are is how alike their concepts are.

Source: CAUSE (arXiv:2310.07379), concept-wise contrastive learning.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.nets.codebook import quantize
from training import distributed

_BLOCK = 2**25  # scores at once: 134 MB, and a few times that while their gradient is taken
_FIRST_ROWS = 1024


class ConceptBank(nn.Module):
    """The newest `keep` teacher projections of every concept, at length 1.

    Takes memory for what it holds: at most concepts × keep × dim floats (the published 2048 × 100 × 2048: 1.7 GB), and
    twice that for a moment when it grows. Whatever it holds is in its state_dict, so a checkpoint grows with it.
    """

    rows: Tensor
    owner: Tensor
    table: Tensor
    filled: Tensor
    used: Tensor

    def __init__(self, concepts: int, dim: int, keep: int = 100) -> None:
        super().__init__()
        self.concepts, self.dim, self.keep = concepts, dim, keep
        self.register_buffer("rows", torch.zeros(0, dim))  # the projections, in the order of their first use
        self.register_buffer("owner", torch.zeros(0, dtype=torch.int64))  # the concept of every row
        self.register_buffer("table", torch.full((concepts, keep), -1))  # concept, place in its ring → row
        self.register_buffer("filled", torch.zeros(concepts, dtype=torch.int64))  # ever added, of every concept
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))  # rows that hold something

    def __len__(self) -> int:
        return int(self.used)

    @torch.no_grad()
    def add(
        self,
        ids: Tensor,
        projections: Tensor,
        generator: torch.Generator | None = None,
        permutations: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds a random half of every concept's tokens; a concept over `keep` loses its oldest.

        ids           int64 [...], the concept of every token
        projections   float [..., dim]
        permutations  instead of chance: for every concept in `ids`, by rising number, an order of its tokens
                      whose first half is taken (int [at least half of its tokens])
        """
        ids = ids.flatten()
        chosen = first_halves(ids, generator, permutations)
        ids, added = ids[chosen], F.normalize(projections.reshape(-1, self.dim)[chosen], dim=-1)
        count = torch.bincount(ids, minlength=self.concepts)
        rank = _rank_within(ids, count)
        last = rank >= count[ids] - self.keep  # more at once than it can hold: the newest
        place = (self.filled[ids] + rank) % self.keep
        self.filled += count
        ids, place, added = ids[last], place[last], added[last]
        row = self.table[ids, place]
        new = row < 0
        row[new] = len(self) + torch.arange(int(new.sum()), device=row.device)
        self._grow(len(self) + int(new.sum()))
        self.table[ids, place] = row
        self.rows[row], self.owner[row] = added.to(self.rows), ids
        self.used += new.sum()

    def held(self) -> tuple[Tensor, Tensor]:
        """(concepts int64 [n], projections float [n, dim]) of everything held, in no order; views, not copies."""
        return self.owner[: len(self)], self.rows[: len(self)]

    def ordered(self) -> tuple[Tensor, Tensor]:
        """As `held`, by concept, each concept's oldest first; a copy."""
        start = torch.where(self.filled > self.keep, self.filled % self.keep, 0)
        places = (start[:, None] + torch.arange(self.keep, device=start.device)) % self.keep
        row = self.table.gather(1, places).flatten()
        row = row[row >= 0]
        return self.owner[row], self.rows[row]

    def clear(self) -> None:
        """Forgets everything and frees the memory."""
        self.rows, self.owner = self.rows[:0].clone(), self.owner[:0].clone()
        self.table.fill_(-1)
        self.filled.zero_()
        self.used.zero_()

    def _grow(self, needed: int) -> None:
        if needed <= len(self.rows):
            return
        size = min(self.concepts * self.keep, max(needed, 2 * len(self.rows), _FIRST_ROWS))
        rows, owner = self.rows.new_zeros(size, self.dim), self.owner.new_zeros(size)
        rows[: len(self.rows)], owner[: len(self.rows)] = self.rows, self.owner
        self.rows, self.owner = rows, owner

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """A saved bank may be larger or smaller than this one: it takes the saved one's size."""
        for name in ("rows", "owner"):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape[1:] == getattr(self, name).shape[1:]:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *others)


def first_halves(
    ids: Tensor, generator: torch.Generator | None = None, permutations: Sequence[Tensor] | None = None
) -> Tensor:
    """A random half (rounded down) of every id's places in `ids`, by rising id: int64 [chosen].

    ids  int64 [n];  permutations  see ConceptBank.add
    """
    if permutations is not None:
        places = [(ids == one).nonzero()[:, 0] for one in torch.unique(ids)]
        taken = [p[order[: len(p) // 2].to(p)] for p, order in zip(places, permutations, strict=True)]
        return torch.cat(taken)
    shuffled = torch.randperm(len(ids), generator=generator).to(ids.device)
    order = shuffled[ids[shuffled].argsort(stable=True)]
    counts = torch.bincount(ids)
    return order[_rank_within(ids[order], counts) < counts[ids[order]] // 2]


def _rank_within(ids: Tensor, counts: Tensor) -> Tensor:
    """Of sorted ids: the how-manieth of its kind each one is, from 0."""
    begins = counts.cumsum(0) - counts
    return torch.arange(len(ids), device=ids.device) - begins[ids]


def concept_contrast(
    student: Tensor,
    teacher: Tensor,
    tokens: Tensor,
    codebook: Tensor,
    bank: ConceptBank | None = None,
    *,
    temperature: float = 0.07,
    positive: float = 0.3,
    negative: float = 0.1,
    rows: slice = slice(None),
) -> Tensor:
    """Mean over images, and over batch and bank as partners, of the contrast with like and unlike concepts: a scalar.

    student   float [B, n, P]  projections; the only thing that feels a gradient
    teacher   float [B, n, P]  projections of the same tokens
    tokens    float [B, n, D]  backbone tokens: they say which concept each is of
    codebook  float [K, D]
    bank      further partners; an empty one changes nothing
    rows      the images of the batch that `student` is of, where other processes have the others

    Pairs whose concepts' cosine is over `positive` attract, under `negative` they repel, in between they are left
    out; no token is its own partner. An image without an attracting pair counts for nothing; without any in the
    whole batch the loss is 0.
    """
    with torch.no_grad():
        ids = quantize(tokens, codebook)[0]
        unit = F.normalize(codebook, dim=-1)
        partners = [(ids.flatten(), F.normalize(teacher, dim=-1).flatten(0, 1), True)]
        if bank is not None and len(bank):
            partners.append((*bank.held(), False))
    student = F.normalize(student, dim=-1) / temperature

    def against(image: int, theirs: Tensor, keys: Tensor, same: bool) -> tuple[Tensor, int]:
        """Sum over the attracting pairs of one image, and how many there are; a block of rows at a time."""
        own, projected = ids[image], student[image - first]
        total, pairs = projected.new_zeros(()), 0
        step = max(1, _BLOCK // len(keys))
        for begin in range(0, len(projected), step):
            block = slice(begin, begin + step)
            alike = (unit[own[block]] @ unit.T)[:, theirs]
            attract = alike > positive
            if same:  # the image's own tokens are among the keys
                i = torch.arange(len(attract), device=attract.device)
                attract[i, i + image * len(own) + begin] = False
            found = int(attract.sum())
            if found:
                heard = attract | (alike < negative)
                total = total + checkpoint(_contrast, projected[block], keys, attract, heard, use_reentrant=False)
                pairs += found
        return total, pairs

    first, stop, _ = rows.indices(len(tokens))
    terms, count = student.new_zeros(()), 0
    for image in range(first, stop):
        for partner in partners:
            total, pairs = against(image, *partner)
            if pairs:
                terms, count = terms + total / pairs, count + 1
    portion = distributed.portion(student.new_tensor(float(count)))
    return portion * terms / count if count else 0.0 * student.sum()


def _contrast(rows: Tensor, keys: Tensor, attract: Tensor, heard: Tensor) -> Tensor:
    """Σ over attracting pairs of −score_ij + log Σ_heard exp score_ij': a scalar.

    rows  float [r, P];  keys  float [m, P];  attract, heard  bool [r, m]
    """
    scores = rows @ keys.T
    pairs = attract.sum(1)
    some = pairs > 0  # a row that attracts none may hear none, and log 0 has no gradient
    spread = scores[some].masked_fill(~heard[some], -torch.inf).logsumexp(1)
    return (pairs[some] * spread).sum() - (scores * attract).sum()


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float = 0.99) -> None:
    """Every parameter of the teacher moves towards the student's: θ ← momentum · θ + (1 − momentum) · student's."""
    for mean, now in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.mul_(momentum).add_(now, alpha=1 - momentum)
