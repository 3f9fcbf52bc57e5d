"""Squares of images → batches of views, in an order the seed and the epoch decide.

Knows nothing of networks, clusters or labels.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.preprocess import resize
from models.types import Array
from training import distributed
from training.config.run import Run
from training.data.color_jitter import color_jitter
from training.data.prefetch import prefetch
from training.data.square_cache import SquareCache
from training.methods.picie import augment
from training.methods.picie.augment import AugmentSection, Geometric

_KEPT_NUMBERS = 2**27  # 512 MB: both views of 870 images of 160 pixels

Which = Literal["plain", "first", "second", "both"]


class Item(NamedTuple):
    """One image, ready for the network.

    views  float32 [3, S, S], 0..255: the views asked for; the second is cropped after the network, by `crop`
    valid  bool [S, S], the pixels of either view, cropped, that hold data; None: all of them
    """

    number: int
    views: tuple[Tensor, ...]
    crop: Geometric
    valid: Array | None = None


class ViewLoader:
    """Every image of a run once an epoch, in shuffled batches; the same epoch always gives the same pixels.

    An epoch's views are made once, where those of all images fit into memory: they are clustered and trained on.

    size  S, the side of every view in pixels
    """

    def __init__(self, run: Run, options: AugmentSection, batch_size: int) -> None:
        self.images, self.options, self.batch_size = run.images, options, batch_size
        self.size, self.seed, self.workers = run.recipe.input.train_size, run.recipe.seed, run.recipe.workers
        self.squares = SquareCache(run.images, (self.size, 2 * self.size), run.cache, run.console)
        self._fits = len(run.images) * 2 * 3 * self.size**2 <= _KEPT_NUMBERS
        self._kept: dict[int, Item] = {}
        self._epoch = -1

    def order(self, epoch: int) -> list[list[int]]:
        """Image numbers of every batch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images)).tolist()
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        # Batch norm of a lone image has little to average over: it joins the batch before it.
        if len(batches) > 1 and len(batches[-1]) == 1:
            lone = batches.pop()
            batches[-1] += lone
        return batches

    def batches(self, epoch: int, which: Which) -> Iterator[list[Item]]:
        """The epoch's batches of the plain images, of one view, or of both; of several processes, this one's share."""
        order = [batch[distributed.share(len(batch)).rows] for batch in self.order(epoch)]
        indices = [index for batch in order for index in batch]
        loaded = prefetch(lambda index: self.load(epoch, which, index), indices, self.workers)
        for batch in order:
            yield list(islice(loaded, len(batch)))

    def load(self, epoch: int, which: Which, index: int) -> Item:
        """One image of the epoch."""
        if which == "plain" or not self._fits:
            return self._made(epoch, which, index)
        if epoch != self._epoch:
            self._kept, self._epoch = {}, epoch
        if index not in self._kept:
            self._kept[index] = self._made(epoch, "both", index)
        both = self._kept[index]
        return both._replace(views={"first": both.views[:1], "second": both.views[1:], "both": both.views}[which])

    def _made(self, epoch: int, which: Which, index: int) -> Item:
        if which == "plain":
            image, valid = self.squares.load(index, self.size)
            return Item(index, (_planes(image),), Geometric(), valid)
        drawn = augment.draw_views(self.options, self.seed, epoch, index)
        # Twice the size: a crop of half the side still has a pixel of its own for every pixel shown.
        large, valid = self.squares.load(index, 2 * self.size)
        views = []
        if which != "second":
            lit = _planes(color_jitter(large, drawn.first))
            views.append(augment.resized_crop(lit[None], [drawn.crop], self.size)[0])
        if which != "first":
            views.append(_planes(resize(color_jitter(large, drawn.second), (self.size, self.size))))
        return Item(index, tuple(views), drawn.crop, self._seen(valid, drawn.crop))

    def _seen(self, valid: Array | None, crop: Geometric) -> Array | None:
        if valid is None:
            return None
        large = torch.from_numpy(valid.astype(np.float32))
        found: Array = augment.resized_crop(large[None, None], [crop], self.size)[0, 0].numpy() >= 0.5
        return found


def _planes(image: Array) -> Tensor:
    """uint8 [H, W, 3] → float32 [3, H, W], 0..255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
