#!/bin/sh
# scikit-image 0.26.0's felzenszwalb gives other regions of the same uint8 image on another x86 processor, with the same
# wheels of everything: it orders edges by numpy.argsort, which is not stable, and numpy 2.4.6 sorts equal keys in another
# order with AVX-512, with AVX2 and without either. An 8-bit image has few distinct edge weights, so most are ties.
# NPY_DISABLE_CPU_FEATURES stands in for the other processor. With float noise below one gray level no edges tie and
# all three agree.
#
# Guess before running: no randomness, one thread, the same wheels: the same regions everywhere.
#
# Seen on a processor with AVX-512 (regions; pixels of 36,864 whose region is another set of pixels than with AVX-512):
#   all features: 349 regions
#   without AVX-512: 349 regions, 1671 pixels
#   without AVX-512 and AVX2: 349 regions, 3447 pixels
#   with noise: 0 and 0 pixels
#
# So: regions cut on one machine are no fixture for another, and a digest of options and files does not decide them. Who
# needs the same superpixels everywhere breaks ties himself, by a stable sort or by the pixels' order.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet scikit-image==0.26.0 numpy==2.4.6 2>/dev/null
cat > "$folder/cut.py" <<'PYTHON'
import sys

import numpy as np
from skimage.segmentation import felzenszwalb

random = np.random.default_rng(0)
blocks = random.integers(0, 6, (24, 24)).repeat(8, 0).repeat(8, 1) * 9
image = (blocks + random.integers(0, 5, (192, 192))).astype(np.uint8)
noisy = image / 255 + random.uniform(0, 1e-3, image.shape)
found = [felzenszwalb(one, scale=60, sigma=0, min_size=10) for one in (image, noisy)]
np.save(sys.argv[1], np.stack(found))
PYTHON
newest="X86_V4 AVX512_ICL AVX512_SPR"
"$folder/env/bin/python" "$folder/cut.py" "$folder/all.npy"
NPY_DISABLE_CPU_FEATURES="$newest" "$folder/env/bin/python" -W ignore "$folder/cut.py" "$folder/avx2.npy"
NPY_DISABLE_CPU_FEATURES="X86_V3 $newest" "$folder/env/bin/python" -W ignore "$folder/cut.py" "$folder/plain.npy"
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np


def moved(a: np.ndarray, b: np.ndarray) -> int:
    """Pixels whose region in `a` is another set of pixels than their region in `b`."""
    sizes_a, sizes_b = np.bincount(a.ravel()), np.bincount(b.ravel())
    both = np.bincount(a.ravel() * (b.max() + 1) + b.ravel(), minlength=(a.max() + 1) * (b.max() + 1))
    shared = both[a * (b.max() + 1) + b]
    return int(((shared != sizes_a[a]) | (shared != sizes_b[b])).sum())


whole, avx2, plain = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("all", "avx2", "plain"))
print(f"all features: {whole[0].max() + 1} regions")
print(f"without AVX-512: {avx2[0].max() + 1} regions, {moved(whole[0], avx2[0])} pixels")
print(f"without AVX-512 and AVX2: {plain[0].max() + 1} regions, {moved(whole[0], plain[0])} pixels")
print(f"with noise: {moved(whole[1], avx2[1])} and {moved(whole[1], plain[1])} pixels")
differ = moved(avx2[0], plain[0]) > 0
agree = np.array_equal(whole[1], avx2[1]) and np.array_equal(whole[1], plain[1])
sys.exit(0 if differ and agree else 1)
PYTHON
