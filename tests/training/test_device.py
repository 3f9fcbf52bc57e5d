"""Devices by name, on machines that have them or not."""

import pytest
import torch

from models.errors import UsageError
from training import distributed
from training.device import device


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False, processes: int = 1) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(distributed, "world", lambda: processes)
    monkeypatch.setattr(distributed, "local_rank", lambda: processes - 1)


@pytest.mark.parametrize(
    ("name", "gpus", "processes", "wanted"),
    [
        ("auto", 0, 1, "cpu"),
        ("auto", 2, 1, "cuda"),
        ("auto", 2, 2, "cuda:1"),
        ("cuda:1", 2, 1, "cuda:1"),
        ("cpu", 2, 2, "cpu"),
    ],
)
def test_a_device_is_the_one_that_is_here(monkeypatch, name, gpus, processes, wanted):
    machine(monkeypatch, gpus=gpus, processes=processes)
    assert device(name) == torch.device(wanted)


def test_apples_gpu_is_taken_when_it_is_asked_for(monkeypatch):
    machine(monkeypatch, mps=True)
    assert device("auto").type == "cpu"
    assert device("mps").type == "mps"


@pytest.mark.parametrize(
    ("name", "gpus", "mps", "processes", "sentence"),
    [
        ("cuda", 0, False, 1, "torch sees no GPU here"),
        ("cuda:3", 2, False, 1, "this machine has 2 GPUs"),
        ("cuda", 2, False, 3, "start fewer processes"),
        ("mps", 0, False, 1, "no GPU of Apple's"),
        ("mps", 0, True, 2, "in one process"),
        ("tpu", 0, False, 1, "write cpu, cuda, cuda:1 or mps"),
        ("xpu", 0, False, 1, "write cpu, cuda, cuda:1 or mps"),
        ("", 0, False, 1, "write cpu, cuda, cuda:1 or mps"),
    ],
)
def test_another_is_refused_in_words(monkeypatch, name, gpus, mps, processes, sentence):
    machine(monkeypatch, gpus=gpus, mps=mps, processes=processes)
    with pytest.raises(UsageError, match=sentence):
        device(name)
