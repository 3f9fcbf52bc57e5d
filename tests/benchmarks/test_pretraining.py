"""How backbones are judged: agreement across drives, the linear probe, region k-means."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pretraining import Frames, across_drives, clustered, probe
from models.types import Array
from training.data.regions import RegionCache
from training.evaluation import metrics
from training.features.region_codes import RegionCodes

DRIVES = np.array(["a", "a", "b", "b", "c", "c"])
CLASSES = 11


def frames(codes: torch.Tensor, cells: torch.Tensor) -> Frames:
    """Six frames of as many regions as there are rows of each: codes float [6, R, D]."""
    count = codes.shape[1]
    image = torch.arange(6).repeat_interleave(count)
    rows = codes.flatten(0, 1)
    region = torch.arange(count).repeat(6)
    return Frames(cells, DRIVES, RegionCodes(rows, torch.zeros(len(rows), 2), image, image * 0, region))


def test_drives_whose_regions_fall_into_the_same_lumps_agree() -> None:
    torch.manual_seed(0)
    lumps = torch.eye(16)[:11].repeat(1, 3).reshape(33, 16)[None] + 0.01 * torch.randn(6, 33, 16)
    empty = torch.zeros(6, 1, 1, 16).half()
    assert across_drives(frames(lumps, empty)) > 0.8
    assert abs(across_drives(frames(torch.randn(6, 200, 64), empty))) < 0.1


def test_the_probe_is_least_squares_of_two_drives_scored_on_the_third() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (6, 5, 6)).astype(np.uint8)
    labels[0, 0] = 255
    cells = (np.eye(7)[labels.clip(max=4)] + random.normal(0, 0.5, (6, 5, 6, 7))).astype(np.float16)
    table = np.zeros((CLASSES, CLASSES), np.int64)
    for third in "abc":
        taught = (third != DRIVES)[:, None, None] & (labels < CLASSES)
        design = np.concatenate([cells[taught].astype(float), np.ones((taught.sum(), 1))], axis=1)
        weight = np.linalg.lstsq(design, np.eye(CLASSES)[labels[taught]], rcond=None)[0]
        asked = third == DRIVES
        answer = (np.concatenate([cells[asked].astype(float), np.ones((2, 5, 6, 1))], axis=-1) @ weight).argmax(-1)
        table += metrics.confusion(answer, labels[asked], CLASSES, CLASSES)
    wanted = metrics.score(table, np.arange(CLASSES))
    found = probe(frames(torch.zeros(6, 1, 7), torch.from_numpy(cells)), labels)
    assert found["accuracy"] == pytest.approx(wanted.accuracy, abs=0.02)
    assert found["miou"] == pytest.approx(wanted.miou, abs=0.02)


def test_regions_whose_codes_are_their_classes_are_found_whole() -> None:
    ids: Array = np.arange(22, dtype=np.uint16).reshape(1, 1, 2, 11).repeat(6, 0).repeat(3, 1)
    codes = torch.eye(16)[torch.arange(22) % 11].expand(6, 22, 16) + 0.01 * torch.randn(6, 22, 16)
    cache = RegionCache(
        tuple(Path(f"{name}_{i}.png") for i, name in enumerate(DRIVES)),
        np.zeros((6, 2, 11, 3), np.uint8), ids, np.full((6, 3), 22),
    )  # fmt: skip
    labels = (ids[:, 0] % 11).astype(np.uint8)
    found = clustered(frames(codes, torch.zeros(6, 2, 11, 16)), labels, cache)
    assert found["many_to_one_44"] == 1
    assert found["accuracy"] > 0.85
