"""The report's parts that show the folder's own photos: beside their maps, the odd ones, those that repeat.

Knows nothing of how photos were chosen: it is handed their numbers. Where a run keeps its photos private, none is
opened.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from models import assign
from models.bundle import Bundle
from models.errors import TesseraError
from models.preprocess import fit, resize
from models.types import Array
from training.config.run import Run
from training.data import validity
from training.data.images import Images
from training.evaluation.exported import Exported
from training.report import pictures

_PAIRS = 4  # of photos that repeat
_GROUPS, _GROUP = 20, 4  # of equal files; names in one
_PRIVATE = '<p class="small">The run keeps its photos private (<code>--no-exemplars</code>): none is shown.</p>'


def beside_their_maps(bundle: Bundle, run: Run, numbers: Sequence[int]) -> str:
    """Whole photos, and what the bundle's network makes of them, as it is served."""
    if not run.recipe.export.exemplars:
        return _PRIVATE
    network, figures = Exported(bundle.encoder_bytes()), ""
    for number in numbers:
        try:
            figures += _figure(bundle, network, run.images, number)
        except (TesseraError, OSError) as error:
            figures += (
                f'<p class="small">{_name(run.images, number)} could not be opened again: {escape(str(error))}</p>'
            )
    return (
        '<p class="small">Chosen so that they show different clusters. Numbers in the maps are the ids of the clusters'
        f' below; gray holds no data.</p><div class="photos">{figures}</div>'
    )


def _figure(bundle: Bundle, network: Exported, images: Images, number: int) -> str:
    decoded = images.load(number)
    size = pictures.shown_size(*decoded.image.shape[:2])
    one = fit(decoded.image, bundle.manifest.input)
    scores = network(one.pixels[None]).scores[0]
    labels = assign.labels(scores, size, one.box, interpolation=bundle.manifest.code.interpolation)
    labels = validity.ignored(labels, decoded.valid)
    shown, clusters = resize(decoded.image, size), bundle.manifest.clusters
    name, over = images.name(number), pictures.map_over(shown, labels, clusters)
    flat = " flat" if size[1] > 2 * size[0] else ""
    return (
        f'<figure class="pair{flat}"><div>{pictures.photo(shown, f"photo {name}")}'
        f"{pictures.photo(over, f'map of {name}: {pictures.told(labels, clusters)}')}"
        f"</div><figcaption>{escape(name)}</figcaption>{pictures.legend(labels, clusters)}</figure>"
    )


def familiarity(found: Mapping[str, Any], photos: Mapping[str, Any], run: Run) -> str:
    """The threshold below which a new photo is unlike these, the least familiar of these, and those that repeat."""
    out = ""
    if quantiles := found.get("familiarity"):
        out += (
            f"<p>How sure the network is of a photo here, its mean margin, in which no cluster counts for more"
            f" than it has of all of these: {quantiles['q50']:.3f}; half of them lie between {quantiles['q25']:.3f} and"
            f" {quantiles['q75']:.3f}. <b>A new photo with less than {quantiles['threshold']:.3f} is unlike these"
            " photos</b>: all but 2 % of them have more. A service answers the share of these photos that have less as"
            " <code>familiarity</code>, and <code>familiar</code> beside it.</p>"
        )
    odd = [(number, f"{_name(run.images, number)} · {value:.3f}") for number, value in photos.get("odd", [])]
    out += _thumbnails("Least familiar of these", odd, run)
    pairs = photos.get("near_duplicates", [])
    shown = [(number, _name(run.images, number)) for first, second, _ in pairs[:_PAIRS] for number in (first, second)]
    return out + _thumbnails(f"Nearly the same picture twice ({len(pairs)}; each beside the other)", shown, run)


def copies(groups: Sequence[Sequence[str]]) -> str:
    """Files that are equal byte for byte, by their names."""
    rows = "".join(f"<li>{escape(' = '.join(names[:_GROUP]))}</li>" for names in groups[:_GROUPS])
    extra = sum(map(len, groups)) - len(groups)
    more = f'<p class="small">and {len(groups) - _GROUPS} more groups</p>' if len(groups) > _GROUPS else ""
    return f"<h3>Copies of other files ({extra}): what they show counts twice</h3><ul>{rows}</ul>{more}"


def _name(images: Images, number: int) -> str:
    return images.name(number) if 0 <= number < len(images) else f"photo {number}"


def _thumbnails(title: str, named: Sequence[tuple[int, str]], run: Run) -> str:
    if not named:
        return ""
    cells = ""
    for number, text in named:
        shown = ""
        if run.recipe.export.exemplars and (pixels := _opened(run.images, number)) is not None:
            shown = pictures.photo(pictures.small(pixels), f"photo {text}")
        cells += f"<figure>{shown}<p>{escape(text)}</p></figure>"
    return f'<h3>{escape(title)}</h3><div class="thumbs">{cells}</div>'


def _opened(images: Images, number: int) -> Array | None:
    try:
        return np.asarray(images.load(number).image)
    except (TesseraError, OSError, IndexError):
        return None
