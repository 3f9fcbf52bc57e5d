"""Seconds and memory of every part, over resumptions."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.small_run import small_run
from training.stage_costs import StageCosts


def test_seconds_add_up_and_the_peak_is_the_largest(tmp_path: Path) -> None:
    run = small_run(tmp_path)

    def known() -> dict[str, dict[str, float]]:
        return {one["name"]: one for one in json.loads((run.cache / "facts" / "stages.json").read_text())}

    first = StageCosts(run)
    with first.timed("a"):
        np.ones(2**24).sum()  # 128 MB
    with first.timed("b"):
        time.sleep(0.03)
    alone = known()
    assert alone["a"]["peak_mb"] - alone["b"]["peak_mb"] > 100
    again = StageCosts(run)
    with pytest.raises(ZeroDivisionError), again.timed("b"):
        time.sleep(0.03) or 1 / 0
    assert list(known()) == ["a", "b"]
    assert known()["b"]["seconds"] >= 0.06
    assert known()["a"] == alone["a"]
    assert 0.03 <= again.seconds["b"] < 10
