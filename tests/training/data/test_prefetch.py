"""Results ahead of time: in order, not too many, errors where they belong."""

import time
from itertools import islice

import pytest

from training.data.prefetch import prefetch


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_keeps_the_order(workers):
    def slow_first(i):
        time.sleep(0.02 if i == 0 else 0)
        return i * i

    assert list(prefetch(slow_first, range(9), workers)) == [i * i for i in range(9)]


def test_is_only_a_little_ahead():
    begun = []
    ahead = prefetch(begun.append, range(100), 2)
    list(islice(ahead, 3))
    ahead.close()
    assert 3 <= len(begun) <= 3 + 4 + 1


def test_an_error_comes_where_its_item_is_due():
    ahead = prefetch(lambda i: 1 // (2 - i), range(5), 2)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
