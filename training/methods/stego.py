"""STEGO: distills the correspondences of frozen features into a small code, and clusters that.

Knows nothing of how an image is decoded or a bundle written. The backbone is frozen: its features are
computed once (training/features/store.py) and every step works on them; only the head and the cluster centers
learn.

Where paper and published code disagree, the defaults follow the code, whose numbers were published, and
options reach the paper's side: `centering`, `batch_size` 32. Three things are ours. Negatives are true
derangements (`negatives_drawn_by = "upstream"` for the other). No dropout while neighbors are found. And
`shifts = "auto"`: b is read off the features instead of tuned by hand, see `Stego.shifts_for`; `balance = "auto"`
steers it on from there, see training/losses/balance.py. Two terms of the
published code whose weight is 0 in every published run are there as options: `weight_crf`, on the colors of the
feature grid's cells, and `weight_reconstruction`.

Source: Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences
(arXiv:2203.08414).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.nets.heads import ProjectionHead
from models.terminal.progress import say
from models.types import Array
from training import distributed
from training.config import facts, precision
from training.config.recipe import Debias, Section
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.features import stand_ins
from training.features.frozen import frozen_network
from training.features.row_file import RowFile
from training.features.store import FeatureOptions, open_features, thumbnails
from training.losses import correspondence
from training.losses.affinity import affinity_loss, draw_cells, pairs_of
from training.losses.balance import TERMS, Balance
from training.losses.collapse import signs
from training.losses.correspondence import Centering
from training.losses.probes import ClusterProbe
from training.methods.base import Method
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_PUBLISHED_STEPS = 5000
_SHIFT_CROPS = 64  # a million pairs of points: their quantiles no longer move


class StegoConfig(Section):
    """The table [stego]. Weights and shifts: the published file's active default, for DINO ViT-S."""

    code_dim: int = Field(70, ge=2)
    nonlinear: bool = True
    five_crop: bool = False
    precision: Literal["float16", "float32"] = "float16"  # of the features on disk
    # 0: 60 epochs, at least 300 steps and at most the published 5000; a folder of 50 photos needs no more.
    steps: int = Field(0, ge=0)
    batch_size: int = Field(16, ge=2)  # the code's; the paper says 32
    points: int = Field(11, ge=1)  # per side: 121 an image
    negatives: int = Field(5, ge=0)
    negatives_drawn_by: Literal["derangement", "upstream"] = "derangement"
    neighbors: int = Field(7, ge=1, le=30)
    debias: Debias = 0  # directions of the features that say where a place is, without which neighbors are found
    dropout: float = Field(0.1, ge=0, lt=1)
    # finer features are averaged to cells of so many pixels: a CNN's at stride 4 cost four times a ViT's; 0: all
    least_stride: int = Field(0, ge=0)
    weight_self: float = 0.67
    weight_knn: float = 0.25
    weight_rand: float = 0.63
    weight_crf: float = Field(0.0, ge=0)  # of the affinity of place and color, training/losses/affinity.py
    crf_points: int = Field(500, ge=2)  # cells it compares
    weight_reconstruction: float = Field(0.0, ge=0)  # of features decoded from the code
    shifts: Literal["fixed", "auto"] = "fixed"
    shift_self: float = 0.18
    shift_knn: float = 0.12
    shift_rand: float = 0.46
    # The share of pairs that `auto` lets attract each other. The paper tunes b until the mean code similarity of
    # neighbors is near 0.3 and that of random images near 0; the negatives win some of the attracted pairs back.
    attract_self: float = Field(0.5, gt=0, lt=1)
    attract_knn: float = Field(0.5, gt=0, lt=1)
    attract_rand: float = Field(0.1, gt=0, lt=1)
    # auto: the shifts move while the codes are learned, from where `shifts` says, until similarities are what the paper
    # tunes for by hand
    balance: Literal["fixed", "auto"] = "fixed"
    centering: Centering = "code"
    zero_clamp: bool = True
    stabilize: bool = False
    lr: float = Field(5e-4, gt=0)
    probe_lr: float = Field(5e-3, gt=0)
    flip_average: bool = True  # when serving
    centroids: Literal["probe", "kmeans"] = "probe"  # kmeans: the pipeline clusters the codes afterwards


