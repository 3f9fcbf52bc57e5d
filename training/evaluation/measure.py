"""One evaluation, whole: which networks, which rows, the probe, the curves; and its facts as JSON has them.

Knows nothing of commands, folders or pages.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from rich.console import Console

from models.bundle import Bundle
from models.crf.cpu import jit_cache, warmup
from models.inference import self_test
from models.io.paths import Skipped
from training.evaluation import metrics, scoring
from training.evaluation.correspondence_curve import Curve
from training.evaluation.exported import open_networks
from training.evaluation.label_maps import Edges, Mapper, Way
from training.evaluation.levels import levels
from training.evaluation.linear_probe import LinearProbe
from training.evaluation.scoring import Labelled, Options, Row, Tally
from training.evaluation.taught_classes import TaughtClasses


@dataclass
class Evaluation:
    """Everything that was found.

    mapper    makes the label maps once more, for whoever wants to see them
    tally     rows and failures;  served  the way the service takes
    probe     where one was asked for;  curves  by kind of pair and source
    levels    whether the figures of fewer clusters are told
    """

    bundle: Bundle
    labelled: Labelled
    data: str
    mapper: Mapper
    tally: Tally
    served: Way
    probe: LinearProbe | None = None
    curves: dict[str, dict[str, Curve]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    levels: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class id."""
        return self.labelled.images.class_names

    def facts(self) -> dict[str, Any]:
        """evaluation.json: fractions 0..1, seconds; None where a class does not occur."""
        found: dict[str, Any] = {
            "bundle": self.bundle.ref,
            "method": self.bundle.manifest.method,
            "data": self.data,
            "data_sha256": self.labelled.images.digest,
            "protocol": self.labelled.protocol,
            "images": self.tally.images,
            "pixels": self.tally.pixels,
            "clusters": len(self.bundle.manifest.clusters),
            "classes": list(self.class_names),
            "rows": [self._row(row) for row in self.tally.rows],
            "failed": [{"file": self.name(one), "reason": one.reason} for one in self.tally.skipped],
            "notes": self.notes,
        }
        if self.levels:
            served = next(row for row in self.tally.rows if row.way == self.served)
            found["levels"] = levels(self.bundle, served.scores.confusion, self.class_names)
        if self.probe:
            found["linear_probe"] = {
                "images": self.probe.images, "steps": self.probe.steps, "loss": self.probe.loss,
                "seconds": round(self.probe.seconds, 2),
            }  # fmt: skip
        if self.curves:
            found["correspondence"] = {
                kind: {source: asdict(curve) for source, curve in by.items()} for kind, by in self.curves.items()
            }
        return found

    def name(self, one: Skipped) -> str:
        """A failed file below its folder, where it lies there."""
        return self.labelled.images.names.of(one.path)

    def _row(self, row: Row) -> dict[str, Any]:
        scores, names, edges = row.scores, self.class_names, row.way.edges
        return {
            "name": row.way.name,
            "head": "linear probe" if row.way.probe else "classes" if row.way.taught else "clusters",
            "flip": row.way.flip,
            "crf": edges == Edges(),
            "refine": edges.method if edges else None,
            "crf_size": edges.resolution if edges else None,
            "served": row.way == self.served,
            "miou": _number(scores.miou),
            "accuracy": _number(scores.accuracy),
            "mean_precision": _number(scores.mean_precision),
            "iou": dict(zip(names, map(_number, scores.iou), strict=True)),
            "precision": dict(zip(names, map(_number, scores.precision), strict=True)),
            **({"taught": list(self.mapper.taught.names)} if row.way.taught and self.mapper.taught else {}),
            "class_of_cluster": [names[c] if c != metrics.EXTRA else None for c in scores.match.tolist()],
            "confusion": scores.confusion.tolist(),
            "seconds_per_image": round(row.seconds, 4),
        }


def evaluate(
    bundle: Bundle,
    labelled: Labelled,
    data: str,
    options: Options,
    console: Console,
    learning: Labelled | None = None,
    taught: TaughtClasses | None = None,
) -> Evaluation:
    """Scores a bundle on labelled images.

    data      what they are, for people
    learning  what a linear probe learns from; None: no probe
    taught    classes for more rows; None: there are none

    Raises BundleError where the golden image is not repeated, TesseraError.
    """
    threads = 1 if options.workers > 1 else 0  # images side by side are faster than one image on many cores
    opened = open_networks(bundle, flip=options.flip, features=options.curves, device=options.device, threads=threads)
    self_test(bundle, opened.exported)
    network = opened.networks[opened.served]
    mapper = Mapper(bundle, opened.networks, taught=taught)
    if any(edges.method == "dense" for edges in options.edges):
        if not jit_cache.ready():
            console.print("the CRF is being compiled, once on this machine: about half a minute")
        warmup.warm()  # compiling counts as nobody's seconds
    mapper(bundle.golden.image, mapper.ways(options.edges))  # nor does what else a first image waits for
    skipped: list[Skipped] = []
    probe = None
    if learning is not None:
        probe = scoring.probe(mapper, network, learning, options, skipped, console)
        mapper = replace(mapper, probe=probe)
    tally = scoring.score(mapper, labelled, options, console)
    tally.skipped[:0] = skipped
    notes = list(opened.notes)
    drawn: dict[str, dict[str, Curve]] = {}
    if options.curves:
        drawn = scoring.correspondence(mapper, network, labelled, options, console)
        if not opened.exported.features:
            notes.append(
                "the network does not name its backbone's features: the curves are of the code alone; a bundle"
                " exported anew has both"
            )
    return Evaluation(
        bundle, labelled, data, mapper, tally, Way(flip=opened.served), probe, drawn, notes, options.levels
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
