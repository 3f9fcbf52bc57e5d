"""Refines label probabilities along the edges of a photo: a fully connected CRF, solved by mean field.

Knows nothing of networks, clusters or requests: probabilities and pixels in, labels out.

Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (2011). The
energy is −log p per pixel plus two Potts terms over all pairs of pixels: one Gaussian in position, one in position
and color. The default numbers are those with which STEGO and CAUSE publish their scores; the tests hold the answers
against pydensecrf's.

Everything compiled lives in mean_field.py and is imported at the first use: a server that never refines does not pay
for it. The compiled code holds no Python lock, so many images are best refined in as many threads as there are cores,
one image each; `threads` is for the speed of a single image. docs/crf.md has what was measured.
"""

from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from models.crf.cpu import jit_cache
from models.crf.params import Labels, Probabilities, _check_range, check_arrays, check_parameters
from models.deadline import check_time

MIN_PROBABILITY = 1e-5  # the published pipelines clip here: a certain pixel can still be overruled


@overload
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = ...,
    gaussian_sxy: float = ...,
    gaussian_compat: float = ...,
    bilateral_sxy: float = ...,
    bilateral_srgb: float = ...,
    bilateral_compat: float = ...,
    threads: int = ...,
    deadline: float | None = ...,
    return_marginals: Literal[False] = ...,
) -> Labels: ...
@overload
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = ...,
    gaussian_sxy: float = ...,
    gaussian_compat: float = ...,
    bilateral_sxy: float = ...,
    bilateral_srgb: float = ...,
    bilateral_compat: float = ...,
    threads: int = ...,
    deadline: float | None = ...,
    return_marginals: Literal[True],
) -> tuple[Labels, Probabilities]: ...
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = 10,
    gaussian_sxy: float = 1.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    threads: int = 1,
    deadline: float | None = None,
    return_marginals: bool = False,
) -> Labels | tuple[Labels, Probabilities]:
    """The most probable label of every pixel once neighbors and pixels of like color have been heard.

    probabilities  float32 [K, H, W]   sums to 1 over K; 1 ≤ K ≤ 256
    image          uint8   [H, W, 3]   RGB
    gaussian_*     standard deviation in pixels, and weight, of the term that smooths
    bilateral_*    standard deviations in pixels and in color levels, and weight, of the term that follows edges
    threads        threads for this one image; the answer does not depend on it
    deadline       time.monotonic() after which CRFTimeout is raised, at the latest one iteration later
    returns        uint8 [H, W], and with return_marginals also float32 [K, H, W], which sums to 1 over K

    Thread-safe. Raises CRFError, CRFTimeout, and lattice.LatticeError (a TesseraError as well) where the standard
    deviations are too small for the image.
    """
    check_arrays(probabilities, image)
    check_parameters(iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    _check_range("threads", threads, 1, 64)
    from models.crf.cpu import mean_field
    from models.crf.cpu.stencil import smoothing_taps
    from models.parallel import ThreadTeam

    k, height, width = probabilities.shape
    check_time(deadline)
    with ThreadTeam(int(threads)) as team:
        unary: list[mean_field.Unary] = []

        def enter() -> None:
            nonlocal probabilities
            unary.append(mean_field.log_rows(probabilities, MIN_PROBABILITY))
            del probabilities  # as much memory as the marginals will take

        bilateral = mean_field.bilateral_lattice(
            image, bilateral_sxy, bilateral_srgb, bilateral_compat, team, enter if team.threads > 1 else None
        )
        check_time(deadline)
        if team.threads == 1:  # not earlier: the lattice's own tables take as much memory, and are gone now
            enter()
            check_time(deadline)
        taps = smoothing_taps(height, width, float(gaussian_sxy))
        labels, maps = mean_field.infer(
            unary.pop(),
            k,
            bilateral,
            taps,
            gaussian_compat,
            int(iterations),
            team,
            marginals=return_marginals,
            check=None if deadline is None else lambda: check_time(deadline),
        )
    labels = labels.reshape(height, width)
    return (labels, maps.reshape(k, height, width)) if return_marginals else labels


def warm(labels: int | None = None) -> None:
    """Compiles what so many labels need with most photos, or all there is, or reads it back from disk.

    About ten seconds, or thirty; a second where it is on disk.
    """
    from models.crf.cpu import mean_field
    from models.crf.cpu.jit import FOLDER
    from models.crf.cpu.stencil import smoothing_taps
    from models.parallel import ThreadTeam

    k = labels or 33  # of which a row is more than one unit: the lattice then holds it in every way there is
    flat = np.full((k, 8, 8), 1 / k, np.float32)
    widths = mean_field.widths(mean_field.row_size(k))
    for threads in (2, 1):
        with ThreadTeam(threads) as team:
            bilateral = mean_field.bilateral_lattice(np.zeros((8, 8, 3), np.uint8), 67.0, 3.0, 4.0, team)
            unary, taps = mean_field.log_rows(flat, MIN_PROBABILITY), smoothing_taps(8, 8, 1.0)
            for channels in widths[:1] if labels else widths:
                mean_field.infer(unary, k, bilateral, taps, 3.0, 1, team, marginals=True, channels=channels)
    if labels is None:
        jit_cache.mark_ready(FOLDER)
