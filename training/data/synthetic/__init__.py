"""Pictures drawn by a program, with the class of every pixel: what may be shown where no photo may, and what there is
no data set of.

Knows nothing of networks. The folder is the registry: a further kind is one file here with `CLASS_NAMES` and
`draw(size, seed) -> Drawn`; the same seed draws the same picture. Labels are for scoring.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from models.errors import UsageError
from models.types import Array
from training.data.synthetic import streets
from training.data.synthetic.canvas import Drawn

_NO_KINDS = ("__main__", "canvas")


def kinds() -> list[str]:
    """Every kind of pictures there is a file for."""
    return sorted(module.name for module in iter_modules(__path__) if module.name not in _NO_KINDS)


def class_names(kind: str) -> tuple[str, ...]:
    """What a kind's label maps tell apart, in the order of their values. Raises UsageError."""
    found: tuple[str, ...] = _module(kind).CLASS_NAMES
    return found


def draw(kind: str, size: tuple[int, int] = (240, 320), seed: int = 0) -> Drawn:
    """The picture of a seed. size: (H, W) in pixels. Raises UsageError for a kind that there is not."""
    found: Drawn = _module(kind).draw(size, seed)
    return found


def street(size: tuple[int, int] = (360, 480), seed: int = 0) -> Array:
    """A street in perspective under a cloudy sky: road, pavements, houses, trees, cars.

    size     (H, W) in pixels
    returns  RGB uint8 [H, W, 3]
    """
    return streets.draw(size, seed).image


def _module(kind: str) -> ModuleType:
    if kind not in kinds():
        raise UsageError(f"kind {kind!r}: there are {', '.join(kinds())}")
    return import_module(f"training.data.synthetic.{kind}")
