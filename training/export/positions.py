"""The directions of a bundle's code that say where a place is, as its network says them of an image of one color.

Knows nothing of methods, or of what is done with the directions (models/debias.py).
"""

import numpy as np

from models import debias
from models.debias import Asked
from models.errors import TesseraError
from models.inference import Predictor
from models.preprocess import IMAGENET, InputSpec, Normalization
from models.terminal.progress import say
from models.types import Array
from training.config.run import Run
from training.discovery.segmenter import Segmenter
from training.evaluation.exported import Exported


def positions(network: Predictor, spec: InputSpec, normalization: Normalization | None, asked: Asked) -> Array | None:
    """Directions float32 [D, r] of the code; None where none are asked for, or `auto` finds none.

    normalization  which the graph does; its mean is the color; None: ImageNet's

    Raises TesseraError where there are fewer than asked for.
    """
    if asked == 0:
        return None
    code = network(one_color(spec, normalization or IMAGENET)[None], code=True).code
    assert code is not None  # it was asked for
    found = debias.directions(code[0], asked)
    return found if found.shape[1] else None


def kept_positions(found: Segmenter, onnx: bytes, spec: InputSpec, run: Run) -> Array | None:
    """Those that the recipe asks for, of a network that was trained; what stands against it is told, and none are kept:
    hours of training are not lost for it."""
    asked = run.recipe.export.debias
    try:
        if asked and found.assignment != "cosine":
            raise TesseraError("codes that are compared by dot products have no use for it")
        kept = positions(Exported(onnx), spec, found.encoder.backbone.normalization, asked)
    except TesseraError as error:
        say(run.console, f"export.{error}" if str(error).startswith("debias") else f"export.debias: {error}")
        return None
    if kept is not None:
        say(run.console, f"places of different images are compared without {kept.shape[1]} of {len(kept)} directions")
    return kept


def one_color(spec: InputSpec, normalization: Normalization) -> Array:
    """The mean color at the working size, uint8 [H, W, 3]: to the network nearly 0 everywhere."""
    color = np.rint(255 * np.asarray(normalization.mean)).clip(0, 255).astype(np.uint8)
    sides = (max(spec.multiple, side // spec.multiple * spec.multiple) for side in spec.size)
    return np.ascontiguousarray(np.broadcast_to(color, (*sides, 3)))
