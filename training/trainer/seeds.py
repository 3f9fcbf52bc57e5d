"""Where chance begins: the process's generators, torch's for a while, and seeds made of several numbers.

Knows nothing of what is drawn.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(value: int) -> None:
    """Seeds Python's, numpy's and torch's generators."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """torch's generator on the CPU begins at `value` and is afterwards what it was: for a network's first weights.

    A resumed run builds its network anew, and has to begin with the same weights, random ones too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(value)
        yield


def mixed(*numbers: int) -> int:
    """One seed from several numbers; neighboring ones give unrelated seeds."""
    return int(np.random.SeedSequence([n % 2**32 for n in numbers]).generate_state(1)[0])
