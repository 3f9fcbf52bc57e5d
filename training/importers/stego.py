"""STEGO's Lightning checkpoints: the DINO ViT under `net.model`, the head `cluster1`, `cluster2`, two probes.

Left out: the linear probe, which labels trained, and what training alone needs.

Source: STEGO (arXiv:2203.08414) §4; the names as its repository's checkpoints have them.
"""

from models.errors import UsageError
from models.nets.encoder import Encoder
from training.discovery.segmenter import Segmenter
from training.importers import Options, Parts, Published, centers, projection, vit

LICENCE = "MIT, as STEGO's repository; of the DINO backbone Apache-2.0"


def recognizes(parts: Parts) -> bool:
    """Whether these are STEGO's."""
    return parts.has("cluster1.0.weight") or parts.has("cluster_probe.clusters")


def read(parts: Parts, options: Options) -> Published:
    """Encoder with flip averaging, centers of the probe that was evaluated, by cosine."""
    if options.classifier is not None:
        raise UsageError("--classifier belongs to PiCIE's checkpoints: leave it out")
    backbone, said = vit(parts, options)
    head = projection(parts, "cluster1.0", "cluster2", backbone)
    found = centers(parts, "cluster_probe.clusters", head.linear.out_channels)
    return Published(Segmenter(Encoder(backbone, head, flip_average=True), found, "cosine", 2.0), said, LICENCE)