class Stego(Method[StegoConfig]):
    """Frozen backbone, projection head, cluster probe."""

    shifts: Tensor

    Config = StegoConfig

    def __init__(self, config: StegoConfig, run: Run) -> None:
        super().__init__(config, run)
        with seeded(run.recipe.seed):
            self.network = frozen_network(
                run.recipe.backbone,
                lambda backbone: ProjectionHead(backbone.channels, config.code_dim, nonlinear=config.nonlinear),
                flip_average=config.flip_average,
                least_stride=config.least_stride or None,
            )
            self.probe = ClusterProbe(run.recipe.clusters.count, config.code_dim)
            channels, decoding = self.network.backbone.channels, config.weight_reconstruction > 0
            self.decoder = nn.Conv2d(config.code_dim, channels, 1) if decoding else None
        fixed = [config.shift_self, config.shift_knn, config.shift_rand]
        self.register_buffer("shifts", torch.tensor(fixed))
        self.balance = Balance() if config.balance == "auto" else None
        self.to(run.device)
        self.train()

    def train(self, mode: bool = True) -> "Stego":
        """The head trains; the frozen backbone never leaves eval mode."""
        super().train(mode)
        self.network.backbone.eval()
        return self

    def prepare(self) -> None:
        """Features and neighbors, from disk where they are there; the shifts, if they are to be read off them."""
        options = self._feature_options()
        self.features = open_features(self.network, options, self.run)
        if self.config.weight_crf:
            self.colors: RowFile | Array = thumbnails(self.features.maps.shape[-1], options, self.run)
        self.train()
        shares = [self.config.attract_self, self.config.attract_knn, self.config.attract_rand]
        if self.config.shifts == "auto":
            found = self.shifts_for(shares)
            self.shifts.copy_(torch.tensor(found))
            said = ", ".join(f"{term} {shift:.3f}" for term, shift in zip(TERMS, found, strict=True))
            say(self.run.console, f"shifts read off the features: {said}")
        if self.balance is not None:
            self.balance.begin(
                self._similarities(), shares, None if self.config.shifts == "auto" else self.shifts.tolist()
            )
            self.shifts.copy_(self.balance.shifts)

    def _feature_options(self) -> FeatureOptions:
        return FeatureOptions(self.config.five_crop, self.config.precision, debias=self.config.debias)

    def work(self) -> list[Work]:
        """The features."""
        return [stand_ins.features_work(self.network.backbone, self._feature_options(), self.run)]

    def stand_in(self) -> None:
        """Features of the right shape."""
        self.features = stand_ins.features(self.network.backbone, self._feature_options(), self.run)
        if self.config.weight_crf:
            side = self.features.maps.shape[-1]
            self.colors = np.broadcast_to(np.zeros((side, side, 3), np.uint8), (len(self.features), side, side, 3))

    def stages(self) -> list[Stage]:
        """One: head and cluster probe together."""
        per_epoch = sum(1 for _ in self._batches(0))
        steps = self.config.steps or min(_PUBLISHED_STEPS, max(300, 60 * per_epoch))

        remedy = "stego.balance=auto" if self.balance is None else "backbone.features=keys"

        def after_step() -> None:
            if self.balance is not None:
                grown = self.balance.follow(self.seen, steps)
                self.shifts.copy_(self.balance.shifts)
                if grown:
                    facts.note(self.run, "balance", self.balance.facts())
                if self.balance.step == steps:
                    say(self.run.console, f"balance: {self.balance.said()}")

        decoder = [] if self.decoder is None else self.decoder.parameters()
        groups = [
            {"params": [*self.network.head.parameters(), *decoder], "lr": self.config.lr},
            {"params": list(self.probe.parameters()), "lr": self.config.probe_lr},
        ]
        return [Stage("distill", steps, groups, self._batches, self._loss, after_step=after_step, remedy=remedy)]

    def centroids(self) -> Tensor | None:
        """The probe's centers, float32 [K, D] at length 1; None when the codes are to be clustered instead."""
        return self.probe.centroids() if self.config.centroids == "probe" else None

    def current_centroids(self) -> Tensor:
        """The probe's."""
        return self.probe.centroids()

    def shifts_for(self, shares: Sequence[float]) -> list[float]:
        """The shift of each term (self, knn, rand) above which the given share of feature similarities lies.

        Ours, not the paper's: there, b is tuned per data set and backbone until code similarities look right.
        """
        return [_quantile(found, 1 - share) for found, share in zip(self._similarities(), shares, strict=True)]

    def _similarities(self) -> Iterator[Tensor]:
        """Of each term (self, knn, rand) the centered similarities of a sample of pairs."""
        features, device = self.features, self.run.device
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, -1))
        anchor = torch.randperm(len(features), generator=generator)[:_SHIFT_CROPS]
        table = torch.from_numpy(features.neighbors)
        random = torch.randint(1, max(2, len(features)), anchor.shape, generator=generator)
        partners = (anchor, table[anchor, min(1, table.shape[1] - 1)], (anchor + random) % len(features))
        drawn = (correspondence.draw_points(len(anchor), self.config.points, generator) for _ in range(2))
        here, there = (points.to(device) for points in drawn)

        def sampled(which: Tensor, at: Tensor) -> Tensor:
            known = features.valid_cells(which.tolist(), device)
            at = at if known is None else correspondence.onto_valid(at, known, generator)
            return correspondence.normalize(correspondence.sample(features.batch(which.tolist(), device), at))

        for partner, at in zip(partners, (here, there, there), strict=True):
            similarity = correspondence.correlation(sampled(anchor, here), sampled(partner, at))
            yield correspondence.center(similarity, self.config.centering)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Every crop once, each with one of its neighbors, in an order the seed and the epoch decide.

        anchor, neighbor  int64 [B];  seed  of everything the step draws
        """
        seed, table = self.run.recipe.seed, torch.from_numpy(self.features.neighbors)
        generator = torch.Generator().manual_seed(mixed(seed, epoch))
        order = torch.randperm(len(table), generator=generator)
        most = min(self.config.neighbors, table.shape[1] - 1)
        for i, anchor in enumerate(torch.split(order, self.config.batch_size)):
            if len(anchor) == 1 and i:
                continue  # alone it has no negatives
            rank = torch.randint(min(1, most), most + 1, anchor.shape, generator=generator)
            yield {"anchor": anchor, "neighbor": table[anchor, rank], "seed": mixed(seed, epoch, i)}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        config, device = self.config, self.run.device
        generator = torch.Generator().manual_seed(batch["seed"])
        count = len(batch["anchor"])
        share = distributed.share(count)  # of the head's work; the loss is every process's own, of the whole batch

        def dropout(x: Tensor, rows: slice = slice(None)) -> Tensor:  # drawn for all rows, whoever has which of them
            one = x.new_ones(count, x.shape[1], 1, 1)
            return x * correspondence.drop_channels(one, config.dropout, generator)[rows]

        crops = [batch[name].tolist() for name in ("anchor", "neighbor")]
        # Channels last: 1×1 convolutions and samples of 384 channels take two thirds of the time.
        both = [self.features.batch(which, device).contiguous(memory_format=torch.channels_last) for which in crops]
        valid = self.features.valid_cells(crops[0], device), self.features.valid_cells(crops[1], device)
        own = partial(dropout, rows=share.rows)
        with precision.autocast(self.run.recipe.compute.precision, device):
            codes = [self.network.head(maps[share.rows], own) for maps in both]
        codes = [share.gather(code.float()) for code in codes]
        points = [correspondence.draw_points(count, config.points, generator).to(device) for _ in range(2)]
        noisy = dropout(both[0]), dropout(both[1])  # a third draw each: what supervises is noisy as well
        terms = correspondence.correspondence(
            noisy,
            (codes[0], codes[1]),
            (points[0], points[1]),
            [self._others(count, generator).to(device) for _ in range(config.negatives if count > 1 else 0)],
            self.shifts,
            centering=config.centering,
            zero_clamp=config.zero_clamp,
            stabilize=config.stabilize,
            valid=valid,
            generator=generator,
        )
        weights = dict(zip(TERMS, (config.weight_self, config.weight_knn, config.weight_rand), strict=True))
        losses = {name: weights[name] * pair.loss.mean() for name, pair in terms.items()}
        losses["cluster"] = self.probe.loss(codes[0], valid=valid[0])
        if config.weight_crf:
            height, width = codes[0].shape[-2:]
            cells = draw_cells(config.crf_points, (height, width), generator).to(device)
            colors = self._colors(batch["anchor"]).to(device)
            energy = affinity_loss(colors, correspondence.normalize(codes[0]), cells)
            losses["crf"] = config.weight_crf * validity.mean(energy, pairs_of(cells, valid[0]))
        if self.decoder is not None:
            decoded = correspondence.reconstruction(self.decoder(codes[0]), noisy[0], valid[0])
            losses["reconstruction"] = config.weight_reconstruction * decoded
        with torch.no_grad():
            losses |= {f"log/{name}_similarity": pair.similarity.mean() for name, pair in terms.items()}
            alike = terms["self"].similarity  # should become bimodal: most pairs near 0 or near 1
            losses["log/self_near_0"] = (alike.abs() < 0.2).float().mean()
            losses["log/self_near_1"] = (alike > 0.8).float().mean()
            losses |= signs(codes[0], self.probe(codes[0]).argmax(1), valid[0])
            if self.balance is not None:
                losses |= {f"log/shift_{term}": shift.clone() for term, shift in zip(TERMS, self.shifts, strict=True)}
        self.seen = losses
        return losses

    def _colors(self, crops: Tensor) -> Tensor:
        """The normalized colors of some crops' cells: float32 [B, 3, h, w]."""
        pixels = torch.from_numpy(self.colors[self.features.rows(crops.numpy())]).permute(0, 3, 1, 2).float()
        return (pixels - self.network.mean.cpu()) / self.network.std.cpu()

    def _others(self, count: int, generator: torch.Generator) -> Tensor:
        if self.config.negatives_drawn_by == "derangement":
            return correspondence.derangement(count, generator)
        return correspondence.shifted_permutation(torch.randperm(count, generator=generator))


def _quantile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(1, round(share * len(flat)))).values)


METHOD = Stego
