"""Both methods, stopped in mid-epoch and gone on with, end with the bits of a run that was never stopped."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from tests.training.small_run import draw, make, small_run
from training.trainer import loop
from training.trainer.interruption import Interrupted

METHODS = {
    "stego": ["stego.steps=5", "stego.batch_size=4", "stego.shifts=auto"],
    "picie": ["picie.epochs=3", "picie.batch_size=4", "picie.overcluster=5", "picie.carry_centroids=true"],
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "picie" else ()) for name in METHODS]
)
@pytest.mark.parametrize(
    "stop_after", [pytest.param(2, marks=pytest.mark.slow), 3]
)  # between two epochs, and within one
def test_ends_with_the_same_bits(tmp_path, name, stop_after):
    torch.set_num_threads(1)
    images = draw(tmp_path / "images")
    overrides = [f"method={name}", "backbone.name=test_resnet", *METHODS[name]]

    def one(folder):
        run = small_run(tmp_path / folder, *overrides, images=images)
        return run, make(run)

    run, whole = one("whole")
    loop.fit(whole, whole.stages(), run)

    run, stopped = one("stopped")
    steps = iter(range(1, 99))

    def stop() -> None:
        if next(steps) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        loop.fit(stopped, [replace(stage, after_step=stop) for stage in stopped.stages()], run)
    run, resumed = one("stopped")
    loop.fit(resumed, resumed.stages(), run)
    for key, wanted in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], wanted), key
    assert torch.equal(resumed.centroids(), whole.centroids())
