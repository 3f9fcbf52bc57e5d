"""The device of a test: this CPU behind the shim, and a GPU where there is one."""

from collections.abc import Iterator

import pytest

from models.crf.cuda import Device, available, open_device
from tests.models.crf.cuda.emulator import Emulator, broken_fences, missing


@pytest.fixture(params=["emulated"] if available() else ["emulated", "gpu"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Whatever is written beyond an array's ends fails the test. Without a GPU one test says that there is none."""
    if request.param == "gpu":
        yield open_device()
        return
    if reason := missing():
        pytest.skip(reason)
    yield Emulator()
    assert broken_fences() == 0
