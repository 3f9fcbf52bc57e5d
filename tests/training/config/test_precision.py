"""training/config/precision.py: which numbers networks are multiplied in."""

import pytest
import torch

from models import hardware
from training.config import precision
from training.config.recipe import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "flags", "dtype"),
    [
        ("float32", {"amx_bf16"}, torch.float32),
        ("auto", {"avx2"}, torch.float32),
        ("auto", {"avx2", "avx512_bf16"}, torch.bfloat16),
        ("bfloat16", {"avx2"}, torch.bfloat16),
    ],
)
def test_products_are_in_what_was_asked_for_and_the_machine_has(
    asked: Precision, flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "flags", lambda: frozenset(flags))
    with precision.autocast(asked, CPU):
        answer = torch.nn.Conv2d(3, 4, 1)(torch.ones(1, 3, 2, 2))
    assert answer.dtype == dtype
    last = precision.memory_format(asked, CPU) == torch.channels_last
    assert last == precision.reduced(asked, CPU) == (dtype == torch.bfloat16)


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_of_gpus_ampere_and_later_take_it(
    capability: tuple[int, int], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.reduced("auto", torch.device("cuda")) is wanted
    assert not precision.reduced("auto", torch.device("mps"))
