"""What the network leaves of an image, as it is kept for the same image asked again.

Knows nothing of how it is computed.
"""

from dataclasses import dataclass

from models.types import Array, Box


@dataclass(frozen=True)
class NetworkOutput:
    """What one pass of the network leaves of an image: scores [K, h, w], code [D, h, w] where asked for, and
    what is needed to find the way back to the image's own size."""

    scores: Array
    code: Array | None
    source: tuple[int, int]
    box: Box
    depth_rule: str | None

    @property
    def nbytes(self) -> int:
        """Held in memory."""
        return self.scores.nbytes + (0 if self.code is None else self.code.nbytes)
