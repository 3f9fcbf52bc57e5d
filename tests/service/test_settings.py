"""The environment, read once: typos are told the nearest setting."""

import os
from pathlib import Path

import pytest

from service import settings
from service.settings import Settings, SettingsError, embedded


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"TESSERA_ROOTS: .*nowhere is no folder"):
        Settings.from_env({"TESSERA_ROOTS": str(tmp_path / "nowhere")})


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


def test_what_kubernetes_says_of_a_service_named_tessera_is_no_setting() -> None:
    links = {
        "TESSERA_SERVICE_HOST": "10.0.0.7",
        "TESSERA_SERVICE_PORT_HTTP": "80",
        "TESSERA_PORT": "tcp://10.0.0.7:80",
        "TESSERA_PORT_80_TCP_ADDR": "10.0.0.7",
        "TESSERA_PREDICTOR_PORT_80_TCP": "tcp://10.0.0.8:80",
    }
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert Settings.from_env({**links, **inside, "HOME": "/"}) == Settings.from_env({"HOME": "/"})
    for link in links:
        with pytest.raises(SettingsError, match=link):
            Settings.from_env({link: links[link]})
    with pytest.raises(SettingsError, match="TESSERA_PORTS"):
        Settings.from_env({**inside, "TESSERA_PORTS": "80"})
    for name in Settings.model_fields:  # no setting may ever be taken for one
        assert not settings._SERVICE_LINK.fullmatch(name.upper())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TESSERA_MAX_MPXS", "1", "TESSERA_MAX_MPX"),
        ("TESSERA_MAX_MPX", "0", "MAX_MPX"),
        ("TESSERA_ENGINE", "gpu", "'cuda'"),
        ("TESSERA_THREADS", "many", "THREADS"),
        ("TESSERA_CRF", "fast", "'pydensecrf'"),
        ("TESSERA_TIMEOUT_S", "inf", "TIMEOUT_S"),
        ("TESSERA_MAX_MPX", "nan", "MAX_MPX"),
        ("TESSERA_MAX_QUEUE_MPX", "-inf", "MAX_QUEUE_MPX"),
        ("TESSERA_BODY_TIMEOUT_S", "1e300", "less than or equal to 86400"),
        ("TESSERA_DRAIN_S", "99999999", "less than or equal to 86400"),
        ("TESSERA_MAX_BYTES", "9" * 30, "MAX_BYTES"),
        ("TESSERA_MAX_REQUESTS", "1000001", "MAX_REQUESTS"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_env({name: value})


def test_every_number_has_an_upper_bound() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float):
            for value in ("inf", "1e400", "9" * 400):
                with pytest.raises(SettingsError, match=f"TESSERA_{name.upper()}"):
                    Settings.from_env({f"TESSERA_{name.upper()}": value})


def test_what_each_worker_holds_for_itself_is_divided_and_what_they_count_together_is_not() -> None:
    whole = Settings(cache_bytes=101, gpu_bytes=0, threads=3, max_queue_size=7, workers=1)
    parts = [whole.shared(number, 2) for number in (1, 2)]
    assert [(part.cache_bytes, part.gpu_bytes, part.threads, part.workers) for part in parts] == [
        (51, 0, 2, 1),
        (50, 0, 1, 1),
    ]
    assert all(part.max_queue_size == 7 for part in parts)
    assert sum(part.max_model_bytes for part in parts) == whole.max_model_bytes
