"""What files of a run's own folder may hold: far more than a stranger's upload.

Knows nothing of how they are read.
"""

from models.io.samples import Limits

LIMITS = Limits(max_bytes=2**31, max_mpx=1000.0, max_side_px=2**18)
