"""What a run has to do besides training steps, before it does any of it.

Knows nothing of who does it, or of how long it takes.
"""

from dataclasses import dataclass
from typing import Literal

Through = Literal["training size", "serving size", "regions", "masks"]


@dataclass(frozen=True)
class Work:
    """A pass, or several, over images.

    images        how many in all; of five crops, five
    through       the network at the size of training, or of serving; or cut into regions, or into masks of its features
    disk_bytes    what it leaves in the run's folder
    memory_bytes  what it holds at once, besides the network
    """

    name: str
    images: int
    through: Through
    disk_bytes: int = 0
    memory_bytes: int = 0
