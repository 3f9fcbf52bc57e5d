"""Refines label probabilities along the edges of a photo: a fully connected CRF, solved by mean field.

Knows nothing of networks, clusters or requests: probabilities and pixels in, labels out.

Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (2011). The
energy is −log p per pixel plus two Potts terms over all pairs of pixels: one Gaussian in position, one in position
and color. The tests hold the answers against pydensecrf's.

Everything compiled lives in cpu/ and is imported at the first use: a server that never refines does not pay for it.
The compiled code holds no Python lock, so many images are best refined in as many threads as there are cores, one
image each; `threads` is for the speed of a single image. docs/crf.md has what was measured.
"""

import numpy as np
from numpy.typing import NDArray

from models.crf.params import (
    MIN_PROBABILITY,
    PUBLISHED,
    CRFParams,
    Probabilities,
    Refined,
    check_arrays,
    check_range,
)
from models.deadline import Until, check_time


def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    params: CRFParams = PUBLISHED,
    *,
    threads: int = 1,
    deadline: Until = None,
    return_marginals: bool = False,
) -> Refined:
    """The most probable label of every pixel once neighbors and pixels of like color have been heard.

    probabilities  float32 [K, H, W]   sums to 1 over K; 1 ≤ K ≤ 256
    image          uint8   [H, W, 3]   RGB
    threads        threads for this one image; the answer does not depend on it
    deadline       time.monotonic() after which DeadlineExceeded is raised, at the latest one iteration later
    returns        labels uint8 [H, W], and with return_marginals marginals float32 [K, H, W]

    Thread-safe. Raises DeadlineExceeded, and CRFError also where the deviations are too small for the image.
    """
    check_arrays(probabilities, image)
    check_range("threads", threads, 1, 64)
    from models.crf.cpu import mean_field
    from models.crf.cpu.stencil import smoothing_taps
    from models.parallel import ThreadTeam

    height, width = image.shape[:2]
    check_time(deadline)
    with ThreadTeam(threads) as team:
        unary: list[mean_field.Unary] = []

        def enter() -> None:
            nonlocal probabilities
            unary.append(mean_field.log_rows(probabilities, MIN_PROBABILITY))
            del probabilities  # as much memory as the marginals will take

        bilateral = mean_field.bilateral_lattice(image, params, team, enter if team.threads > 1 else None)
        check_time(deadline)
        if team.threads == 1:  # not earlier: the lattice's own tables take as much memory, and are gone now
            enter()
            check_time(deadline)
        labels, marginals = mean_field.infer(
            unary.pop(),
            bilateral,
            smoothing_taps(height, width, params.gaussian_sxy),
            params,
            team,
            marginals=return_marginals,
            check=None if deadline is None else lambda: check_time(deadline),
        )
    return Refined(labels.reshape(height, width), marginals.reshape(-1, height, width))
