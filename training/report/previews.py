"""A few images beside their maps while the training goes on: RUN/previews/STAGE-STEP.png, photos above, maps below.

Knows nothing of methods beyond their encoder and the centers they have so far. Training goes on with the bits it would
have without: nothing is drawn from the process's generators, and every part is left in the mode it was in.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from models import assign, palette
from models.errors import TesseraError
from models.files import write_atomically
from models.io.encode import encode
from models.preprocess import fit
from models.terminal.progress import say
from models.types import Array
from training import distributed
from training.clustering.kmeans import kmeans
from training.config.run import Run
from training.data import crops
from training.data.images import evenly
from training.data.preprocess import input_spec
from training.methods.base import Method
from training.trainer.stage import Stage

IMAGES = 4  # in one picture, drawn evenly
_SIDE_PX = 224  # of each, at most


class Previews:
    """Called after every step: draws a picture every `preview_every` steps of the recipe, and after a stage's last.

    Of several processes one draws, alone: nothing in it asks the others.
    """

    def __init__(self, run: Run, method: Method[Any]) -> None:
        self.run, self.method = run, method
        self.every = run.recipe.train.preview_every
        self._photos: list[Array] = []

    def __call__(self, stage: Stage, step: int, losses: object = None) -> None:
        if not distributed.is_main() or not self.every or (step % self.every and step < stage.steps):
            return
        try:
            with torch.random.fork_rng(devices=[]):  # an encoder that is put together for them may make parts anew
                self.draw(stage.name, step)
        except (TesseraError, OSError) as error:
            self.every = 0
            say(self.run.console, f"no previews from here on: {error}")

    def draw(self, stage: str, step: int) -> None:
        """Writes the picture of now."""
        folder = self.run.folder / "previews"
        folder.mkdir(exist_ok=True)
        if not self._photos:
            side = min(_SIDE_PX, self.run.recipe.input.train_size)
            chosen = evenly(len(self.run.images), IMAGES)
            self._photos = [crops.square(self.run.images[i], side) for i in chosen]
        maps = [palette.distinct(self.run.recipe.clusters.count)[one] for one in self._maps()]
        picture = np.concatenate([np.concatenate(row, axis=1) for row in (self._photos, maps)])
        png = encode(np.ascontiguousarray(picture.astype(np.uint8)), "png")
        write_atomically(folder / f"{stage}-{step:06d}.png", lambda file: file.write(png))

    @torch.no_grad()  # not inference_mode: what a network keeps of it would be no good to training
    def _maps(self) -> list[Array]:
        """Cluster ids uint8 [S, S] of every photo."""
        method, encoder = self.method, self.method.encoder()
        modes = [(module, module.training) for module in (*method.modules(), *encoder.modules())]
        try:
            encoder.eval()
            spec = input_spec(encoder, self._photos[0].shape[0])
            fits = [fit(photo, spec) for photo in self._photos]
            pixels = torch.stack([torch.tensor(one.pixels) for one in fits]).to(self.run.device)
            codes = encoder(pixels).float()
        finally:
            for module, mode in modes:
                module.training = mode
        centers = method.current_centroids()
        if centers is None:
            cells = codes.movedim(1, -1).flatten(0, 2).cpu()
            centers, _ = kmeans(cells, min(self.run.recipe.clusters.count, len(cells)), seed=0, restarts=1)
        centers = centers.to(codes)
        centers = F.normalize(centers, dim=1) if method.assignment == "cosine" else centers
        scores = torch.einsum("kd,bdhw->bkhw", centers, codes).cpu().numpy()
        return [
            assign.labels(one, made.source, made.box) for one, made in zip(scores, fits, strict=True)
        ]  # fmt: skip
