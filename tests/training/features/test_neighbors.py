"""The nearest rows, exactly, whatever the number of rows and the size of the blocks."""

import pytest
import torch
from torch.nn import functional as F

from training.features import neighbors as module
from training.features.neighbors import neighbors


@pytest.mark.parametrize("n", [1, 3, 16, 100])
def test_neighbors_of_any_number_of_rows(n):
    means = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    found = neighbors(means)
    assert found.shape == (n, min(30, n - 1) + 1)
    assert found[:, 0].tolist() == list(range(n))
    cosines = F.cosine_similarity(means[:, None], means[None], dim=2)
    if n > 2:
        cosines.fill_diagonal_(-2)
        assert torch.equal(found[:, 1], cosines.argmax(1))


def test_a_row_is_its_own_first_neighbor_even_beside_a_copy():
    assert neighbors(torch.ones(4, 3))[:, 0].tolist() == [0, 1, 2, 3]


def test_small_blocks_find_what_one_sort_of_everything_finds(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 11)
    means = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    unit = F.normalize(means, dim=1)
    alike = (unit @ unit.T).fill_diagonal_(torch.inf)
    assert torch.equal(neighbors(means), alike.argsort(dim=1, descending=True)[:, :31])


def test_faiss_finds_the_same(monkeypatch):
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(module, "ROWS", 256)
    monkeypatch.setattr(module, "_COLUMNS", 300)
    unit = F.normalize(torch.randn(1000, 32, generator=torch.Generator().manual_seed(2)), dim=1)
    index = faiss.IndexFlatIP(32)
    index.add(unit.numpy())
    wanted = torch.from_numpy(index.search(unit.numpy(), 31)[1])
    found = neighbors(unit)
    assert torch.equal(found[:, 0], torch.arange(1000))
    # Where two rows are equally like up to rounding, either may come first.
    cosines = [(unit[:, None] * unit[rows]).sum(2) for rows in (found, wanted)]
    assert (found == wanted).float().mean() > 0.999
    assert torch.allclose(*cosines, atol=1e-6)
