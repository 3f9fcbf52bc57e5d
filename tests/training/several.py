"""The parts of training/distributed.py and of its batch norm at work, in one process or in several.

Knows nothing of what is right, nor of methods: what a process of a test loads is this and torch. Run as a program
it is one of several processes, started as torchrun starts them:

    python -m tests.training.several FOLDER
"""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import distributed
from training.trainer import batch_norm


def batch_normed(synchronized: bool) -> dict[str, Tensor]:
    """What batch norms say of five rows, their gradients and statistics; synchronized, each process has its share."""
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(5, 3, 4, 6, generator=generator) for _ in range(2))
    x = (2 * x + 3).requires_grad_()
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3, momentum=None))
    for i, parameter in enumerate(norms.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator) + i
    if synchronized:
        batch_norm.synchronize(norms)
    share = distributed.share(len(x))
    answer = share.gather(norms(x[share.rows]))
    (answer * slope).sum().backward()
    distributed.average_gradients(norms.parameters())
    gradient = distributed.all_reduce_(x.grad) / distributed.world()
    found = {"answer": answer.detach(), "gradient": gradient, **norms.state_dict()}
    found |= {f"{name}.grad": parameter.grad for name, parameter in norms.named_parameters()}
    return found | {"eval": norms.eval()(x).detach()}


def pieces() -> dict[str, Tensor]:
    """What the parts of training/distributed.py make of eleven rows, and of two."""
    found = {}
    for count in (11, 1):
        weight = nn.Parameter(torch.linspace(1, 2, 4))
        rows = torch.arange(count * 4.0).view(count, 4) / 10
        amounts = torch.arange(count) + 1.0
        share = distributed.share(count)
        whole = share.gather((rows[share.rows] * weight).sin())
        own = (rows[share.rows] * weight).square().mean(1)
        weighted = (amounts[share.rows] * own).sum() / amounts[share.rows].sum()
        loss = whole.prod(0).sum() + whole.var()  # of the whole batch, by everyone
        loss = loss + share.portion() * own.mean() + distributed.portion(amounts[share.rows].sum()) * weighted
        loss.backward()
        distributed.average_gradients([weight])
        logged = distributed.all_reduce_(loss.detach().clone()) / distributed.world()
        bits = share.gather(rows[share.rows] > 1)
        found |= {f"loss-{count}": logged, f"grad-{count}": weight.grad, f"bits-{count}": bits.to(torch.uint8)}
        found[f"half-{count}"] = share.gather(rows[share.rows].bfloat16())
    made = distributed.from_main(lambda: distributed.world() * torch.ones(2))
    return found | {"made": made}


def together(program: str, *arguments: str, folder: Path, processes: int = 2) -> dict[str, Tensor]:
    """What `answer` of several processes wrote; `program` is a module that calls it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", program, str(folder), *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(said)
    return load_file(folder / "answer.safetensors")


def answer(folder: Path, work: Callable[[], dict[str, Tensor]]) -> None:
    """One of several processes: works with the others, and the main one writes what was found."""
    torch.set_num_threads(1)
    with distributed.joined(Console(file=io.StringIO())):
        found = work()
        if distributed.is_main():
            save_file({name: value.contiguous() for name, value in found.items()}, folder / "answer.safetensors")


if __name__ == "__main__":
    answer(Path(sys.argv[1]), lambda: pieces() | batch_normed(synchronized=True))
