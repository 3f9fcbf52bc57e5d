"""A linear layer from code to classes, trained with labels: how much of the classes the code holds.

Knows nothing of bundles or clusters. It is for measuring only: nothing of it goes into a bundle.

Source: STEGO (arXiv:2203.08414) §4: one 1×1 convolution on frozen codes, logits upsampled bilinearly to the label
map, cross-entropy over the pixels that have a class, Adam at 5e-3.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import TesseraError
from models.terminal.progress import Progress
from models.types import Array, Box
from training.data.label_maps import IGNORED

LR = 5e-3
BATCH_SIZE = 16
_CACHE_BYTES = 2**30  # codes kept in memory; images beyond that are left out


@dataclass(frozen=True)
class Lesson:
    """One image for the probe.

    code    float32 [D, h, w]
    labels  uint8 [H, W] at the size of the network's input, 255 = ignored
    box     the part of the code's grid that the labels show: top, left, height, width as fractions
    """

    code: Array
    labels: Array
    box: Box


@dataclass(frozen=True)
class LinearProbe:
    """weight float32 [N, D], bias float32 [N]; `images` it learned from, `loss` at the end, seconds it took."""

    weight: Array
    bias: Array
    images: int
    steps: int
    loss: float
    seconds: float

    def logits(self, code: Array) -> Array:
        """code float32 [D, h, w] → float32 [N, h, w]."""
        found: Array = np.einsum("nd,dhw->nhw", self.weight, code, optimize=True) + self.bias[:, None, None]
        return found.astype(np.float32)


def train(
    lesson: Callable[[int], Lesson | None],
    count: int,
    classes: int,
    *,
    steps: int,
    seed: int,
    device: torch.device,
    console: Console,
) -> LinearProbe:
    """Learns from `count` images, or from as many, drawn by the seed, as fit into a gigabyte of codes.

    lesson  image number → its lesson, None for one that cannot be used

    Raises TesseraError where no pixel has a class.
    """
    began = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    lessons = _collect(lesson, torch.randperm(count, generator=generator).tolist(), console)
    if not any((one.labels < classes).any() for one in lessons):
        raise TesseraError("the linear probe has no labelled pixel to learn from; name another --probe-data or split")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Conv2d(lessons[0].code.shape[0], classes, 1).to(device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=LR)
    last = float("nan")
    drawn = _endless(len(lessons), generator)
    with Progress(console, "linear probe", steps) as bar:
        for _ in range(steps):
            batch = [lessons[next(drawn)] for _ in range(BATCH_SIZE)]
            valid = sum(int((one.labels < classes).sum()) for one in batch)
            if valid:
                optimizer.zero_grad()
                last = 0.0
                for one in batch:  # one at a time: their sizes may differ, and one image's logits are enough to hold
                    loss = _loss(layer, one, classes, valid, device)
                    loss.backward()  # type: ignore[no-untyped-call]
                    last += float(loss.detach())
                optimizer.step()
            bar.advance(note=f"loss {last:.3f}")
    weight = layer.weight.detach()[:, :, 0, 0].cpu().numpy()
    bias = torch.zeros(classes) if layer.bias is None else layer.bias.detach().cpu()
    return LinearProbe(weight, bias.numpy(), len(lessons), steps, last, time.monotonic() - began)


def _collect(lesson: Callable[[int], Lesson | None], order: list[int], console: Console) -> list[Lesson]:
    lessons: list[Lesson] = []
    held = 0
    with Progress(console, "codes for the probe", len(order)) as bar:
        for i in order:
            if held > _CACHE_BYTES:
                break
            if (one := lesson(i)) is not None:
                lessons.append(one)
                held += one.code.nbytes + one.labels.nbytes
            bar.advance()
    return lessons


def _endless(count: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _loss(layer: nn.Module, one: Lesson, classes: int, valid: int, device: torch.device) -> Tensor:
    """One image's share of the batch's mean cross-entropy."""
    logits = layer(torch.from_numpy(one.code)[None].to(device))
    height, width = one.labels.shape
    top, left, tall, wide = one.box
    whole = (round(height / tall), round(width / wide))
    logits = F.interpolate(logits, size=whole, mode="bilinear", align_corners=False)
    down, across = round(top * whole[0]), round(left * whole[1])
    shown = logits[:, :, down : down + height, across : across + width]
    target = torch.from_numpy(one.labels.astype(np.int64))[None].to(device)
    target[target >= classes] = IGNORED
    return F.cross_entropy(shown, target, ignore_index=IGNORED, reduction="sum") / valid
