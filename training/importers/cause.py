"""CAUSE's parts, each a file of its own: segmentation head, cluster centers, codebook; the backbone is DINO's file.

The head's moving average is taken, which is what was evaluated. `head_ema.f1`, `.f2` make CAUSE-MLP, `head_ema.tr` and
`head_ema.query_pos` CAUSE-TR, which needs the codebook as well. Left out: linear probe, projection, bank, student.

CAUSE computed the features of its DINO ViT-S with twelve attention heads, where DINO's has six. Its published heads
learned from those, so DINO's ViT-S gets twelve here, and here alone: a ViT-S whose tensors' names say MSN or DINOv2
has six. `--heads 6` is for DINO's where the head was trained otherwise.

Source: CAUSE (arXiv:2310.07379); the names as its modules have them.
"""

import math

from torch import nn

from models.errors import TesseraError, UsageError
from models.nets.backbone import Backbone
from models.nets.codebook import CodebookDecoder
from models.nets.encoder import Encoder
from training.discovery.segmenter import Segmenter
from training.importers import Options, Parts, Published, centers, projection, vit

LICENCE = "none given: CAUSE's repository has no licence; ask its authors before you pass these weights on"
SMALL_HEADS = 12

_LEAK = (
    "the published script trained this head with the labels of its training images in the last step: its figures are"
    " not those of an unsupervised method"
)


def recognizes(parts: Parts) -> bool:
    """Whether these are CAUSE's."""
    return any(parts.has(end) for end in ("cluster_probe", "head_ema.f1.weight", "head_ema.tr.f1.weight"))


def read(parts: Parts, options: Options) -> Published:
    """Encoder with flip averaging, centers of the cluster probe, by cosine."""
    if options.classifier is not None:
        raise UsageError("--classifier belongs to PiCIE's checkpoints: leave it out")
    if not options.backbone:
        raise UsageError(
            "CAUSE's parts come without the backbone: --backbone names its file or, for timm's hub, its name"
        )
    backbone, said = vit(parts, options, small_heads=SMALL_HEADS)
    notes = [_LEAK]
    if backbone.channels == 384 and options.heads is None and backbone.vit.blocks[0].attn.num_heads == SMALL_HEADS:
        notes.insert(
            0,
            f"THIS ViT-S RUNS WITH {SMALL_HEADS} ATTENTION HEADS, as CAUSE ran DINO's, which has six: its published"
            " heads learned from such features. For a head that was trained on sound ones: --heads 6",
        )
    which = "head_ema" if parts.has("head_ema.f1.weight") or parts.has("head_ema.tr.f1.weight") else "head"
    if which == "head":
        notes.append("the head's moving average is not in it: the student is taken, which CAUSE did not evaluate")
    head: nn.Module
    if parts.has(f"{which}.tr.f1.weight"):
        head = inner = decoder(parts, which, backbone)
        dim = inner.projection.linear.out_channels
        notes.append(
            f"its positions are those of {inner.grid[0]}×{inner.grid[1]} tokens; at other sizes they are resampled"
        )
    else:
        head = projection(parts, f"{which}.f1", f"{which}.f2", backbone)
        dim = head.linear.out_channels
    found = centers(parts, "cluster_probe", dim)
    encoder = Encoder(backbone, head, flip_average=True)
    return Published(Segmenter(encoder, found, "cosine", 3.0), said, LICENCE, tuple(notes))


def decoder(parts: Parts, which: str, backbone: Backbone) -> CodebookDecoder:
    """The TR head with its codebook. Raises TesseraError."""
    what = "the segmentation head"
    positions = parts.one(f"{which}.query_pos", f"{what}'s positions")
    codebook = parts.one("codebook", "the codebook")
    hidden = len(parts.one(f"{which}.tr.linear1.bias", what))
    side = math.isqrt(len(positions))
    if side**2 != len(positions):
        raise TesseraError(f"{what} has {len(positions)} positions, which are no square of tokens")
    projected = projection(parts, f"{which}.tr.f1", f"{which}.tr.f2", backbone)
    channels, dim = backbone.channels, projected.linear.out_channels
    head = CodebookDecoder(channels, dim, (side, side), concepts=len(codebook), hidden=hidden)
    given = {"codebook": codebook, "positions": positions}
    given |= {f"layer.{name}": parts.one(f"{which}.tr.{name}", what) for name in head.layer.state_dict()}
    given |= {f"projection.{name}": tensor for name, tensor in projected.state_dict().items()}
    for name, own in head.state_dict().items():
        if given[name].shape != own.shape:
            raise TesseraError(
                f"{what}: {name} is {tuple(given[name].shape)}, where {tuple(own.shape)} fits the rest: parts of two"
                " networks?"
            )
    head.load_state_dict(given)
    return head
