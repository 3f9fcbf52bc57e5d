"""Checkpoints that the methods' authors published: which of their tensors is what.

Know nothing of files or bundles: tensors by name in, a segmenter out. The folder is the registry: a
further format is one file here with `recognizes(parts)` and `read(parts, options)`. Names are matched from their end,
because what stands before them (`module.`, `state_dict.net.`) differs from release to release.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import timm
import torch
from torch import Tensor, nn

from models.errors import TesseraError, UsageError
from models.nets import families
from models.nets.backbone import Backbone, BackboneError, VitBackbone
from models.nets.build import build
from models.nets.heads import ProjectionHead
from models.nets.weights import read_weights, vit_from
from models.preprocess import IMAGENET
from training.discovery.segmenter import Segmenter

_MOST_PREFIX = 2  # tokens with positions before the patches: class and distillation

Settings = Callable[[str], set[str | float | None]]


@dataclass(frozen=True)
class Options:
    """What is not in the checkpoints.

    backbone    a file or a timm name; empty: the one inside
    heads       of the ViT's attention; None: as the format's authors had it
    classifier  PiCIE's first or second
    """

    backbone: str = ""
    heads: int | None = None
    classifier: int | None = None


@dataclass(frozen=True)
class Published:
    """What was found.

    backbone   what it is, for people
    licence    of the weights
    notes      what whoever serves it should know, a sentence each
    """

    segmenter: Segmenter
    backbone: str
    licence: str
    notes: tuple[str, ...] = ()


class Parts:
    """Tensors by dotted name, asked for by the end of it.

    settings  key → the plain values under it anywhere in the files: what their training was asked for
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: Settings = lambda name: set()) -> None:
        self._tensors, self._settings = dict(tensors), settings

    def setting(self, name: str, default: str, known: Sequence[str]) -> str:
        """What the training was asked for under a key, `default` where no file says. Raises TesseraError."""
        found = self._settings(name) or {default}
        value = min(found, key=str)
        if len(found) > 1 or value not in known:
            raise TesseraError(
                f"it was trained with {name} = {' and '.join(sorted(map(str, found)))}: what is read here is"
                f" {' or '.join(known)}"
            )
        return str(value)

    def names(self, end: str) -> list[str]:
        """All names that are `end` or end in it after a dot."""
        return [name for name in self._tensors if name == end or name.endswith(f".{end}")]

    def has(self, end: str) -> bool:
        """Whether there is such a tensor."""
        return bool(self.names(end))

    def one(self, end: str, what: str) -> Tensor:
        """The tensor of that name, as float32. Raises TesseraError: none, or several that differ."""
        names = self.names(end)
        if not names:
            raise TesseraError(f"{what} is not in it: no tensor's name ends in {end}{self._held()}")
        first, *others = (self._tensors[name] for name in names)
        if any(first.shape != other.shape or not torch.equal(first, other) for other in others):
            raise TesseraError(f"{what} is in it more than once, and differs: {', '.join(names[:3])}; name one file")
        return first.float()

    def around(self, end: str, what: str) -> dict[str, Tensor]:
        """The network that has a tensor of that name: everything beside it, under its own names, as float32."""
        names = self.names(end)
        if len(names) != 1:
            found = f"more than once: {', '.join(names[:3])}" if names else f"not: no name ends in {end}{self._held()}"
            raise TesseraError(f"{what} is in it {found}")
        before = names[0].removesuffix(end)
        inside = {name.removeprefix(before): t for name, t in self._tensors.items() if name.startswith(before)}
        return {name: t.float() if t.is_floating_point() else t for name, t in inside.items()}

    def _held(self) -> str:
        names = list(self._tensors)
        return f" (it holds {len(names)} tensors, {', '.join(names[:3])} …)"


def names() -> list[str]:
    """Every format there is a file for."""
    return sorted(module.name for module in iter_modules(__path__))


def recognized(parts: Parts) -> str:
    """The format whose parts these are. Raises TesseraError."""
    found = [name for name in names() if import_module(f"training.importers.{name}").recognizes(parts)]
    if len(found) != 1:
        said = f"several formats at once ({', '.join(found)})" if found else f"none of {', '.join(names())}"
        raise TesseraError(f"these tensors are {said}: --format names the one to read them as")
    return found[0]


