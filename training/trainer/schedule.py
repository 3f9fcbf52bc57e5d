"""How a learning rate changes over the steps of a stage.

Knows nothing of stages or optimizers: numbers in, numbers out.
"""

import math


def half_cosine(done: float) -> float:
    """From 1 down to 0 by half a cosine, as `done` goes from 0 to 1; afterwards 0."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def warmed_up(rate: float, done: int, steps: int, climb: int) -> float:
    """The rate after `done` of so many steps: up over the first `climb` of them, then down by half a cosine."""
    return rate * min(1.0, (done + 1) / climb) * half_cosine(done / steps)
