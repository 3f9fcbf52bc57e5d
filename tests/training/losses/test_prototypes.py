"""Prototypes: the data term place by place, who feels which gradient, and how the teacher follows."""

import math

import pytest
import torch

from training.losses.prototypes import Prototypes


def made(k: int = 4, dim: int = 6) -> Prototypes:
    torch.manual_seed(0)
    found = Prototypes(k, dim).double()
    with torch.no_grad():
        found.student += 0.3 * torch.randn(k, dim, dtype=torch.float64)  # no longer of length 1, nor the teacher's
    return found


CODE = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_both_begin_alike_and_at_length_one():
    found = Prototypes(5, 7)
    assert torch.equal(found.student.detach(), found.teacher)
    assert torch.allclose(found.teacher.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("gaps", [False, True])
def test_the_data_term_is_the_cross_entropy_place_by_place(gaps):
    prototypes = made()
    valid = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(2)) > 0.4 if gaps else None
    losses = []
    for n in range(2):
        for y in range(3):
            for x in range(4):
                if valid is not None and not valid[n, y, x]:
                    continue
                z = CODE[n, :, y, x]
                near = [float(z @ m / (z.norm() * m.norm())) for m in prototypes.teacher]
                scores = [float(z @ m / (z.norm() * m.norm())) for m in prototypes.student.detach()]
                own = near.index(max(near))
                losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[own])
    found = prototypes.loss(CODE, prototypes(CODE).argmax(1), valid)
    assert found.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert valid is not None or len(losses) == 24


def test_the_code_feels_the_teachers_cosines_and_the_student_its_loss():
    prototypes, code = made(), CODE.clone().requires_grad_()
    cosines = prototypes(code)
    cosines.square().sum().backward()
    assert code.grad.abs().max() > 1e-3
    assert prototypes.student.grad is None
    code.grad = None
    prototypes.loss(code, cosines.argmax(1)).backward()
    assert code.grad is None
    assert prototypes.student.grad.abs().max() > 1e-3
    assert not prototypes.teacher.requires_grad


def test_the_teacher_follows_by_so_much():
    prototypes = made()
    before, student = prototypes.teacher.clone(), prototypes.student.detach().clone()
    prototypes.follow(0.998)
    assert torch.allclose(prototypes.teacher, 0.998 * before + 0.002 * student, atol=1e-15)
    assert torch.equal(prototypes.student, student)
    assert "teacher" in prototypes.state_dict()
    prototypes.follow(0.0)
    assert torch.allclose(prototypes.centroids(), student / student.norm(dim=1, keepdim=True))
