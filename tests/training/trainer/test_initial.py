"""A network begun with an earlier run's weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.errors import TesseraError, UsageError
from training.trainer import checkpoint, initial


class Net(nn.Module):
    def __init__(self, k: int = 3, extra: bool = False) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(k, 2))
        self.register_buffer("step", torch.tensor(0))
        if extra:
            self.head = nn.Linear(2, 2)


def saved(path: Path, module: nn.Module) -> Path:
    tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
    checkpoint.save(path, tensors | {"rng/torch": torch.get_rng_state()}, {"position": {}})
    return path


def test_weights_are_taken_and_counters_are_not(tmp_path: Path) -> None:
    before, now = Net(), Net()
    before.step.fill_(40)
    initial.load(now, initial.read(saved(tmp_path / "a.safetensors", before)), "a")
    assert torch.equal(now.centers, before.centers)
    assert int(now.step) == 0


def test_other_networks_are_refused_with_what_differs(tmp_path: Path) -> None:
    weights = initial.read(saved(tmp_path / "a.safetensors", Net()))
    with pytest.raises(
        UsageError, match=r"--init a: .* centers is \[3, 2\] there and \[4, 2\] here; head\.\w+ is not there"
    ):
        initial.load(Net(4, extra=True), weights, "a")
    with pytest.raises(UsageError, match=r"head\.weight is not here"):
        initial.load(Net(), initial.read(saved(tmp_path / "b.safetensors", Net(extra=True))), "b")
    checkpoint.save(tmp_path / "c.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(TesseraError, match="holds no network's weights"):
        initial.read(tmp_path / "c.safetensors")


def test_a_checkpoint_is_found_by_its_run_and_by_its_bundle(tmp_path: Path) -> None:
    run = tmp_path / "run"
    last = saved(run / "checkpoints" / "last.safetensors", Net())
    (run / "bundle").mkdir()
    (run / "bundle" / "manifest.json").touch()
    (run / "backbone.safetensors").touch()
    for given in (last, run, run / "bundle"):
        assert initial.find(given) == last
    assert initial.backbone(last) == run / "backbone.safetensors"
    assert (
        initial.find(saved(tmp_path / "old" / "checkpoint.safetensors", Net()).parent).name == "checkpoint.safetensors"
    )
    with pytest.raises(UsageError, match="there is no such checkpoint or run"):
        initial.find(tmp_path / "absent")
    with pytest.raises(UsageError, match="no checkpoint is there"):
        initial.find(tmp_path)