def read(parts: Parts, name: str, options: Options) -> Published:
    """The checkpoints as one format says. Raises TesseraError, UsageError, BackboneError."""
    if name not in names():
        raise UsageError(f"--format {name}: there are {', '.join(names())}")
    found: Published = import_module(f"training.importers.{name}").read(parts, options)
    numbers = [*found.segmenter.encoder.state_dict().values(), found.segmenter.centroids]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
        raise TesseraError("it holds values that are not finite: the file is damaged, or its training diverged")
    return found


def vit(parts: Parts, options: Options, *, small_heads: int | None = None) -> tuple[VitBackbone, str]:
    """The ViT, and what it is for people: from options.backbone, or else from the checkpoints.

    small_heads  how many heads DINO's ViT-S has where --heads does not say; None: six
    """
    asked, family, normalization = options.backbone, "", IMAGENET  # on which all three methods trained
    if not asked:
        state, source = parts.around("cls_token", "the backbone, a ViT,"), "of the checkpoint"
    elif Path(asked).is_file():
        file = read_weights(Path(asked))
        state, family, source = file.tensors, file.family, Path(asked).name
    elif timm.is_model(asked.split(".")[0]):
        try:
            network = build(asked, "timm")
        except BackboneError as error:
            cause = type(error.__cause__ or error).__name__
            raise TesseraError(f"--backbone {asked}: not to be had ({cause}); download its file and name it") from None
        if not isinstance(network, VitBackbone):
            raise UsageError(f"--backbone {asked}: it is no ViT")
        state, family, source = network.vit.state_dict(), families.of_timm(asked), asked
        normalization = network.normalization
    else:
        raise UsageError(f"--backbone {asked}: neither a file nor a name of timm's")
    _require_square_positions(state, source)
    family, heads = family or families.likely(state), options.heads
    small = state.get("cls_token", torch.empty(0)).shape[-1:] == (384,)
    if heads is None and small and family == "dino":
        heads = small_heads
    found = vit_from(state, heads, source=source, family=family)
    found.normalization = normalization
    attention = found.vit.blocks[0].attn.num_heads
    return found, f"ViT, {found.channels} channels, patches of {found.stride}, {attention} heads ({source})"


def _require_square_positions(state: Mapping[str, Tensor], source: str) -> None:
    """Raises TesseraError for a position table of no square grid: its length tells neither rows nor columns."""
    if "pos_embed" in state:
        count = state["pos_embed"].shape[1]
        grids = [count - prefix for prefix in range(min(count, _MOST_PREFIX) + 1)]
        if not any(math.isqrt(cells) ** 2 == cells for cells in grids):
            raise TesseraError(
                f"weights {source}: {count} positions, which are of no square grid of patches, and their rows and"
                " columns are not in the file: resample them to a square before"
            )


def convolution(parts: Parts, name: str, channels: int, dim: int | None, what: str) -> nn.Conv2d:
    """A 1×1 convolution from `channels` to `dim` (None: as many as it has). Raises TesseraError."""
    weight, bias = parts.one(f"{name}.weight", what), parts.one(f"{name}.bias", what)
    dim = dim or len(weight)
    if weight.shape != (dim, channels, 1, 1) or bias.shape != (dim,):
        raise TesseraError(
            f"{what} ({name}) is {tuple(weight.shape)}, where {(dim, channels, 1, 1)} fits the rest: parts of two"
            " networks?"
        )
    layer = nn.Conv2d(channels, dim, 1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def projection(parts: Parts, linear: str, mlp: str, backbone: Backbone) -> ProjectionHead:
    """STEGO's and CAUSE's head: `linear`, and `mlp`.0 and .2 where there are such. Raises TesseraError."""
    channels, what = backbone.channels, "the segmentation head"
    first = convolution(parts, linear, channels, None, what)
    head = ProjectionHead(channels, first.out_channels, nonlinear=parts.has(f"{mlp}.0.weight"))
    head.linear = first
    if head.mlp is not None:
        head.mlp[0] = convolution(parts, f"{mlp}.0", channels, channels, what)
        head.mlp[2] = convolution(parts, f"{mlp}.2", channels, first.out_channels, what)
    return head


def centers(parts: Parts, name: str, dim: int) -> Tensor:
    """The cluster centers, float32 [K, D]. Raises TesseraError."""
    found = parts.one(name, "the cluster centers")
    if found.ndim != 2 or found.shape[1] != dim:
        raise TesseraError(f"the cluster centers ({name}) are {tuple(found.shape)}, where the head gives {dim} numbers")
    return found
