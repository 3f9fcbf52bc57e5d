"""Seconds that an image or a step takes, by measuring.

Knows no method: networks, images and stages in, seconds out.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from models import hardware
from models.nets.encoder import Encoder
from models.preprocess import fit
from training.config.run import Run
from training.config.work import Through, Work
from training.data import crops
from training.data.images import evenly
from training.data.preprocess import input_spec
from training.data.regions import RegionOptions, cover, equalize, segment, smallest
from training.discovery import merging, region_rows
from training.discovery.region_evidence import TEXTURES
from training.distillation.teacher import Teacher
from training.features import mask_proposals
from training.planning.plan import Part
from training.trainer.stage import Stage

_BATCH = 4  # images through the network at once
_REGIONS, _FEW_REGIONS, _CODE = 150, 1000, 128  # of an image, about; that are joined to see how long it takes; a code's
_PATIENCE = 4  # times the seconds there are, for a second call that is not the first


class Rates:
    """Seconds an image takes on its way, measured once for each."""

    def __init__(self, run: Run, network: Encoder | Teacher, seconds: float) -> None:
        self.run, self.network, self.seconds = run, network, seconds
        self._known: dict[Through, float] = {}

    def part(self, work: Work) -> Part:
        each = self._each(work.through)
        return Part(work.name, work.images, "images", work.images * each, work.disk_bytes, work.memory_bytes)

    def joining(self) -> Part:
        """Pieces of the folder's regions are joined; measured on a few random ones, once."""
        k, options = self.run.recipe.clusters.count, merging.MergeOptions()
        count = min(region_rows.MOST, _REGIONS * len(self.run.images))
        few = min(count, max(_FEW_REGIONS, 2 * k))
        codes = torch.randn(few, _CODE, generator=torch.Generator().manual_seed(0))
        image = torch.arange(few) * max(1, few // _REGIONS) // few
        rows = merging.RegionRows(codes, codes, codes[:, :TEXTURES], image, torch.ones(few))
        began = time.perf_counter()
        if few > k:
            merging.merge(rows, k, options.model_copy(update={"draws": 1}))
        seconds = (time.perf_counter() - began) * options.draws * count / few
        return Part("joining", count, "regions", seconds)

    def distilling(self) -> Part:
        """The network learns what several clusterings agree on: a step is twelve images, forward and back."""
        steps = self.run.recipe.clusters.distill_steps
        return Part("consensus", steps, "steps", steps * 12 * 3 * self._each("training size"))

    def _each(self, through: Through) -> float:
        if through not in self._known:
            special = {"regions": self._cutting, "masks": self._masking}
            self._known[through] = special[through]() if through in special else self._passing(through)
        return self._known[through]

    @torch.no_grad()
    def _passing(self, through: Through) -> float:
        recipe, encoder = self.run.recipe.input, self.network
        began = time.perf_counter()
        photos = [self.run.images[i] for i in evenly(len(self.run.images), 2)]
        read = (time.perf_counter() - began) / len(photos) / max(1, min(self.run.recipe.workers, hardware.cores()))
        if isinstance(encoder, Teacher):
            return read + timed(lambda: encoder.answer(photos[0]), self.seconds / 2)
        encoder.eval()
        if through == "training size":
            pixels = np.stack([crops.square(photo, recipe.train_size) for photo in photos] * (_BATCH // len(photos)))
            x = torch.from_numpy(pixels).to(self.run.device).permute(0, 3, 1, 2).float()
            return read + timed(lambda: encoder.code((x - encoder.mean) / encoder.std), self.seconds / 2) / len(x)
        one = torch.tensor(fit(photos[0], input_spec(encoder, recipe.size)).pixels)[None].to(self.run.device)
        return read + timed(lambda: encoder(one), self.seconds / 2)

    def _cutting(self) -> float:
        options = RegionOptions()
        image = equalize(cover(self.run.images[0], options.size), options.contrast)

        def cut() -> None:
            for scale in options.scales:
                segment(image, scale=scale, min_size_px=smallest(scale), sigma=options.sigma)

        return timed(cut, self.seconds / 4) / self._workers()

    @torch.no_grad()
    def _masking(self) -> float:
        assert isinstance(self.network, Encoder)  # no teacher's images are cut into masks
        encoder, side = self.network.eval(), self.run.recipe.input.train_size
        image = crops.square(self.run.images[0], side)
        x = torch.tensor(image)[None].to(self.run.device).permute(0, 3, 1, 2).float()
        maps = encoder.backbone((x - encoder.mean) / encoder.std)[0].float().cpu().numpy()

        def cut() -> None:
            mask_proposals.refined(mask_proposals.proposals(maps), image)

        cut()  # the CRF's loops may have to be compiled
        return timed(cut, self.seconds / 4) / self._workers()

    def _workers(self) -> int:
        return min(self.run.recipe.workers or hardware.cores(), hardware.cores())


def step_seconds(stage: Stage, sample: Callable[[], Any], seconds: float) -> float:
    """Of one step, its batch included."""
    optimizer = stage.optimizer(list(stage.groups))

    def step() -> None:
        losses = stage.loss(sample())
        total = torch.stack([value for name, value in losses.items() if not name.startswith("log/")]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return timed(step, seconds)


def timed(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call: the first warms up, unless it is all there is time for."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    took = once()
    left, found = seconds - took, list[float]()
    while left > 0 or (not found and took < _PATIENCE * seconds):
        found.append(once())
        left -= found[-1]
    return min(found, default=took)
