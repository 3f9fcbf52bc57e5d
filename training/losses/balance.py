"""STEGO's shifts, steered while it learns instead of tuned by hand.

Knows nothing of networks or features: similarities in, shifts out. All it remembers is in buffers, so that a resumed
run goes on with the same bits.

A shift b is where attraction begins: pairs whose features are more alike than b attract, the others repel, the farther
from it the more. How alike features are differs from backbone to backbone, so b is steered in units of the spread that
a term's similarities have, and never farther than two spreads beyond them: from the worst start it is back in seventy
steps.

Source: STEGO (arXiv:2203.08414) §A.11, what the authors tune by hand for: code similarities of neighbors near 0.3 on
average, of random images near 0, and of places of one image a histogram with two peaks, near 0 and near 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

TERMS = ("self", "knn", "rand")
KNN, RAND = 0.3, 0.02  # what mean similarities are steered to
NEAR_1 = (0.15, 0.55)  # of the pairs within one image, the share that is to be near 1

_DEAD = 0.02  # similarities this close to their aim move nothing
_GAIN = 0.15  # spreads per step and unit of similarity
_FASTEST = 0.05  # spreads per step
_WARM_UP = 20  # steps: codes of random weights are all alike, whatever the shifts
_EASE = 0.03  # of the way per step, back to where the shift would begin by itself, while nothing asks for more
_BEYOND = 2.0  # spreads that a shift may lie outside of the similarities
_EDGES = 0.01, 0.99  # of the pairs: what lies between is the spread
_MEMORY = 0.9  # of the moving averages: ten steps
_SEEN = ("self_similarity", "knn_similarity", "rand_similarity", "self_near_0", "self_near_1")
_OFF = 0.1  # similarities this close to their aim are there
_POINTS = 100  # of the trace


class Balance(nn.Module):
    """The three shifts, where they may be, and how they came to be."""

    shifts: Tensor
    usual: Tensor
    low: Tensor
    spread: Tensor
    seen: Tensor
    step: Tensor
    trace: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("shifts", "usual", "low", "spread"):
            self.register_buffer(name, torch.zeros(3))
        self.register_buffer("seen", torch.zeros(len(_SEEN)))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("trace", torch.zeros(_POINTS, 1 + 3 + len(_SEEN)))

    def begin(self, similarities: Iterable[Tensor], shares: Sequence[float], shifts: Sequence[float] | None) -> None:
        """Starts at given shifts of self, knn and rand; one beyond all similarities starts at the nearest of them.

        similarities  of each term's features, centered, of any shape
        shares        of the pairs of each term that usually attract; without shifts it starts there
        """
        found = [one.flatten().sort().values for one in similarities]

        def at(places: Sequence[float]) -> Tensor:
            values = [float(one[round(place * (len(one) - 1))]) for one, place in zip(found, places, strict=True)]
            return torch.tensor(values).to(self.low)

        low, high = (at([edge] * 3) for edge in _EDGES)
        self.low.copy_(low)
        self.spread.copy_((high - low).clamp(min=1e-6))
        self.usual.copy_(at([1 - share for share in shares]))
        self.shifts.copy_(self.usual if shifts is None else torch.tensor(shifts).to(low).clamp(low, high))

    def _kept(self, shifts: Tensor) -> Tensor:
        """Shifts within their ranges."""
        return shifts.clamp(self.low - _BEYOND * self.spread, self.low + (1 + _BEYOND) * self.spread)

    def follow(self, found: Mapping[str, Tensor], steps: int) -> bool:
        """Moves the shifts by what one step saw; whether the trace has grown.

        found  mean similarities and shares of pairs by their names in the log
        steps  of the whole training, over which the trace is spread
        """
        now = torch.stack([found.get(f"log/{name}", torch.zeros(())).detach().to(self.seen) for name in _SEEN])
        self.seen.copy_(now if not self.step else _MEMORY * self.seen + (1 - _MEMORY) * now)
        if self.step >= _WARM_UP:
            self.shifts.copy_(self._kept(self.shifts + self._move()))
        self.step += 1
        every = -(-steps // _POINTS)
        if (int(self.step) - 1) % every:
            return False
        row = torch.cat([self.step[None].to(self.seen), self.shifts, self.seen])
        self.trace[min((int(self.step) - 1) // every, _POINTS - 1)] = row
        return True

    def _move(self) -> Tensor:
        """How far each shift goes in this step: up where codes are too much alike, back where nothing asks for more."""
        _, knn, rand, _, near_1 = self.seen.unbind()
        low, high = NEAR_1
        together = (near_1 - high).clamp(min=0) - (low - near_1).clamp(min=0)
        asked = torch.stack([together, _beyond(knn - KNN), _beyond(rand - RAND)])
        back = _EASE * (self.usual - self.shifts)
        moved = (_GAIN * asked).clamp(-_FASTEST, _FASTEST) * self.spread
        return torch.where((asked == 0) & torch.tensor([True, False, True]).to(asked.device), back, moved)

    def said(self) -> str:
        """Where the similarities are now, and why they are not where they should be, if they are not."""
        _, knn, rand, _, _ = self.seen.tolist()
        where = f"similarity of neighbors {knn:.2f} (wanted {KNN}), of random images {rand:.2f} (near 0)"
        if abs(knn - KNN) <= _OFF and abs(rand - RAND) <= _OFF:
            return where
        if knn - rand < KNN - RAND - _OFF:
            return f"{where}: neighbors are hardly more alike than random images here, so both cannot be had"
        return f"{where}: more steps would bring them nearer"

    def facts(self) -> dict[str, Any]:
        """The trace, for the report: the aims, and rows of step, shifts and what was seen."""
        names = ["step", *(f"shift_{term}" for term in TERMS), *_SEEN]
        rows = [[round(v, 5) for v in row] for row in self.trace[self.trace[:, 0] > 0].tolist()]
        aims = {"knn_similarity": KNN, "rand_similarity": RAND, "self_near_1": list(NEAR_1)}
        return {"aims": aims, "columns": names, "rows": rows}


def _beyond(error: Tensor) -> Tensor:
    """An error less the dead zone about 0."""
    return error.sign() * (error.abs() - _DEAD).clamp(min=0)
