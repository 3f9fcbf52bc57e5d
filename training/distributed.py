"""Several processes that train one network: who is who, what they tell each other, and how they end together.

Knows nothing of methods, stages or files. `torchrun` starts them; in a process that it did not start, everything here
does nothing.

Every process steps through the same batches with the same generators, so all their weights are always alike. What is
costly is divided: a process works on its `share` of a batch's rows. The rule for losses: their mean over all processes
is the loss of the whole batch. Gradients are averaged, so a loss that every process computes alike from what
`Share.gather` brought together needs nothing; a mean over a process's own rows is multiplied by its `portion`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.autograd import Function

from models.errors import TesseraError, UsageError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # of those that wait while one cuts regions; one that has died is noticed at once
_STARTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")  # what torchrun sets
_FAILED = "tessera/failed"  # counts the processes that ended with an error
_BUCKET = 2**25  # numbers that are averaged at once
_alone = False  # while the main process does what the others wait for


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _is_joined() and not _alone else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _is_joined() else 0


def _is_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def is_main() -> bool:
    """Whether this is the one that writes and speaks."""
    return rank() == 0


def local_rank() -> int:
    """Which of its machine's processes this is: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if _started() else 0


def _started() -> bool:
    return all(name in os.environ for name in _STARTED) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(console: Console) -> Iterator[None]:
    """The block, in which this process is one of those that torchrun started, if it did.

    Only the first of them speaks. Whoever fails first says why, once for all of them; the others end in silence.
    """
    if not _started():
        yield
        return
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the processes do not find each other ({error}): start all of them with torchrun, and on several"
            " machines with the same --rdzv-endpoint"
        ) from None
    console.quiet = not is_main()
    try:
        yield
    except KeyboardInterrupt:
        console.quiet = not _first_to_fail()
        raise
    except Exception as error:
        first = _first_to_fail()
        console.quiet = not first
        if isinstance(error, TesseraError):
            raise
        if first and not _is_of_another(error):
            raise
        raise TesseraError(
            f"one of {world()} processes ended without a word, killed or out of memory; the others end with it."
            " The same command with --resume goes on, with as many processes or fewer"
        ) from None
    finally:
        sys.stdout.flush()
        dist.destroy_process_group()


def _first_to_fail() -> bool:
    try:
        return bool(dist.distributed_c10d._get_default_store().add(_FAILED, 1) == 1)
    except RuntimeError:  # who kept the count has gone, and said nothing
        return True


def _is_of_another(error: Exception) -> bool:
    """Whether an error is that another process no longer answers."""
    return isinstance(error, dist.DistError) or "peer" in str(error) or "gloo" in str(error)


def all_reduce_(tensor: Tensor, *, largest: bool = False) -> Tensor:
    """The tensor, which becomes the sum of all processes' ones, or the largest value of each of its places."""
    if world() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return tensor


def barrier() -> None:
    """Waits until all processes are here."""
    all_reduce_(torch.zeros(1))


@contextmanager
def main_first() -> Iterator[None]:
    """The block, in which the main process has finished before the others begin: what it wrote they find there."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes, in all of them; what it raises as TesseraError is raised in all of them.

    While it makes it, it is alone: nothing in this file waits for the others.
    """
    if world() == 1:
        return make()
    global _alone
    made: list[Any] = [None, None]
    if is_main():
        _alone = True
        try:
            made[0] = make()
        except TesseraError as error:
            made[1] = error
        finally:
            _alone = False
    dist.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    if made[1] is not None:
        raise made[1]
    return made[0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Share:
    """The rows of a batch of `count` that are this process's: all of them where there are fewer than processes."""

    count: int
    rows: slice

    @property
    def divided(self) -> bool:
        """Whether other processes have other rows."""
        return self.rows != slice(0, self.count)

    def gather(self, own: Tensor) -> Tensor:
        """The whole batch's rows from every process's own: [count, ...]; gradients find their way back."""
        if not self.divided:
            return own
        gathered: Tensor = _Gather.apply(own, self.count)
        return gathered

    def portion(self) -> float:
        """What a mean over this process's rows is multiplied by, so that the mean over processes is the batch's."""
        return (self.rows.stop - self.rows.start) * world() / self.count if self.divided else 1.0


def share(count: int) -> Share:
    """This process's rows of a batch."""
    return Share(count, _rows(count, rank()))


def _rows(count: int, of: int) -> slice:
    n = world()
    return slice(count * of // n, count * (of + 1) // n) if count >= n else slice(0, count)


def portion(amount: Tensor) -> Tensor:
    """`Share.portion` for a weighted mean: `amount` is the sum of the weights of this process's rows."""
    if world() == 1:
        return torch.ones_like(amount)
    total = all_reduce_(amount.detach().clone())
    return amount.detach() * world() / total if total > 0 else torch.zeros_like(amount)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int) -> Tensor:
        ctx.count = count
        sizes = [(part := _rows(count, of)).stop - part.start for of in range(world())]
        padded = own.new_zeros(max(sizes), *own.shape[1:], dtype=_carried(own.dtype))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(own.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Every process has the whole loss's gradient here, and the mean over processes is taken of all gradients.
        return gradients[0][_rows(ctx.count, rank())] * world(), None


def _carried(dtype: torch.dtype) -> torch.dtype:
    """gloo carries no booleans and no bfloat16."""
    return {torch.bool: torch.uint8, torch.bfloat16: torch.float32}.get(dtype, dtype)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Every gradient becomes the mean of all processes' ones, some thirty million numbers at a time."""
    if world() == 1:
        return
    waiting: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            waiting.append(parameter.grad)
        if sum(map(torch.numel, waiting)) > _BUCKET:
            _average(waiting)
            waiting = []
    _average(waiting)


def _average(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = all_reduce_(torch.cat([tensor.flatten() for tensor in tensors])) / world()
    means = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))
