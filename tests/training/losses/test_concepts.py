"""The concept bank keeps the newest of each; the contrast attracts, repels, ignores, and never divides by nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.losses.concepts import ConceptBank, concept_contrast, ema_update, first_halves
from training.trainer import checkpoint


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(bank: ConceptBank, updates: int, n: int = 60, first: int = 0) -> None:
    for seed in range(first, first + updates):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(bank.concepts, (n,), generator=generator)
        bank.add(ids, random(n, bank.dim, seed=seed), generator)


def test_half_of_every_concepts_tokens_is_taken():
    ids = torch.tensor([3, 1, 3, 3, 0, 1, 3, 3])
    taken = first_halves(ids, torch.Generator().manual_seed(0))
    assert ids[taken].tolist() == [1, 3, 3]
    assert len(set(taken.tolist())) == 3
    seen = {tuple(first_halves(ids, torch.Generator().manual_seed(s)).tolist()) for s in range(40)}
    assert len(seen) > 10
    orders = [torch.tensor([0]), torch.tensor([1, 0]), torch.tensor([4, 0, 2, 1, 3])]
    assert first_halves(ids, permutations=orders).tolist() == [5, 7, 0]


def test_the_newest_are_kept_and_the_oldest_go_first():
    """Against lists, one a concept."""
    bank, lists = ConceptBank(4, 3, keep=5), [[] for _ in range(4)]
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        ids, rows = torch.randint(4, (40,), generator=generator), random(40, 3, seed=seed)
        order = torch.Generator().manual_seed(100 + seed)
        taken = first_halves(ids, torch.Generator().manual_seed(100 + seed))
        bank.add(ids.view(4, 10), rows.view(4, 10, 3), order)
        for i in taken.tolist():
            lists[ids[i]] = [*lists[ids[i]], F.normalize(rows[i], dim=0)][-5:]
        owners, held = bank.ordered()
        assert owners.tolist() == [k for k in range(4) for _ in lists[k]]
        assert torch.equal(held, torch.stack([row for one in lists for row in one]))
        assert sorted(bank.held()[0].tolist()) == owners.tolist()
        assert len(bank) == len(owners)
    assert len(bank) == 20
    assert len(bank.rows) == 20  # it never takes more than all it may hold


def test_it_takes_memory_for_what_it_holds():
    bank = ConceptBank(2048, 64, keep=100)
    assert bank.rows.numel() == 0
    bank.add(torch.tensor([5, 5, 9, 9]), random(4, 64))
    assert len(bank) == 2
    assert len(bank.rows) < 2048
    bank.clear()
    assert len(bank) == len(bank.rows) == 0
    bank.add(torch.tensor([5, 5]), random(2, 64))
    assert bank.held()[0].tolist() == [5]


def test_a_checkpoint_carries_it_exactly(tmp_path):
    whole, stopped = ConceptBank(7, 4, keep=300), ConceptBank(7, 4, keep=300)
    fill(whole, 40)
    fill(stopped, 20)
    checkpoint.save(tmp_path / "c.safetensors", stopped.state_dict(), {})
    resumed = ConceptBank(7, 4, keep=300)
    fill(resumed, 3, first=50)  # what it held before is gone
    resumed.load_state_dict(checkpoint.load(tmp_path / "c.safetensors")[0])
    fill(resumed, 20, first=20)
    for name, wanted in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], wanted), name
    with pytest.raises(RuntimeError, match="size mismatch"):
        ConceptBank(7, 5, keep=300).load_state_dict(whole.state_dict())


def written_out(student, teacher, tokens, codebook, held=None, positive=0.3, negative=0.1):
    """The contrast as it is defined, anchor by anchor."""
    unit, terms = F.normalize(codebook, dim=1), []
    ids = (F.normalize(tokens, dim=-1) @ unit.T).argmax(-1)
    everyone = (ids.flatten(), F.normalize(teacher, dim=-1).flatten(0, 1))
    for image in range(len(student)):
        for partners in [everyone, *([held] if held else [])]:
            found = []
            for i, row in enumerate(F.normalize(student[image], dim=-1)):
                alike = unit[ids[image, i]] @ unit[partners[0]].T
                attract, repel = alike > positive, alike < negative
                if partners is everyone:
                    attract[image * student.shape[1] + i] = False
                scores = partners[1] @ row / 0.07
                found += list(scores[attract | repel].logsumexp(0) - scores[attract])
            if found:
                terms.append(torch.stack(found).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("with_bank", [False, True])
@pytest.mark.parametrize("block", [1, 2**25])
def test_the_contrast_is_the_definition(with_bank, block, monkeypatch):
    monkeypatch.setattr("training.losses.concepts._BLOCK", block)
    tokens, codebook = random(3, 8, 4), random(6, 4, seed=1)
    teacher, bank = random(3, 8, 5, seed=2), ConceptBank(6, 5, keep=9)
    if with_bank:
        fill(bank, 3)
    ours, theirs = (random(3, 8, 5, seed=3).requires_grad_() for _ in range(2))
    loss = concept_contrast(ours, teacher, tokens, codebook, bank)
    wanted = written_out(theirs, teacher, tokens, codebook, bank.held() if with_bank else None)
    loss.backward()
    wanted.backward()
    assert torch.allclose(loss, wanted, rtol=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_like_concepts_attract_and_unlike_ones_repel():
    codebook, tokens = torch.eye(3), torch.eye(3)[torch.tensor([[0, 0, 1, 1, 2, 2]])]
    student = random(1, 6, 4).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        concept_contrast(student, student.detach(), tokens, codebook).backward()
        optimizer.step()
    cosines = F.normalize(student.detach()[0], dim=1) @ F.normalize(student.detach()[0], dim=1).T
    same = torch.arange(3).repeat_interleave(2)
    same = same[:, None] == same
    assert cosines[same].min() > 0.6
    assert cosines[~same].max() < 0.5


def test_an_image_without_an_attracting_pair_counts_for_nothing():
    codebook = torch.eye(4)
    tokens = codebook[torch.tensor([[0, 0], [1, 2]])]
    teacher = random(2, 2, 5, seed=1)
    student = random(2, 2, 5).requires_grad_()
    loss = concept_contrast(student, teacher, tokens, codebook)
    loss.backward()
    assert loss > 0
    assert student.grad[0].abs().sum() > 0
    assert not student.grad[1].any()
    alone = random(1, 3, 5).requires_grad_()
    loss = concept_contrast(alone, random(1, 3, 5, seed=1), codebook[None, :3], codebook)
    loss.backward()
    assert loss.item() == 0
    assert not alone.grad.any()


def test_pairs_in_between_are_not_heard():
    """A third concept halfway between: moving its teacher changes nothing."""
    codebook = F.normalize(torch.tensor([[1.0, 0.0], [0.2, 0.98]]), dim=1)
    tokens = codebook[torch.tensor([[0, 0, 1]])]
    student, teacher = random(1, 3, 4), random(1, 3, 4, seed=1)
    moved = teacher.clone()
    moved[0, 2] = random(4, seed=2)
    first = concept_contrast(student, teacher, tokens, codebook)
    assert torch.equal(concept_contrast(student, moved, tokens, codebook), first)
    assert not torch.equal(concept_contrast(student, moved, tokens, codebook, negative=0.25), first)


def test_moving_average():
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    before = copy.deepcopy(teacher)
    ema_update(teacher, student, 0.75)
    for new, old, now in zip(teacher.parameters(), before.parameters(), student.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * now)
