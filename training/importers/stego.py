"""STEGO's Lightning checkpoints: the DINO ViT under `net.model`, the head `cluster1`, `cluster2`, two probes.

Left out: the linear probe, which labels trained, and what training alone needs. Of the settings in the file
`dino_feat_type` decides what the head sees: the last block's tokens ("feat"), or the keys of its attention ("KK").

Source: STEGO (arXiv:2203.08414) §4; the names as its repository's checkpoints have them.
"""

from models.errors import TesseraError, UsageError
from models.nets.backbone import VitBackbone
from models.nets.encoder import Encoder
from training.discovery.segmenter import Segmenter
from training.importers import Options, Parts, Published, centers, projection, vit

_HEADS = 6  # into which STEGO's code cuts the keys, whatever the network

LICENCE = "MIT, as STEGO's repository; of the DINO backbone Apache-2.0"


def recognizes(parts: Parts) -> bool:
    """Whether these are STEGO's."""
    return parts.has("cluster1.0.weight") or parts.has("cluster_probe.clusters")


def read(parts: Parts, options: Options) -> Published:
    """Encoder with flip averaging, centers of the probe that was evaluated, by cosine."""
    if options.classifier is not None:
        raise UsageError("--classifier belongs to PiCIE's checkpoints: leave it out")
    backbone, said = vit(parts, options)
    if parts.setting("dino_feat_type", "feat", ("feat", "KK")) == "KK":
        backbone, said = _keys(backbone), f"{said}, keys"
    head = projection(parts, "cluster1.0", "cluster2", backbone)
    found = centers(parts, "cluster_probe.clusters", head.linear.out_channels)
    return Published(Segmenter(Encoder(backbone, head, flip_average=True), found, "cosine", 2.0), said, LICENCE)


def _keys(backbone: VitBackbone) -> VitBackbone:
    """The same network whose keys are the features. Raises TesseraError where STEGO's are no keys of any head."""
    heads = backbone.vit.blocks[-1].attn.num_heads
    if heads != _HEADS:
        raise TesseraError(
            f"it was trained on the keys of {_HEADS} attention heads (dino_feat_type = KK), and its backbone has"
            f" {heads}: such features are a mixture of heads and places, which is not read here"
        )
    keys = VitBackbone(backbone.vit, features="keys")
    keys.resampling, keys.normalization = backbone.resampling, backbone.normalization
    return keys
