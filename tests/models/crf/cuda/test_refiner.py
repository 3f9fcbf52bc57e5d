"""The CRF's kernels, run for real: on this CPU behind a shim, and on a GPU where there is one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.crf import dense
from models.crf.cuda import Device, Refiner, available, memory, open_device, solver
from models.crf.cuda.structs import IMAGE
from models.crf.params import CRFError, CRFParams
from models.preprocess import Fit
from tests.models.crf.cuda.cases import PLAIN, assert_near, maps, noise, picture, refined, softmax
from tests.models.crf.cuda.emulator import Emulator, missing

ROOT = Path(__file__).parents[4]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
emulated = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.mark.slow
def test_a_batch_of_all_sorts_agrees_with_the_oracle(device: Device) -> None:
    cases = [
        (maps(27, 40, 56), picture(40, 56)),
        (maps(27, 33, 21, 1, 4.0), picture(33, 21, 1)),
        (maps(27, 36, 36, 2, 0.2), np.full((36, 36, 3), 90, np.uint8)),  # few vertices, long lists
        (maps(27, 1, 9, 3), picture(1, 9)),
        (maps(27, 7, 1, 4), picture(7, 1)),
        (maps(27, 1, 1, 5), picture(1, 1)),
    ]
    assert_near(*refined(device, cases), cases)


@pytest.mark.parametrize("k", [1, 12, 33])  # 33: two blocks
def test_any_number_of_labels(device: Device, k: int) -> None:
    cases = [(maps(k, 18, 24), picture(18, 24))]
    labels, marginals = refined(device, cases)
    assert_near(labels, marginals, cases)
    np.testing.assert_allclose(marginals[0].sum(axis=0), 1, atol=1e-5)


def test_noise_fills_the_first_hash_table_and_gets_a_larger_one(device: Device) -> None:
    cases = [(maps(5, 24, 24), picture(24, 24)), (maps(5, 24, 20), noise(24, 20))]
    assert_near(*refined(device, cases), cases)
    if isinstance(device, Emulator):
        assert device.launches["embed"] == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"iterations": 0},
        {"iterations": 1},
        {"gaussian_sxy": 2, "gaussian_compat": 5},
        {"bilateral_sxy": 20, "bilateral_srgb": 13, "bilateral_compat": 10},
        {"gaussian_compat": 0, "bilateral_compat": 0},
        {"bilateral_compat": 1000},
        {"bilateral_compat": 1e-6},
    ],
)
def test_the_parameters_are_heard(device: Device, changed: dict[str, float]) -> None:
    cases, params = [(maps(4, 24, 20), picture(24, 20))], CRFParams(**changed)  # type: ignore[arg-type]
    assert_near(*refined(device, cases, params), cases, params)


@emulated
@pytest.mark.parametrize("seed", [1, 6])
def test_the_order_in_which_blocks_and_threads_run_changes_nothing(seed: int) -> None:
    cases = [
        (maps(27, 36, 36, 2), np.full((36, 36, 3), 90, np.uint8)),
        (maps(27, 24, 32), picture(24, 32)),
    ]
    for ours, expected in zip(refined(Emulator(seed), cases), refined(Emulator(), cases), strict=True):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@emulated
@pytest.mark.skipif(available() is not None, reason=available() or "")
def test_a_gpu_gives_the_emulators_numbers() -> None:
    """The same integers, and floats rounded in the same way."""
    cases = [(maps(27, 40, 56), picture(40, 56)), (maps(27, 24, 20), noise(24, 20))]
    for ours, expected in zip(refined(open_device(), cases), refined(Emulator(), cases), strict=True):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_neither_batch_mates_nor_memory_change_an_answer(device: Device) -> None:
    sizes = [(24, 32), (40, 17), (8, 8), (20, 24), (24, 24)]
    cases = [(maps(27, h, w, seed), picture(h, w, seed)) for seed, (h, w) in enumerate(sizes)]
    cases[3] = (cases[3][0], noise(20, 24))
    few = CRFParams(iterations=3)
    together = refined(device, cases, few)
    scarce = refined(device, cases, few, budget=1_600_000)  # groups of few, and parts of groups
    for number, case in enumerate(cases):
        alone = refined(device, [case], few)
        for kind in (0, 1):
            np.testing.assert_array_equal(together[kind][number], alone[kind][0])
            np.testing.assert_array_equal(scarce[kind][number], alone[kind][0])


def test_the_budget_is_kept_or_the_image_refused(device: Device) -> None:
    budget = 1_000_000
    refiner = Refiner(device, budget=budget)
    (small, large), few = (Fit(picture(side, side), (side, side)) for side in (24, 64)), CRFParams(iterations=1)
    refiner.refine([maps(27, 24, 24)] * 6, None, [small] * 6, PLAIN, few)
    assert refiner._field.nbytes <= budget
    with pytest.raises(memory.OutOfMemory, match="64×64"):
        refiner.refine([maps(27, 64, 64)], None, [large], PLAIN, few)
    refiner.refine([maps(27, 24, 24)], None, [small], PLAIN, few)
    assert refiner._field.nbytes <= budget


def test_memory_of_one_photo() -> None:
    """320², 27 labels: at the median photo's vertices below 80 MB, at nearly any photo's below 100."""
    table = np.zeros(1, IMAGE)
    table["height"] = table["width"] = 320
    pixels = memory.needs(memory.front(table, 1, solver.PLACES))
    assert pixels + memory.needs(memory.back(int(0.6 * 320**2), 1)) < 80e6
    assert pixels + memory.needs(memory.back(320**2, 1)) < 100e6


def test_what_lies_on_the_device_is_taken_from_there(device: Device) -> None:
    scores, photo = maps(3, 16, 20), picture(16, 20)
    with device.active():
        there = device.upload(scores)
    (labels,) = Refiner(device).refine([there], None, [Fit(photo, (16, 20))], PLAIN)
    np.testing.assert_array_equal(device.download(labels), refined(device, [(scores, photo)])[0][0])
    np.testing.assert_array_equal(device.download(there), scores)


def test_too_fine_for_the_lattice_is_refused(device: Device) -> None:
    white, fine = np.full((4, 5, 3), 255, np.uint8), CRFParams(bilateral_srgb=0.1)
    fitted = [Fit(np.zeros_like(white), (4, 5)), Fit(white, (4, 5))]
    with pytest.raises(CRFError, match=r"^image 1 of the batch: .*larger"):
        Refiner(device).refine([maps(2, 4, 5)] * 2, None, fitted, PLAIN, fine)
    with pytest.raises(CRFError, match=r"^the standard deviations .*larger"):
        Refiner(device).refine([maps(2, 4, 5)], None, fitted[1:], PLAIN, fine)


def test_importing_it_imports_neither_cupy_nor_numba() -> None:
    code = "import sys, models.crf.cuda; sys.exit(bool({'cupy', 'numba'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photos beside the checkout")
@pytest.mark.parametrize("spread", [0.5, 1.0, 6.0])
def test_photos_agree_with_the_oracle_and_the_cpu(device: Device, spread: float) -> None:
    from models.io.decode import decode

    photos = [decode(path.read_bytes()).image for path in sorted(PHOTOS.glob("*.jpg"))[:4]]
    cases = [(maps(27, 128, 128, seed, spread), photo[:128, :128].copy()) for seed, photo in enumerate(photos)]
    labels, marginals = refined(device, cases)
    assert_near(labels, marginals, cases)
    expected = [dense.refine(softmax(scores).astype(np.float32), photo).labels for scores, photo in cases]
    assert np.mean([a == b for a, b in zip(labels, expected, strict=True)]) >= 0.9999
