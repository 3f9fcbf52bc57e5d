"""What the CRF compiles, compiled before anybody waits for it, or read back from disk.

Knows nothing of servers or images. numba is imported when it is asked for.
"""

import numpy as np

from models.crf.cpu import jit_cache
from models.crf.params import MIN_PROBABILITY, CRFParams


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
    params = CRFParams(iterations=1)
    for threads in (2, 1):
        with ThreadTeam(threads) as team:
            bilateral = mean_field.bilateral_lattice(np.zeros((8, 8, 3), np.uint8), params, team)
            unary, taps = mean_field.log_rows(flat, MIN_PROBABILITY), smoothing_taps(8, 8, params.gaussian_sxy)
            for channels in widths[:1] if labels else widths:
                mean_field.infer(unary, bilateral, taps, params, team, marginals=True, channels=channels)
    if labels is None:
        jit_cache.mark_ready(FOLDER)
