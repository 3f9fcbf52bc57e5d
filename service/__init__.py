"""How a model is served: HTTP in front of `models`, without torch."""

import os

# Products of matrices (classes by example) are small and come from many threads: numpy's BLAS on as many threads of its
# own has them wait for each other: where other work filled two cores, one in ten of .1 ms took 45 ms.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
