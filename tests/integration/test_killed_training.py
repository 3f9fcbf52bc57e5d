"""A training that is killed three times, wherever it stands, ends in the bundle of one that nobody touched.

Real processes, real SIGKILLs. Some moments are chosen by what the console says (regions are being cut, a backbone is
being pretrained), the others are drawn.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from models.bundle import Bundle
from training.data.synthetic import street

ROOT = Path(__file__).parents[2]
RANDOM = ["backbone.name=resnet10t", "backbone.weights=random"]  # STEGO's run has a pretraining to kill
METHODS = {
    "stego": ["stego.steps=40", "stego.batch_size=8", "input.train_size=96"],
    "cause": [*RANDOM, "cause.steps=25", "cause.concepts=16", "cause.projection_dim=16", "cause.bank=4"],
    "picie": ["picie.epochs=3", "input.train_size=96"],
    "san": ["input.train_size=96", "san.steps=60"],
    "iic": ["backbone.name=resnet10t", "input.train_size=96", "iic.steps=60"],
}
WATCHED = {"stego": ["cutting regions: ", "pretraining: "], "cause": ["contrast: "]}
LONGEST_S = 600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        Image.fromarray(street((120, 160), seed)).save(folder / f"{seed:03d}.jpg", quality=92)
    return folder


class Training:
    """One process of `training/train.py`, its console in a file."""

    def __init__(self, photos: Path, out: Path, method: str) -> None:
        begun = (out / "run.json").is_file()
        sets = ["clusters.k=5", "input.size=96", *METHODS[method]]
        what = ["--resume"] if begun else ["--method", method, *(part for one in sets for part in ("--set", one))]
        self.log = out.with_name(f"{out.name}.console")
        command = [sys.executable, "training/train.py", "--data", str(photos), "--out", str(out), *what]
        with self.log.open("w") as console:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=console, stderr=console
            )

    def says(self, what: str) -> bool:
        """Waits until the console says it; False when the process ends before."""
        while self.process.poll() is None:
            if what in self.log.read_text():
                return True
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        try:
            assert self.process.wait(LONGEST_S) == 0, self.log.read_text()
        finally:
            self.kill()


@pytest.mark.parametrize("method", METHODS)
def test_three_kills_leave_no_trace(photos: Path, tmp_path: Path, method: str) -> None:
    began = time.monotonic()
    Training(photos, tmp_path / "whole", method).end()
    lasts = time.monotonic() - began
    draw = random.Random(f"kills of {method}")
    for said in [*WATCHED.get(method, []), "", "", ""][:3]:
        training = Training(photos, tmp_path / "killed", method)
        if said:
            assert training.says(said), f"it never says {said!r}"
            time.sleep(draw.uniform(0, 0.5))
        else:
            time.sleep(draw.uniform(0.3, 0.9) * lasts)
        training.kill()
    Training(photos, tmp_path / "killed", method).end()
    whole, killed = (contents(tmp_path / name / "bundle") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert [name for name in whole if whole[name] != killed[name]] == []


def contents(folder: Path) -> dict[str, object]:
    """What a bundle's files hold, but for the seconds that the training took and the moment of its end."""
    manifest = Bundle.load(folder).manifest.model_dump(exclude={"provenance", "files"})
    timed = ("manifest.json", "report.json")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in timed
    }
    return {"manifest": manifest, **files}
