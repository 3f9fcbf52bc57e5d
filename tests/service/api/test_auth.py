"""ApiKeys: who asks, what that opens, and that no secret is ever shown."""

import logging
from typing import Any

import pytest
from starlette.datastructures import Headers

from service.api.auth import ApiKeys
from service.api.key_settings import SCOPES, Caller
from service.api.problems import status_of
from service.errors import KeyMissing, NotAllowed
from service.settings import Settings, SettingsError

ANNA, BERT, ROOT = "anna's-secret=1", "bert-geheim-ß", "root-secret"


def keys(text: str = f"anna={ANNA}, bert={BERT}", admin: str = ROOT) -> ApiKeys:
    return ApiKeys(Settings(keys=text, admin_key=admin))


def bearer(secret: str) -> Headers:
    return Headers(raw=[(b"authorization", b"Bearer " + secret.encode())])


def test_without_keys_anybody_may_infer_and_edit() -> None:
    open_house = keys("", "")
    for headers in ({}, bearer("whatever"), {"x-api-key": "x"}, {"authorization": "Basic abc"}):
        assert open_house.authenticate(headers) == Caller("", frozenset({"infer", "edit"}))
        assert open_house.allow("edit", headers).name == ""


def test_both_headers_carry_a_key() -> None:
    for headers in (bearer(ANNA), {"authorization": f"bearer   {ANNA} "}, Headers({"X-API-Key": ANNA})):
        assert keys().authenticate(headers) == Caller("anna", frozenset({"infer", "edit"}))
    assert keys().authenticate(bearer(BERT)).name == "bert"  # sent as UTF-8
    both = {"authorization": "Bearer a-proxy's-own", "x-api-key": ANNA}
    assert keys().authenticate(both).name == "anna"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "a key is needed"),
        ({"authorization": f"Basic {ANNA}"}, "a key is needed"),
        ({"authorization": "Bearer "}, "a key is needed"),
        ({"authorization": ANNA}, "a key is needed"),
        ({"x-api-key": "anna"}, "not known"),
        ({"x-api-key": ANNA[:-1]}, "not known"),
        ({"x-api-key": f"{ANNA}x"}, "not known"),
        ({"x-api-key": "\u2603"}, "not known"),
    ],
)
def test_no_key_or_an_unknown_one_is_401_and_says_how(headers: Any, says: str) -> None:
    with pytest.raises(KeyMissing, match=says) as refused:
        keys().authenticate(headers)
    assert status_of(refused.value) == 401
    assert "X-API-Key" in str(refused.value)
    assert ANNA[:5] not in str(refused.value)


def test_the_admin_key_opens_everything_and_others_do_not_open_admin() -> None:
    assert keys().authenticate(bearer(ROOT)).scopes == {"infer", "edit", "admin"}
    for scope in SCOPES:
        assert keys().allow(scope, bearer(ROOT)).name == "admin"
    with pytest.raises(NotAllowed, match="'anna' opens infer, edit; this needs TESSERA_ADMIN_KEY"):
        keys().allow("admin", bearer(ANNA))
    with pytest.raises(KeyMissing):
        keys().allow("admin", {})


@pytest.mark.parametrize(
    ("scopes", "opened"),
    [
        ("", {"infer", "edit"}),
        (":infer", {"infer"}),
        (": edit ", {"edit"}),
        (":infer+edit", {"infer", "edit"}),
        (":edit+infer", {"infer", "edit"}),
    ],
)
def test_a_key_opens_the_scopes_it_is_given(scopes: str, opened: set[str]) -> None:
    runtime = keys(f"anna{scopes}={ANNA}")
    for scope in SCOPES[:2]:
        if scope in opened:
            assert runtime.allow(scope, bearer(ANNA)).name == "anna"
        else:
            with pytest.raises(NotAllowed, match=f"'anna' opens .*; this needs '{scope}'.*TESSERA_KEYS"):
                runtime.allow(scope, bearer(ANNA))
    assert runtime.authenticate(bearer(ANNA)).scopes == opened


def test_one_key_is_judged_per_request() -> None:
    for sent in ({"authorization": f"Bearer {ROOT}", "x-api-key": ANNA}, {"x-api-key": ANNA}):
        assert keys().authenticate(sent).name == "anna"
    with pytest.raises(KeyMissing, match="not known"):
        keys().authenticate({"authorization": f"Bearer {ROOT}", "x-api-key": "a guess"})


def test_an_admin_key_alone_leaves_the_house_open() -> None:
    runtime = keys("", ROOT)
    assert runtime.authenticate({}).name == ""
    assert runtime.authenticate(bearer("whatever")).name == ""
    assert runtime.allow("edit", {}).name == ""
    assert runtime.allow("admin", bearer(ROOT)).scopes == set(SCOPES)
    with pytest.raises(KeyMissing, match="TESSERA_ADMIN_KEY"):
        runtime.allow("admin", {})
    with pytest.raises(KeyMissing, match="not known"):
        runtime.allow("admin", bearer("whatever"))


@pytest.mark.parametrize("text", ["", f"anna={ANNA}"])
def test_without_an_admin_key_nobody_is_admin_and_the_setting_is_named(text: str) -> None:
    for headers in ({}, bearer(ANNA), bearer(""), {"x-api-key": ""}):
        with pytest.raises(NotAllowed, match="set TESSERA_ADMIN_KEY"):
            keys(text, "").allow("admin", headers)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hush-hush", "entry 1 has no '='"),
        ("anna=hush-hush,", "entry 2 has no '='"),
        (",anna=hush-hush", "entry 1 has no '='"),
        ("=hush-hush", "entry 1 needs a name"),
        ("hush hush=hush-hush", "entry 1 needs a name"),
        ("anna=hush-hush,bert= ", "entry 2 has no secret"),
        ("anna=hush-hush,anna=other", "entry 2 has the name of an earlier one"),
        ("anna=hush-hush,bert=hush-hush", "entry 2 has the secret of an earlier one"),
        ("admin=hush-hush", "entry 1 is called 'admin'"),
        ("anna:=hush-hush", "entry 1 has no scope"),
        ("anna:hush-hush=x", "entry 1 has no scope"),
        ("anna:admin=hush-hush", "entry 1 has no scope"),
        ("anna:infer+=hush-hush", "entry 1 has no scope"),
        (f"anna={ROOT}", "TESSERA_ADMIN_KEY is also in TESSERA_KEYS"),
    ],
)
def test_a_malformed_setting_is_named_without_its_secrets(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        keys(text)
    assert "TESSERA_KEYS" in str(refused.value)
    for secret in ("hush", ROOT):
        assert secret not in str(refused.value)


def test_no_secret_is_kept_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(keys=f"anna={ANNA}", admin_key=ROOT)
    runtime = ApiKeys(settings)
    runtime.authenticate(bearer(ANNA))
    for shown in (repr(runtime), repr(vars(runtime)), repr(settings), str(settings), caplog.text):
        assert ANNA not in shown
        assert ROOT not in shown
    assert repr(runtime) == "ApiKeys(anna, admin)"
