"""Keys in files: what is read of them, what is refused, and what SIGHUP changes."""

from pathlib import Path

import pytest

from service.api.auth import ApiKeys
from service.errors import KeyMissing
from service.settings import Settings, SettingsError


def kept(folder: Path, text: bytes | str, name: str = "keys") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    return file


def who(keys: ApiKeys, secret: str) -> str:
    return keys.authenticate({"x-api-key": secret}).name


@pytest.mark.parametrize(
    "text",
    [
        "anna=hush-a\nbert:infer=hush-b\n",
        "# who may ask\n\nanna=hush-a\r\n  bert = hush-b  \r\n",
        "\ufeffanna=hush-a,bert=hush-b",
        "anna=hush-a,\nbert=hush-b,\n",
    ],
)
def test_a_file_has_one_key_a_line_or_between_commas(tmp_path: Path, text: str) -> None:
    keys = ApiKeys(Settings(keys_file=kept(tmp_path, text)))
    assert [who(keys, "hush-a"), who(keys, "hush-b")] == ["anna", "bert"]
    assert keys.needed


def test_a_secret_may_hold_a_hash_sign(tmp_path: Path) -> None:
    assert who(ApiKeys(Settings(keys_file=kept(tmp_path, "anna=hush#a # b\n"))), "hush#a # b") == "anna"


def test_the_admin_key_in_a_file_is_its_one_line(tmp_path: Path) -> None:
    keys = ApiKeys(Settings(admin_key_file=kept(tmp_path, "# ours\nhush=1\n")))
    assert keys.allow("admin", {"x-api-key": "hush=1"}).name == "admin"
    assert not keys.needed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),  # without one everybody could ask
        ("# anna=hush\n\n", "holds no key"),
        ("anna=hush\nhush\n", "line 2 has no '='"),
        ("anna=hush\n\n# b\nanna=other", "line 4 has the name of an earlier one"),
        ("anna=hush\nbert=hush", "line 2 has the secret of an earlier one"),
        ("anna=hush,,bert=other", "line 1 has no '='"),
        (b"anna=hush\xff", "not UTF-8"),
        (b"anna=hush\0", "binary"),
        ("anna=" + "hush" * 2**18, "larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_its_secrets(tmp_path: Path, text: bytes | str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        ApiKeys(Settings(keys_file=kept(tmp_path, text)))
    assert "TESSERA_KEYS_FILE" in str(refused.value)
    assert "hush" not in str(refused.value)


def test_files_that_are_not_there_and_settings_said_twice(tmp_path: Path) -> None:
    file = kept(tmp_path, "anna=hush")
    for given, says in (
        ({"keys_file": tmp_path / "absent"}, "TESSERA_KEYS_FILE: .*absent.*No such file"),
        ({"keys_file": tmp_path}, "TESSERA_KEYS_FILE: .*directory"),
        ({"admin_key_file": tmp_path / "absent"}, "TESSERA_ADMIN_KEY_FILE: .*No such file"),
        ({"keys": "bert=other", "keys_file": file}, "TESSERA_KEYS and TESSERA_KEYS_FILE are both set"),
        ({"admin_key": "x", "admin_key_file": file}, "TESSERA_ADMIN_KEY and TESSERA_ADMIN_KEY_FILE are both set"),
        ({"admin_key_file": kept(tmp_path, "one\ntwo", "two")}, "TESSERA_ADMIN_KEY_FILE holds more than one key"),
        ({"admin_key_file": kept(tmp_path, "\n", "none")}, "TESSERA_ADMIN_KEY_FILE: .*holds no key"),
        ({"keys_file": file, "admin_key": "hush"}, "TESSERA_ADMIN_KEY is also in TESSERA_KEYS"),
    ):
        with pytest.raises(SettingsError, match=says):
            ApiKeys(Settings(**given))


def test_a_file_that_everybody_can_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = kept(tmp_path, "anna=hush")
    ApiKeys(Settings(keys_file=file))
    assert caplog.text == ""
    file.chmod(0o644)
    ApiKeys(Settings(keys_file=file))
    assert "TESSERA_KEYS_FILE" in caplog.text
    assert "chmod 600" in caplog.text
    assert "hush" not in caplog.text


def test_read_again_new_keys_hold_and_old_ones_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, admin = kept(tmp_path, "anna=one\nbert=two"), kept(tmp_path, "three", "admin")
    keys = ApiKeys(Settings(keys_file=file, admin_key_file=admin))
    kept(tmp_path, "anna=four")
    kept(tmp_path, "five", "admin")
    assert who(keys, "two") == "bert"  # not before it is told to
    keys.reload()
    assert who(keys, "four") == "anna"
    assert keys.allow("admin", {"x-api-key": "five"}).name == "admin"
    for gone in ("one", "two", "three"):
        with pytest.raises(KeyMissing):
            who(keys, gone)
    for bad in ("", "anna four"):
        kept(tmp_path, bad)
        caplog.clear()
        keys.reload()
        assert who(keys, "four") == "anna"
        assert "the keys stay as they were: TESSERA_KEYS_FILE" in caplog.text
    file.unlink()
    keys.reload()
    assert who(keys, "four") == "anna"
