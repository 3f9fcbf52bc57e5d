"""The environment, read once: typos are told the nearest setting."""

import os
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, embedded


def test_defaults() -> None:
    settings = Settings.from_env({"HOME": "/home/ann"})
    assert settings.bundles == embedded()
    assert settings.state == Path("/home/ann/.local/state/tessera")
    assert settings.max_bytes == 32 * 2**20
    assert settings.max_working_bytes == 4 * 2**30


def test_values() -> None:
    paths = os.pathsep.join(["a/one", "b/two"])
    settings = Settings.from_env(
        {
            "TESSERA_BUNDLES": paths,
            "TESSERA_MAX_MPX": "20",
            "TESSERA_ENGINE": "onnxruntime",
            "TESSERA_STATE": "s",
            "PATH": "x",
        }
    )
    assert settings.bundles == (Path("a/one"), Path("b/two"))
    assert (settings.max_mpx, settings.engine, settings.state) == (20.0, "onnxruntime", Path("s"))
    assert Settings.from_env({"XDG_STATE_HOME": "/x"}).state == Path("/x/tessera")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TESSERA_MAX_MPXS", "1", "TESSERA_MAX_MPX"),
        ("TESSERA_MAX_MPX", "0", "MAX_MPX"),
        ("TESSERA_ENGINE", "gpu", "'cuda'"),
        ("TESSERA_THREADS", "many", "THREADS"),
        ("TESSERA_CRF", "fast", "'pydensecrf'"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_env({name: value})
