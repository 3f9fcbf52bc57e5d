"""A network that learns soft label maps as a cosine classifier, whoever made the maps.

Knows nothing of clusterings, of other networks, or of what is done with it afterwards.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from training import distributed
from training.config.recipe import Section
from training.data import validity
from training.data.augment import ViewOptions, crop, pixels, planes, view
from training.trainer.schedule import half_cosine
from training.trainer.stage import Batch, Stage


class DistillOptions(Section):
    """How soft label maps are taught to one network."""

    steps: int = Field(default=400, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=12, ge=1)
    scale: float = Field(default=10.0, gt=0, description="what cosines are multiplied by before the softmax")
    weight_code: float = Field(default=1.0, ge=0, description="of the codes' distance, where there is one to learn")
    views: ViewOptions = ViewOptions(
        size=(192, 256), area=(0.5, 1.0), aspect=1.15, jitter=0.3, hue=0.05, gray=0.1, blur=0.2
    )


class Student(nn.Module):
    """A network and centroids that learn soft labels as a cosine classifier; what is exported afterwards.

    network    pixels uint8 [B, H, W, 3] → code float [B, D, h, w]
    centroids  float [K, D]; rows have length 1 when asked for by `unit_centroids`
    """

    step: Tensor

    def __init__(self, network: nn.Module, k: int) -> None:
        super().__init__()
        self.network = network
        device = next(network.parameters()).device
        with torch.inference_mode():
            dim = network.eval()(torch.zeros(1, 64, 64, 3, dtype=torch.uint8, device=device)).shape[1]
        self.centroids = nn.Parameter(F.normalize(torch.randn(k, dim), dim=1))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # a resumed run finds its rate by it

    def forward(self, pixels: Tensor) -> Tensor:
        """Cosine of every cell with every centroid: float [B, K, h, w]."""
        return self.cosines(self.unit_code(pixels))

    def unit_code(self, pixels: Tensor) -> Tensor:
        """The network's code at length 1: float [B, D, h, w]."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.training):
            code = self.network(pixels)
        return F.normalize(code.float(), dim=1)

    def cosines(self, code: Tensor) -> Tensor:
        """Of a code at length 1 with every centroid: float [B, K, h, w]."""
        return torch.einsum("kd,bdhw->bkhw", self.unit_centroids(), code)

    def unit_centroids(self) -> Tensor:
        """float32 [K, D], rows of length 1."""
        return F.normalize(self.centroids, dim=1)

    def stage(
        self,
        images: NDArray[np.uint8],
        soft: Tensor,
        options: DistillOptions,
        seed: int,
        *,
        name: str = "consensus",
        code: Tensor | None = None,
    ) -> Stage:
        """The stage in which the soft labels are learned, at a rate that falls to 0 by half a cosine.

        images  uint8 [n, H, W, 3], may be memory-mapped
        soft    float [n, K, h, w]
        code    float [n, D, h', w'], of any length: what the code is drawn to besides, by `weight_code`; None: nothing

        A cell counts by its largest share: where whoever made the maps is unsure there is little to learn.
        """
        batches_per_epoch = max(1, len(images) // options.batch_size)
        views = options.views
        grid = tuple(views.size[i] * soft.shape[2 + i] // images.shape[1 + i] for i in (0, 1))
        group: dict[str, Any] = {"params": list(self.parameters()), "lr": options.lr}

        def batches(epoch: int) -> Iterator[Batch]:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=generator)
            for rows in torch.split(order, options.batch_size)[:batches_per_epoch]:
                seen, crops = view(planes(images[rows.numpy()]), views, generator)
                wanted = {"soft": crop(soft[rows].float(), crops, (grid[0], grid[1]))}
                if code is not None:
                    wanted["code"] = crop(code[rows].float(), crops, (grid[0], grid[1]))
                yield {"pixels": pixels(seen), **wanted}

        def loss(batch: Batch) -> dict[str, Tensor]:
            device, rows = self.centroids.device, distributed.share(len(batch["soft"])).rows
            wanted = batch["soft"][rows].to(device)
            own = self.unit_code(batch["pixels"][rows].to(device))
            scores = self.cosines(own)
            scores = F.interpolate(scores, size=wanted.shape[-2:], mode="bilinear", align_corners=False)
            cost = -(wanted * (options.scale * scores).log_softmax(1)).sum(1)
            sure = wanted.amax(1)
            hit = validity.mean((scores.argmax(1) == wanted.argmax(1)).float(), sure > 0)
            weight = sure.sum().clamp(min=1e-6)
            portion = distributed.portion(weight)
            losses = {"distill": portion * (cost * sure).sum() / weight, "log/agreement": hit.detach()}
            if code is not None:
                seen = F.interpolate(own, size=wanted.shape[-2:], mode="bilinear", align_corners=False)
                apart = 1 - F.cosine_similarity(seen, batch["code"][rows].to(device), dim=1)
                losses["code"] = options.weight_code * portion * (apart * sure).sum() / weight
            return losses

        def after_step() -> None:
            self.step += 1
            group["lr"] = options.lr * half_cosine(float(self.step) / options.steps)

        return Stage(name, options.steps, [group], batches, loss, after_step=after_step)
