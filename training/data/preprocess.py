"""How a folder's images reach an encoder.

Knows nothing of methods or bundles.
"""

import math
from collections.abc import Iterable, Iterator

from models.io.samples import Decoded
from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from models.preprocess import Fit, InputSpec, fit
from training.data.images import Images
from training.data.prefetch import prefetch

_LONGEST_SIDES = 4  # short sides: a panorama beyond 4:1 is squeezed rather than let it take all memory
_BATCH_BYTES = 2**26  # of decoded images that wait for each other


def input_spec(encoder: Encoder, size: int) -> InputSpec:
    """How images reach this encoder: short side `size`, sides that are whole cells of its coarsest map.

    The long side ends where the head has as many tokens as it may have, if it says so (`max_tokens`). A network whose
    graph takes one size only gets every image stretched to a square of about `size`: a photo of 4:3 is then as narrow
    as the crops that such networks were trained on.
    """
    backbone = encoder.backbone
    multiple, longest = backbone.multiple, _LONGEST_SIDES * size
    inner = backbone.inner if isinstance(backbone, TokenBackbone) else backbone
    if isinstance(inner, CnnBackbone):
        multiple = math.lcm(multiple, *inner.strides)
    most = getattr(encoder.head, "max_tokens", None)
    if not backbone.takes_any_size():
        side = max(1, round(size / multiple)) * multiple
        fits = side if most is None else math.isqrt(most) * encoder.stride // multiple * multiple
        longest = max(size, side) if side <= fits else max(fits, multiple)
        side = min(side, longest)
        return InputSpec(size=(side, side), resize="stretch", multiple=multiple, max_side_px=longest)
    if most is not None:
        rows = math.ceil(size / multiple) * multiple // encoder.stride
        longest = min(longest, most // rows * encoder.stride // multiple * multiple)
    return InputSpec(size=(size, size), multiple=multiple, max_side_px=max(longest, multiple))


def fitted(images: Images, spec: InputSpec, workers: int) -> Iterator[tuple[Decoded, Fit]]:
    """Every image as it is, and as the encoder gets it; decoded ahead in threads."""

    def both(i: int) -> tuple[Decoded, Fit]:
        decoded = images.load(i)
        return decoded, fit(decoded.image, spec)

    return prefetch(both, range(len(images)), workers)


def batched(items: Iterable[tuple[Decoded, Fit]], most: int) -> Iterator[list[tuple[Decoded, Fit]]]:
    """Neighbors that the encoder gets at one size, together: at most `most` of them, and of bounded bytes."""
    some: list[tuple[Decoded, Fit]] = []
    for item in items:
        full = len(some) == most or sum(decoded.image.nbytes for decoded, _ in some) > _BATCH_BYTES
        if some and (full or item[1].pixels.shape != some[0][1].pixels.shape):
            yield some
            some = []
        some.append(item)
    if some:
        yield some


def four_by_three(short_side: int, multiple: int = 16) -> tuple[int, int]:
    """(H, W) of a 4:3 image, the commonest shape of a photo, in whole cells of 16 pixels, or of `multiple`.

    multiple  of the network's sides; 16 where it divides 16
    """
    cell = multiple if 16 % multiple else 16
    return max(1, short_side // cell) * cell, max(1, round(short_side * 4 / 3 / cell)) * cell
