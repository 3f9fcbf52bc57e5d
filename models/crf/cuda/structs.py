"""What the host tells the kernels about the images of a batch: structs of C, as rows of numpy tables.

Knows nothing of devices or of the method. The same fields in the same order as in cells.cu and grid.cu, eight bytes
each, so that there is no padding.
"""

import numpy as np

IMAGE = np.dtype(
    [(name, np.uint64) for name in ("picture", "stencil", "stencil_row", "offsets")]
    + [(name, np.int64) for name in ("taps", "height", "width", "pixel", "slot", "mask", "vertex", "vertices")]
)
GRID = np.dtype(
    [(name, np.uint64) for name in ("scores", "products", "labels")]
    + [(name, np.int64) for name in ("height", "width", "rows", "columns")]
    + [(name, np.float64) for name in ("top", "left", "down", "across")]
    + [("nearest", np.int64)]
)
STATUS = np.dtype([(name, np.int32) for name in ("vertices", "full", "out_of_range")])
PAIR = np.dtype([("before", np.int32), ("after", np.int32)])
BLEND = np.dtype([("before", np.uint32), ("after", np.uint32)])
EDGE = np.dtype([("point", np.int32), ("share", np.uint32)])
CORNERS = 6  # of a simplex in five dimensions, and as many directions
LONG = 256  # a vertex with more edges is summed by a whole block
